"""Public API of promoter-bert, for example: from promoter_bert import Predictor.

The packages `pipeline` and `model` define it, and each name loads its module on first use. A user's module that hides
one of these packages, such as model.py in the working directory, is reported with its path.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING


def _check_package(name: str) -> None:
    """Check that no other module hides a package of promoter-bert. Raises ImportError if one does."""
    package = Path(__file__).resolve().parent / name / "__init__.py"
    spec = find_spec(name)
    origin = spec and (spec.origin or next(iter(spec.submodule_search_locations or []), None))
    if origin and Path(origin).resolve() != package:
        raise ImportError(
            f"{origin}: hides the package {name!r} of promoter-bert ({package.parent}); expected no other module of "
            "that name before it on sys.path; fix: rename the file, or start Python in another folder",
            name=name,
            path=origin,
        )


for _package in ("pipeline", "model"):
    _check_package(_package)

if TYPE_CHECKING:
    from model import *  # noqa: F403
    from pipeline import *  # noqa: F403
else:
    from pipeline.runtime.lazy import lazy_names

    packages = {name: package for package in ("pipeline", "model") for name in import_module(package).__all__}
    __getattr__, __dir__, __all__ = lazy_names(__name__, packages)
