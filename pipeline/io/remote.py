"""Files named by a URL (https://, s3://, ...): any file system that fsspec knows."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def is_remote(name: Path | str) -> bool:
    """Whether a name is a URL."""
    return "://" in str(name)


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """The file system of a URL, with its own options, and the URL's path in it.

    Raises UserError where none is installed for it.
    """
    import fsspec

    try:
        # Others write there, too: what was listed before is no answer.
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        raise UserError(f"{url}: {error}; for s3: pip install s3fs") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return system, str(path)


def cannot(do: str, url: str, error: Exception) -> UserError:
    """What a file system said, each of which has errors of its own."""
    return UserError(f"{url}: cannot {do}: {error or type(error).__name__}")


def read_bytes(folder: Path | str, name: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of a file below a folder or URL, or those from start to end.

    Raises FileNotFoundError, and UserError where it cannot be read.
    """
    try:
        if is_remote(folder):
            system, path = file_system(f"{str(folder).rstrip('/')}/{name}")
            content: bytes = system.cat_file(path, start=start, end=end)
            return content
        with Path(folder, name).open("rb") as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(end - (start or 0))
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:
        raise cannot("read", f"{folder}/{name}", error) from None


def fetch(names: list[str], folder: Path) -> dict[str, str]:
    """Copy the files of URLs into a folder; returns the local name of each. Raises UserError for what cannot be had."""
    local: dict[str, str] = {}
    for number, name in enumerate(names):
        # The end of the name says what kind of file it is.
        target = folder / f"{number}-{Path(name.partition('?')[0]).name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            system, path = file_system(name)
            with system.open(path, "rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except UserError:
            raise
        except Exception as error:
            raise cannot("fetch", name, error) from None
        local[name] = str(target)
    return local
