"""The challenge's files, from Zenodo or a mirror: whole and with the right hash, or not under their name at all."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import UserError
from pipeline.io.http import WAITS, ResumingDownloader
from pipeline.runtime.progress import Update

ZENODO = "https://zenodo.org/records/10633252/files"
"""Folder of the record with the challenge's data (CC BY 4.0)."""


@dataclass(frozen=True)
class KnownFile:
    """What a file must be: its bytes, and their sha256 in hexadecimal digits."""

    size: int
    sha256: str


KNOWN: Mapping[str, KnownFile] = MappingProxyType(
    {
        "train_sequences.txt": KnownFile(
            805_369_640, "dfd548e99d9d64fae963c029a8f7446688f6f064ae414e54c2f4880f25256661"
        ),
        "test_sequences.txt": KnownFile(8_176_845, "becd1e6eb314e90e1d69c69f763aeb2d0d0bb4530e4a0700ed849756b47a583f"),
    }
)


@dataclass(frozen=True)
class Downloaded:
    """A file that is there and right. fetched: bytes of it that came over the network now."""

    path: str
    bytes: int
    fetched: int
    was_there: bool


def download(
    files: Sequence[str] = (),
    out: Path = Path(),
    base_url: str = ZENODO,
    progress: Update = lambda _done, _all, _note: None,
    known: Mapping[str, KnownFile] = KNOWN,
    waits: Sequence[float] = WAITS,
) -> list[Downloaded]:
    """Fetch known files (all of them if none is named) into a folder; what is there and right is not fetched again.

    `base_url`/NAME?download=1 is asked for. progress(bytes here, bytes of all files that were missing, a note). A
    download that was stopped goes on from NAME.partial; a cut connection is tried again after each of `waits`, in
    seconds.

    Raises UserError for an unknown name, no connection, a server that refuses or has another file, wrong bytes, a full
    disk, or another file of that name in the folder, which is left alone.
    """
    names = list(dict.fromkeys(files)) or list(known)
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such file is known; known are {', '.join(known)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        missing = [name for name in names if not (out / name).exists()]
        _check_room(out, {name: known[name].size for name in missing})
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}") from None
    total = sum(known[name].size for name in missing)
    done = 0
    found = []
    for name in names:
        found.append(_Fetch(name, known[name], out, base_url, waits).run(progress, done, total))
        done += known[name].size if name in missing else 0
    return found


@dataclass(frozen=True)
class _Fetch:
    name: str
    known: KnownFile
    out: Path
    base_url: str
    waits: Sequence[float]

    def run(self, progress: Update, before: int, total: int) -> Downloaded:
        """before: bytes of the files before this one, of `total`."""

        def show(here: int, note: str) -> None:
            progress(before + here, total, f"{self.name}: {note}" if note else self.name)

        path = self.out / self.name
        partial = _partial(path)
        was_there = path.exists()
        try:
            _remove_second_names(partial)
            fetched, trouble, pieced = self._once(show)
            if trouble and pieced:
                # Old pieces may be of something else. (One whole answer that is wrong will be wrong again.)
                show(0, "wrong bytes in what was here before; from the beginning")
                more, trouble, _ = self._once(show)
                fetched += more
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; what has come so far stays in {partial}") from None
        if trouble:
            raise UserError(f"{self._url}: wrong bytes, which are deleted: {trouble}; name another mirror: --from URL")
        return Downloaded(str(path), self.known.size, fetched, was_there)

    def _once(self, show: Callable[[int, str], None]) -> tuple[int, str, bool]:
        """Bytes fetched, what is wrong with the hash, and whether they are of more than one answer."""
        import pooch

        path = self.out / self.name
        partial = _partial(path)
        downloader = ResumingDownloader(partial, self.known.size, show, self.waits)
        store = pooch.Pooch(
            path=self.out.resolve(),
            base_url=self.base_url,
            registry={self.name: self.known.sha256},
            urls={self.name: self._url},
            allow_updates=False,
        )
        trouble = ""
        try:
            with _silent(pooch.get_logger()):
                store.fetch(self.name, downloader=downloader)
        except ValueError as error:  # a wrong hash; all else comes as UserError or OSError
            if path.exists():
                raise UserError(
                    f"{path} is there, but is another file: expected {self.known.size:,} bytes with sha256 "
                    f"{self.known.sha256}, got {path.stat().st_size:,} with {pooch.file_hash(path)}; move it away"
                ) from None
            trouble = str(error).partition(". ")[0]  # expected and got; then pooch's advice to its own users
        partial.unlink(missing_ok=True)
        return downloader.fetched, trouble, downloader.pieced

    @property
    def _url(self) -> str:
        return f"{self.base_url.rstrip('/')}/{self.name}?download=1"


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _check_room(out: Path, sizes: Mapping[str, int]) -> None:
    partials = [_partial(out / name) for name in sizes]
    need = sum(sizes.values()) - sum(partial.stat().st_size for partial in partials if partial.exists())
    free = shutil.disk_usage(out).free
    if free < need:
        raise UserError(f"{out}: {need:,} bytes are still to come, but {free:,} are free; make room, or another --out")


def _remove_second_names(partial: Path) -> None:
    """What a process leaves that was killed while pooch checked the hash: its temporary name of the same bytes."""
    if partial.exists() and partial.stat().st_nlink > 1:
        for path in partial.parent.glob("tmp*"):
            if path.samefile(partial):
                path.unlink()


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """pooch's logger prints between the lines of our progress."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
