"""Download the files of the DREAM Challenge from Zenodo or a mirror, and verify their sha256."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.io.http import WAITS, download_file, file_sha256, partial_path

ZENODO = "https://zenodo.org/records/10633252/files"
"""URL of the folder with the challenge's files (Zenodo record 10633252, CC BY 4.0)."""


@dataclass(frozen=True)
class KnownFile:
    """The expected content of a file. sha256: in hexadecimal digits."""

    size: int
    sha256: str


CHALLENGE_FILES: Mapping[str, KnownFile] = {
    "train_sequences.txt": KnownFile(805_369_640, "dfd548e99d9d64fae963c029a8f7446688f6f064ae414e54c2f4880f25256661"),
    "test_sequences.txt": KnownFile(8_176_845, "becd1e6eb314e90e1d69c69f763aeb2d0d0bb4530e4a0700ed849756b47a583f"),
}


@dataclass(frozen=True)
class DownloadResult:
    """A file that is present and verified. fetched: bytes received by this download."""

    path: str
    bytes: int
    fetched: int
    existing: bool
    """Whether the file was present before the download."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for --json."""
        values = asdict(self)
        return {**values, "was_there": values.pop("existing")}


def download(
    files: Sequence[str] = (),
    out: Path = Path(),
    base_url: str = ZENODO,
    on_progress: Callable[[int, int, str], None] = lambda _done, _total, _note: None,
    known: Mapping[str, KnownFile] = CHALLENGE_FILES,
    waits: Sequence[float] = WAITS,
) -> list[DownloadResult]:
    """Download known files (all of them if none is named) into a folder; verified files are kept.

    The URL of a file is `base_url`/NAME?download=1. on_progress: called with bytes received, bytes of all missing files
    and a note. See `download_file` for resuming and `waits`. Raises UserError for an unknown name, a failed download,
    too little disk space, or another file of that name in the folder, which is kept.
    """
    names = list(dict.fromkeys(files)) or list(known)
    for name in names:
        if name not in known:
            raise UserError(f"{name}: unknown file; expected {' or '.join(known)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        missing = [name for name in names if not (out / name).exists()]
        partials = [partial_path(out / name) for name in missing]
        received = sum(partial.stat().st_size for partial in partials if partial.exists())
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    total = sum(known[name].size for name in missing)
    if free < total - received:
        raise UserError(
            f"{out}: disk too full; expected {total - received:,} bytes free, got {free:,}; fix: free disk "
            "space, or choose another folder: -o FOLDER"
        )
    done = 0
    results = []
    for name in names:
        path, file = out / name, known[name]
        if name not in missing:
            results.append(_verify_existing(path, file))
            continue

        def show(size: int, note: str, name: str = name, before: int = done) -> None:
            on_progress(before + size, total, f"{name}: {note}" if note else name)

        url = f"{base_url.rstrip('/')}/{name}?download=1"
        fetched = download_file(url, path, file.size, file.sha256, show, waits)
        results.append(DownloadResult(str(path), file.size, fetched, existing=False))
        done += file.size
    return results


def _verify_existing(path: Path, file: KnownFile) -> DownloadResult:
    """Raise UserError if a file does not have the known size and sha256."""
    try:
        size, sha256 = path.stat().st_size, file_sha256(path)
        if (size, sha256) != (file.size, file.sha256):
            raise UserError(
                f"{path}: another file; expected {file.size:,} bytes with sha256 {file.sha256}, got {size:,} with "
                f"{sha256}; fix: move it away"
            )
        partial_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    return DownloadResult(str(path), file.size, 0, existing=True)
