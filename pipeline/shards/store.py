"""Stores of shards: a folder, or a URL that fsspec can write to. Shards are written atomically, the index last.

A folder store writes to a hidden folder beside the final one, and renames it at the end. At a URL nothing can be
renamed: shards get their final names, each with a note, and no index lists them before all exist.
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
from typing import Any

from pipeline.errors import UserError
from pipeline.io.atomic import new_file, replace_folder, write_text
from pipeline.io.remote import is_remote, open_file_system, remote_error
from pipeline.shards.index import INDEX, SHARD_FILE, Index, ShardEntry, parse_shard_entry, serialize_files
from pipeline.shards.plan import SPLITS
from pipeline.shards.record_tables import table_name

_NOTE = re.compile(r"\.[0-9a-f]{16}\.partial/")
"""Names of note files at a URL, one per finished shard. Only note files, shards and the index are ever changed."""


def _is_own(file: str) -> bool:
    """Return whether a file is one of those that are published: a shard, a table of records, the index."""
    return file == INDEX or file in map(table_name, SPLITS) or re.fullmatch(SHARD_FILE, file) is not None


@dataclass(frozen=True)
class FolderStore:
    """Store in a local folder, or in one on a shared disk. It is pickled for writer processes, so it has no open files.

    key: of the shards to write.
    """

    folder: Path
    key: str

    @property
    def work(self) -> Path:
        """Return the hidden folder of unpublished shards. Its name contains the key: only equal shards are resumed."""
        return self.folder.with_name(f".{self.folder.name}.{self.key[:16]}.partial")

    def find_present(self, index: Index) -> dict[str, ShardEntry]:
        """List the shards of an index whose files exist with the right size, by file. Reads no bytes; verify does."""
        paths = ((self.folder / entry.file, entry) for entry in index.shards)
        return {entry.file: entry for path, entry in paths if path.is_file() and path.stat().st_size == entry.bytes}

    def begin(self, existing: Index | None) -> None:
        """Prepare the store for writing. existing: the index of the same key, if there is one.

        Raises UserError if the folder contains files that are not shards: it is replaced at the end.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder}: is a file; expected a folder of shards; fix: set shards.path")
        files = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())
        foreign = sorted(file for file in files if not _is_own(file))
        if foreign:
            raise UserError(f"{self.folder}: contains {foreign[0]}, which is not a shard; fix: move it elsewhere")
        for file in self.find_present(existing) if existing else ():
            target = self.work / file
            if not target.exists():
                with new_file(target) as path:
                    try:
                        os.link(self.folder / file, path)
                    except OSError:  # no hard links on this file system
                        shutil.copyfile(self.folder / file, path)

    def find_finished(self, file: str) -> ShardEntry | None:
        """Return the entry of a shard that an interrupted run finished, or None. Checks its sha256."""
        path = self.work / file
        try:
            entry = parse_shard_entry(json.loads(path.with_suffix(".json").read_bytes()), file)
            with path.open("rb") as shard:
                return entry if hashlib.file_digest(shard, "sha256").hexdigest() == entry.sha256 else None
        except (OSError, ValueError, RecursionError):
            return None

    def new_shard(self, file: str) -> AbstractContextManager[Path]:
        """Yield a local path to write a shard to. The shard is stored when the block ends."""
        return new_file(self.work / file)

    def note_finished(self, entry: ShardEntry) -> None:
        """Write the note file of a finished shard."""
        write_text((self.work / entry.file).with_suffix(".json"), json.dumps(asdict(entry)))

    def publish(self, index: Index) -> None:
        """Publish the index after all shards exist. Remove shards that it does not list, and all note files."""
        shards = {self.work / entry.file for entry in index.shards}
        for path in self.work.rglob("*"):  # note files, files of killed writers, shards of other splits
            if path.is_file() and path not in shards:
                path.unlink()
        for name, content in serialize_files(index).items():
            with new_file(self.work / name) as path:
                path.write_bytes(content)
        replace_folder(self.work, self.folder)
        work = re.compile(rf"\.{re.escape(self.folder.name)}\.[0-9a-f]{{16}}\.partial")
        for leftover in self.folder.parent.iterdir():
            if work.fullmatch(leftover.name) and leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)


@dataclass(frozen=True)
class RemoteStore:
    """Store at a writable URL, such as s3://bucket/shards/k3. key: of the shards to write."""

    url: str
    key: str

    @property
    def _notes(self) -> str:
        return f".{self.key[:16]}.partial"

    def find_present(self, index: Index) -> dict[str, ShardEntry]:
        sizes = self._list_sizes()
        return {entry.file: entry for entry in index.shards if sizes.get(entry.file) == entry.bytes}

    def begin(self, existing: Index | None) -> None:
        """Remove an index of other shards, and note files of other keys: their shards will be overwritten."""
        if existing is None:
            self._remove([file for file in self._list_sizes() if file == INDEX or self._is_note_of_others(file)])

    def find_finished(self, file: str) -> ShardEntry | None:
        with suppress(Exception), self._open_file_system("read", file) as files:  # writing reports an unreachable store
            note = json.loads(files.cat_file(f"{self._notes}/{file}.json"))
            if files.ukey(file) == note["version"]:
                return parse_shard_entry(note["entry"], file)
        return None

    @contextmanager
    def new_shard(self, file: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="promoter-bert-") as folder:
            local = Path(folder) / "shard.tar"
            try:
                yield local
            except OSError as error:
                message = f"{local}: cannot write: {error.strerror or error}; fix: set TMPDIR to another folder"
                raise UserError(message) from None
            with self._open_file_system("write", file) as files:
                files.put_file(str(local), file)

    def note_finished(self, entry: ShardEntry) -> None:
        with self._open_file_system("read", entry.file) as files:
            size, version = files.size(entry.file), files.ukey(entry.file)
        if size != entry.bytes:  # no longer the file that was just written
            raise self._make_conflict()
        self._put(f"{self._notes}/{entry.file}.json", json.dumps({"version": version, "entry": asdict(entry)}).encode())

    def publish(self, index: Index) -> None:
        files = self._list_sizes()
        if any(self._is_note_of_others(file) for file in files):  # written after `begin` removed them
            raise self._make_conflict()
        contents = serialize_files(index)
        for name, content in contents.items():
            self._put(name, content)
        kept = {entry.file for entry in index.shards} | set(contents)
        self._remove([file for file in files if _NOTE.match(file) or (_is_own(file) and file not in kept)])

    def _make_conflict(self) -> UserError:
        """Make the error of two runs that write different shards to one URL."""
        return UserError(f"{self.url}: another run writes other shards there; fix: run this command again later")

    def _is_note_of_others(self, file: str) -> bool:
        return bool(_NOTE.match(file)) and not file.startswith(f"{self._notes}/")

    def _list_sizes(self) -> dict[str, int]:
        """List the size in bytes of every file at the URL, by relative name."""
        with self._open_file_system("list") as files, suppress(FileNotFoundError):
            return {name: entry["size"] for name, entry in files.find("", detail=True).items()}
        return {}

    def _put(self, file: str, content: bytes) -> None:
        with self._open_file_system("write", file) as files:
            files.pipe_file(file, content)

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with self._open_file_system("remove", name) as files, suppress(FileNotFoundError):
                files.rm_file(name)

    @contextmanager
    def _open_file_system(self, action: str, file: str = "") -> Iterator[Any]:
        """Open the file system at the URL. Raises UserError for any error; each file system has its own types."""
        from fsspec.implementations.dirfs import DirFileSystem

        system, path = open_file_system(self.url)
        try:
            yield DirFileSystem(path, system)
        except Exception as error:
            raise remote_error(action, f"{self.url}/{file}", error) from None


ShardStore = FolderStore | RemoteStore


def make_store(location: str, key: str) -> ShardStore:
    """Make the store of a folder or URL for shards of a key. Raises UserError for a memory:// URL."""
    if location.startswith("memory:"):
        raise UserError(f"{location}: ends with this process; expected a folder, or a URL of persistent storage")
    return RemoteStore(location, key) if is_remote(location) else FolderStore(Path(location), key)
