"""Files named by a URL (https://, s3://, ...) are copied beside the work first: any file system that fsspec knows."""

import shutil
from pathlib import Path

from pipeline.errors import UserError


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return "://" in name


def fetch(names: list[str], folder: Path) -> dict[str, str]:
    """Copy the files of URLs into a folder; returns the local name of each. Raises UserError for what cannot be had."""
    import fsspec

    local: dict[str, str] = {}
    for number, name in enumerate(names):
        # The end of the name says what kind of file it is.
        target = folder / f"{number}-{Path(name.partition('?')[0]).name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with fsspec.open(name, "rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except ImportError as error:
            raise UserError(f"{name}: {error}; for s3: pip install s3fs") from None
        except Exception as error:  # each file system has errors of its own
            raise UserError(f"{name}: cannot be fetched: {error or type(error).__name__}") from None
        local[name] = str(target)
    return local
