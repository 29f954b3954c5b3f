"""Batches -> BERT -> checkpoints -> predictions -> scores. Reaches the data through pipeline/.

The public API is imported from here; each name loads its module on first use.
"""

from typing import TYPE_CHECKING

from pipeline.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from model.config import Config, load_config
    from model.interpretation.saturation_mutagenesis import saturation_mutagenesis
    from model.prediction.predictor import Predictor
    from model.reporting.run_page import write_report
    from model.scoring.dream import dream_score
    from model.training.train import train

__all__ = [
    "Config",
    "Predictor",
    "dream_score",
    "load_config",
    "saturation_mutagenesis",
    "train",
    "write_report",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Config": "model.config",
        "Predictor": "model.prediction.predictor",
        "dream_score": "model.scoring.dream",
        "load_config": "model.config",
        "saturation_mutagenesis": "model.interpretation.saturation_mutagenesis",
        "train": "model.training.train",
        "write_report": "model.reporting.run_page",
    },
)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
