"""Remote files by URL (https://, s3://, ...), on any file system that fsspec supports."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def is_remote(name: Path | str) -> bool:
    """Return whether a name is a URL."""
    return "://" in str(name)


def open_file_system(url: str, **options: Any) -> tuple[Any, str]:
    """Open the file system of a URL. Returns it, and the path of the URL in it. options: of that file system.

    Raises UserError if the package for the file system is not installed.
    """
    import fsspec

    try:
        # Listings are not cached, because other processes write to the same folder.
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        raise UserError(f"{url}: {error}; fix: install the package it needs (for s3: pip install s3fs)") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return system, str(path)


def remote_error(action: str, url: str, error: Exception) -> UserError:
    """Make a UserError from the error of a file system; each file system has its own error types."""
    return UserError(f"{url}: cannot {action}: {error or type(error).__name__}")


def read_bytes(folder: Path | str, name: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read a file in a folder or URL, or only its bytes from start to end.

    Raises FileNotFoundError if it is missing, and UserError if it cannot be read.
    """
    try:
        if is_remote(folder):
            system, path = open_file_system(f"{str(folder).rstrip('/')}/{name}")
            content: bytes = system.cat_file(path, start=start, end=end)
            return content
        with Path(folder, name).open("rb") as file:
            file.seek(start or 0)
            return file.read() if end is None else file.read(end - (start or 0))
    except (FileNotFoundError, UserError):
        raise
    except Exception as error:
        raise remote_error("read", f"{folder}/{name}", error) from None


def fetch(names: list[str], folder: Path) -> dict[str, str]:
    """Copy files from URLs to a folder. Returns the local path by URL. Raises UserError if a copy fails."""
    local: dict[str, str] = {}
    for number, name in enumerate(names):
        # The suffix stays, because the format is detected by it.
        target = folder / f"{number}-{Path(name.partition('?')[0]).name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            system, path = open_file_system(name)
            with system.open(path, "rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except UserError:
            raise
        except Exception as error:
            raise remote_error("fetch", name, error) from None
        local[name] = str(target)
    return local
