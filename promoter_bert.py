"""The public API of promoter-bert: from promoter_bert import Predictor.

The packages `pipeline` and `model` hold it; each name loads its module on first use. A module of the user's that has
the name of a package, such as a model.py in the working directory, is reported here by its path.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model import Config, Predictor, dream_score, load_config, saturation_mutagenesis, train, write_report
    from pipeline import (
        DataConfig,
        ShardStream,
        UserError,
        build_dataset,
        load_data_config,
        open_dataset,
        read_index,
        verify_shards,
        write_shards,
    )

__all__ = [
    "Config",
    "DataConfig",
    "Predictor",
    "ShardStream",
    "UserError",
    "build_dataset",
    "dream_score",
    "load_config",
    "load_data_config",
    "open_dataset",
    "read_index",
    "saturation_mutagenesis",
    "train",
    "verify_shards",
    "write_report",
    "write_shards",
]


def _check_package(name: str) -> None:
    """Raise ImportError if another module hides a package of ours."""
    ours = Path(__file__).resolve().parent / name / "__init__.py"
    spec = find_spec(name)
    found = spec and (spec.origin or next(iter(spec.submodule_search_locations or []), None))
    if found and Path(found).resolve() != ours:
        raise ImportError(
            f"{found}: hides the package {name!r} of promoter-bert ({ours.parent}); expected no other module of that "
            "name before it on sys.path; fix: rename the file, or start Python in another folder",
            name=name,
            path=found,
        )


for _package in ("pipeline", "model"):
    _check_package(_package)


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562) from the package that has it."""
    for package in map(import_module, ("pipeline", "model")):
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
