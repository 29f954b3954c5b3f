"""Where shards are put: a folder, or a URL that fsspec knows. Each shard whole or not there, the index last.

In a folder all is written beside it and renamed into place at the end. A URL's store knows no renaming: shards are
put under their own names, each followed by a note, while no index tells of them.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import UserError
from pipeline.io.atomic import new_file, replace_folder, write_text
from pipeline.io.remote import cannot, file_system, is_remote
from pipeline.shards.index import INDEX, Index, ShardEntry, index_text, read_index, shard_entry

_SHARD = re.compile(r"(pretrain|finetune)/(train|valid|test)-[0-9]{6,}\.tar")
_NOTE = re.compile(r"\.[0-9a-f]{16}\.partial/")
"""Files that are ours, by their names below the folder or URL; others are left alone."""


class ShardStore(Protocol):
    """What writing shards asks of the place where they go. Goes to writer processes, so it holds no open things."""

    @property
    def key(self) -> str:
        """The key of the shards that are put there."""

    def present(self, index: Index) -> set[str]:
        """The files of a finished index that are there in their size."""

    def begin(self, standing: Index | None) -> None:
        """Before the first shard is written; standing: the finished index of the same key, if there is one."""

    def finished(self, file: str) -> ShardEntry | None:
        """The shard, where an interrupted run finished it."""

    def new_shard(self, file: str) -> AbstractContextManager[Path]:
        """A local name to write a shard to; at the end of the block it is put in its place."""

    def note(self, entry: ShardEntry) -> None:
        """Say that a shard is whole."""

    def publish(self, index: Index) -> None:
        """Every shard is there: let the index be seen, and clear away what is not in it."""


def shard_store(place: str, key: str) -> ShardStore:
    """The store of a folder or URL for the shards of a key. Raises UserError for a URL that keeps nothing."""
    if place.startswith("memory:"):
        raise UserError(f"{place} is gone with this process; expected a folder, or a URL of a store that lasts")
    return RemoteStore(place, key) if is_remote(place) else FolderStore(Path(place), key)


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine, or of a disk that several share."""

    folder: Path
    key: str

    @property
    def work(self) -> Path:
        """Where shards lie until all are there; named after their key, so that only the same ones are gone on with."""
        return self.folder.with_name(f".{self.folder.name}.{self.key[:16]}.partial")

    def present(self, index: Index) -> set[str]:
        sizes = ((entry.file, self.folder / entry.file, entry.bytes) for entry in index.shards)
        return {file for file, path, size in sizes if path.is_file() and path.stat().st_size == size}

    def begin(self, standing: Index | None) -> None:
        self._refuse_what_is_not_ours()
        for file in self.present(standing) if standing else ():
            target = self.work / file
            if not target.exists():
                with new_file(target) as path:
                    try:
                        os.link(self.folder / file, path)
                    except OSError:  # no hard links on this file system
                        shutil.copyfile(self.folder / file, path)

    def _refuse_what_is_not_ours(self) -> None:
        """The folder is replaced in the end, so it must hold nothing but shards and their index."""
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; expected the name of a folder for shards")
        files = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())
        others = sorted(file for file in files if file != INDEX and not _SHARD.fullmatch(file))
        if others:
            raise UserError(f"{self.folder} holds {others[0]}, which is no shard and would be lost; move it elsewhere")

    def finished(self, file: str) -> ShardEntry | None:
        path = self.work / file
        try:
            entry = shard_entry(json.loads(_note(path).read_text(encoding="utf-8")))
            with path.open("rb") as shard:
                whole = hashlib.file_digest(shard, "sha256").hexdigest() == entry.sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if whole else None

    @contextmanager
    def new_shard(self, file: str) -> Iterator[Path]:
        with new_file(self.work / file) as path:
            yield path

    def note(self, entry: ShardEntry) -> None:
        write_text(_note(self.work / entry.file), json.dumps(asdict(entry)))

    def publish(self, index: Index) -> None:
        shards = {self.work / entry.file for entry in index.shards}
        for litter in self.work.rglob("*"):  # notes, what killed writers left, shards of splits not asked for any more
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

    def begin(self, standing: Index | None) -> None:
        """Takes an index of other shards away first, and the notes of other keys: those shards are written over."""
        if standing is None:
            self._remove([file for file in self._sizes() if file == INDEX or self._is_note_of_others(file)])

    def finished(self, file: str) -> ShardEntry | None:
        system, path = file_system(self.url)
        try:
            note = json.loads(system.cat_file(f"{path}/{self._notes}/{file}.json"))
            return shard_entry(note["entry"]) if system.ukey(f"{path}/{file}") == note["version"] else None
        except Exception:  # not there; a store that cannot be reached says so when the shard is put
            return None

    @contextmanager
    def new_shard(self, file: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="promoter-bert-") as folder:
            local = Path(folder) / "shard.tar"
            try:
                yield local
            except OSError as error:
                raise UserError(f"{local}: cannot write: {error.strerror or error} (TMPDIR names the place)") from None
            system, path = file_system(self.url)
            try:
                system.put_file(str(local), f"{path}/{file}")
            except Exception as error:
                raise cannot("write", f"{self.url}/{file}", error) from None

    def note(self, entry: ShardEntry) -> None:
        system, path = file_system(self.url)
        try:
            version = system.ukey(f"{path}/{entry.file}")  # of the file as it lies there now
        except Exception as error:
            raise cannot("read", f"{self.url}/{entry.file}", error) from None
        self._put(f"{self._notes}/{entry.file}.json", json.dumps({"version": version, "entry": asdict(entry)}))

    def publish(self, index: Index) -> None:
        files = self._sizes()
        if any(self._is_note_of_others(file) for file in files):  # `begin` had left none
            raise UserError(f"{self.url}: another run writes other shards there; when it is over, start this one again")
        self._put(INDEX, index_text(index))
        kept = {entry.file for entry in index.shards}
        self._remove([file for file in files if _NOTE.match(file) or (_SHARD.fullmatch(file) and file not in kept)])

    def _is_note_of_others(self, file: str) -> bool:
        return bool(_NOTE.match(file)) and not file.startswith(f"{self._notes}/")

    def _sizes(self) -> dict[str, int]:
        """Bytes of every file below the URL, by its name relative to it."""
        system, path = file_system(self.url)
        try:
            found = system.find(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise cannot("list", self.url, error) from None
        return {name.removeprefix(path.rstrip("/") + "/"): entry["size"] for name, entry in found.items()}

    def _put(self, file: str, text: str) -> None:
        system, path = file_system(self.url)
        try:
            system.pipe_file(f"{path}/{file}", text.encode())
        except Exception as error:
            raise cannot("write", f"{self.url}/{file}", error) from None

    def _remove(self, files: list[str]) -> None:
        system, path = file_system(self.url)
        for file in files:
            try:
                system.rm_file(f"{path}/{file}")
            except FileNotFoundError:
                continue
            except Exception as error:
                raise cannot("remove", f"{self.url}/{file}", error) from None


def standing_index(place: str) -> Index | None:
    """The index that lies in a folder or at a URL, if there is a whole one of this format."""
    try:
        return read_index(place)
    except UserError:
        return None
