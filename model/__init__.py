"""Batches -> BERT -> checkpoints -> predictions -> scores. Reaches the data through pipeline/.

The public API is imported from here; each name loads its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_PLACES = {
    "Config": ("model.config", "Config"),
    "Predictor": ("model.prediction.predictor", "Predictor"),
    "dream_score": ("model.scoring.dream", "dream_score"),
    "load_config": ("model.config", "load_config"),
    "saturation_mutagenesis": ("model.interpretation.saturation_mutagenesis", "saturation_mutagenesis"),
    "train": ("model.training.train", "train"),
    "write_report": ("model.reporting.run_page", "write_report"),
}
"""Module and attribute of each public name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
