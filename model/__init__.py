"""Batches -> BERT -> checkpoints -> predictions -> scores. Reaches the data through pipeline/.

The public API is imported from here; each name loads its module on first use.
"""

from typing import TYPE_CHECKING

from pipeline.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from model.config import Config as Config
    from model.config import load_config as load_config
    from model.interpretation.saturation_mutagenesis import saturation_mutagenesis as saturation_mutagenesis
    from model.prediction.predictor import Predictor as Predictor
    from model.prediction.variants.effects import variant_effects as variant_effects
    from model.reporting.run_page import write_report as write_report
    from model.scoring.dream import dream_score as dream_score
    from model.training.train import train as train
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Config": "model.config",
            "Predictor": "model.prediction.predictor",
            "dream_score": "model.scoring.dream",
            "load_config": "model.config",
            "saturation_mutagenesis": "model.interpretation.saturation_mutagenesis",
            "train": "model.training.train",
            "variant_effects": "model.prediction.variants.effects",
            "write_report": "model.reporting.run_page",
        },
    )
