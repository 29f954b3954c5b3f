"""Stores of shards: a folder, or a URL that fsspec can write to. Shards are written atomically, the index last.

A folder store writes everything to a hidden folder beside its own, which is renamed at the end. A URL cannot rename:
shards get their own names there, each followed by a note, while no index lists them.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import UserError
from pipeline.io.atomic import new_file, replace_folder, write_text
from pipeline.io.remote import file_system, is_remote, remote_error
from pipeline.shards.index import INDEX, SHARD_FILE, Index, ShardEntry, index_text, shard_entry

_NOTE = re.compile(r"\.[0-9a-f]{16}\.partial/")
"""Notes of finished shards below a URL. Files that are neither these, shards nor the index are left alone."""


class ShardStore(Protocol):
    """The place where shards are written. Goes to writer processes, so it holds no open files."""

    @property
    def key(self) -> str:
        """The key of the shards that are written."""

    def present(self, index: Index) -> set[str]:
        """List the files of an index that exist in their size."""

    def begin(self, existing: Index | None) -> None:
        """Prepare for the first shard. existing: the index of the same key, if there is one."""

    def finished(self, file: str) -> ShardEntry | None:
        """Find the entry of a shard that an interrupted run finished."""

    def new_shard(self, file: str) -> AbstractContextManager[Path]:
        """Give a local path to write a shard to; it is stored when the block ends."""

    def note(self, entry: ShardEntry) -> None:
        """Record that a shard is finished."""

    def publish(self, index: Index) -> None:
        """Make the index visible, now that every shard exists, and remove files that are not in it."""


def shard_store(place: str, key: str) -> ShardStore:
    """Make the store of a folder or URL for the shards of a key. Raises UserError for a URL that keeps nothing."""
    if place.startswith("memory:"):
        raise UserError(f"{place}: ends with this process; expected a folder, or a URL of a store that lasts")
    return RemoteStore(place, key) if is_remote(place) else FolderStore(Path(place), key)


def _is_shard(file: str) -> bool:
    return re.fullmatch(SHARD_FILE, file) is not None


@dataclass(frozen=True)
class FolderStore:
    """A local folder, or one on a disk that several machines share."""

    folder: Path
    key: str

    @property
    def work(self) -> Path:
        """The hidden folder for unpublished shards. Its name holds their key, so only the same shards are resumed."""
        return self.folder.with_name(f".{self.folder.name}.{self.key[:16]}.partial")

    def present(self, index: Index) -> set[str]:
        sizes = ((entry.file, self.folder / entry.file, entry.bytes) for entry in index.shards)
        return {file for file, path, size in sizes if path.is_file() and path.stat().st_size == size}

    def begin(self, existing: Index | None) -> None:
        self._refuse_foreign_files()
        for file in self.present(existing) if existing else ():
            target = self.work / file
            if not target.exists():
                with new_file(target) as path:
                    try:
                        os.link(self.folder / file, path)
                    except OSError:  # no hard links on this file system
                        shutil.copyfile(self.folder / file, path)

    def _refuse_foreign_files(self) -> None:
        """Raise UserError if the folder, which is replaced at the end, holds more than shards and their index."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; expected a folder for shards")
        files = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())
        others = sorted(file for file in files if file != INDEX and not _is_shard(file))
        if others:
            raise UserError(f"{self.folder}: holds {others[0]}, which is not a shard; move it elsewhere")

    def finished(self, file: str) -> ShardEntry | None:
        path = self.work / file
        try:
            entry = shard_entry(json.loads(_note(path).read_text(encoding="utf-8")))
            with path.open("rb") as shard:
                return entry if hashlib.file_digest(shard, "sha256").hexdigest() == entry.sha256 else None
        except (OSError, ValueError):
            return None

    @contextmanager
    def new_shard(self, file: str) -> Iterator[Path]:
        with new_file(self.work / file) as path:
            yield path

    def note(self, entry: ShardEntry) -> None:
        write_text(_note(self.work / entry.file), json.dumps(asdict(entry)))

    def publish(self, index: Index) -> None:
        shards = {self.work / entry.file for entry in index.shards}
        for litter in self.work.rglob("*"):  # notes, files of killed writers, shards of splits no longer requested
            if litter.is_file() and litter not in shards:
                litter.unlink()
        write_text(self.work / INDEX, index_text(index))
        replace_folder(self.work, self.folder)
        for leftover in self.folder.parent.glob(f".{self.folder.name}.*.partial"):
            shutil.rmtree(leftover)


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


@dataclass(frozen=True)
class RemoteStore:
    """A URL below which files can be put, such as s3://bucket/shards/k3."""

    url: str
    key: str

    @property
    def _notes(self) -> str:
        return f".{self.key[:16]}.partial"

    def present(self, index: Index) -> set[str]:
        sizes = self._sizes()
        return {entry.file for entry in index.shards if sizes.get(entry.file) == entry.bytes}

    def begin(self, existing: Index | None) -> None:
        """Remove an index of other shards, and notes of other keys, whose shards are about to be overwritten."""
        if existing is None:
            self._remove([file for file in self._sizes() if file == INDEX or self._is_note_of_others(file)])

    def finished(self, file: str) -> ShardEntry | None:
        system, path = file_system(self.url)
        try:
            note = json.loads(system.cat_file(f"{path}/{self._notes}/{file}.json"))
            return shard_entry(note["entry"]) if system.ukey(f"{path}/{file}") == note["version"] else None
        except Exception:  # missing; an unreachable store is reported when the shard is written
            return None

    @contextmanager
    def new_shard(self, file: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="promoter-bert-") as folder:
            local = Path(folder) / "shard.tar"
            try:
                yield local
            except OSError as error:
                raise UserError(
                    f"{local}: cannot write: {error.strerror or error}; set TMPDIR to another folder"
                ) from None
            system, path = file_system(self.url)
            with _errors_of("write", f"{self.url}/{file}"):
                system.put_file(str(local), f"{path}/{file}")

    def note(self, entry: ShardEntry) -> None:
        system, path = file_system(self.url)
        with _errors_of("read", f"{self.url}/{entry.file}"):
            version = system.ukey(f"{path}/{entry.file}")  # the file's present version
        self._put(f"{self._notes}/{entry.file}.json", json.dumps({"version": version, "entry": asdict(entry)}))

    def publish(self, index: Index) -> None:
        files = self._sizes()
        if any(self._is_note_of_others(file) for file in files):  # `begin` left none
            raise UserError(f"{self.url}: another run writes other shards there; run this command again later")
        self._put(INDEX, index_text(index))
        kept = {entry.file for entry in index.shards}
        self._remove([file for file in files if _NOTE.match(file) or (_is_shard(file) and file not in kept)])

    def _is_note_of_others(self, file: str) -> bool:
        return bool(_NOTE.match(file)) and not file.startswith(f"{self._notes}/")

    def _sizes(self) -> dict[str, int]:
        """List the size in bytes of every file below the URL, by relative name."""
        system, path = file_system(self.url)
        found = {}
        with _errors_of("list", self.url), suppress(FileNotFoundError):
            found = system.find(path, detail=True)
        return {name.removeprefix(path.rstrip("/") + "/"): entry["size"] for name, entry in found.items()}

    def _put(self, file: str, text: str) -> None:
        system, path = file_system(self.url)
        with _errors_of("write", f"{self.url}/{file}"):
            system.pipe_file(f"{path}/{file}", text.encode())

    def _remove(self, files: list[str]) -> None:
        system, path = file_system(self.url)
        for file in files:
            with _errors_of("remove", f"{self.url}/{file}"), suppress(FileNotFoundError):
                system.rm_file(f"{path}/{file}")


@contextmanager
def _errors_of(action: str, url: str) -> Iterator[None]:
    """Turn any error of a file system, each of which has its own, into a UserError."""
    try:
        yield
    except Exception as error:
        raise remote_error(action, url, error) from None
