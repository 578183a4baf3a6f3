"""Read the tables, the records and the files of a lake: in a folder, on a local AWS, in an account.

Everything is read with `deltalake` and pyarrow; it takes neither Spark nor Athena, and no lock.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

Row = dict[str, Any]
LAKE_ERRORS = (OSError, DeltaError)  # of a lake that cannot be read
CONCURRENCY = 16  # objects read at a time
FILE_NAME = "__filename"  # pyarrow's column with the file of a row
PARQUET = ds.ParquetFileFormat(
    read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us")  # as Spark writes them
)
LOG_FILE = re.compile(r"_delta_log/(\d{20})\.(json|checkpoint.*\.parquet)")


@dataclass(frozen=True)
class Commit:
    """One version of a table: the run that made it, and its changes to the set of data files."""

    version: int
    run_id: str
    added: frozenset[str]
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lake:
    """The places of a lake, as paths in `files`.

    root     contains the folders of tables, rejected files and run records
    scheme   what makes a path an address: `s3://`, nothing in a folder
    options  `deltalake`'s storage options
    """

    files: pyarrow.fs.FileSystem
    root: str
    archive: str
    raw: str
    scheme: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def in_folder(cls, root: Path, archive: Path | None = None) -> Lake:
        """Return the lake that `python -m local job` has made in a folder."""
        root = root.resolve()
        archive = archive.resolve() if archive else root / "archived"
        return cls(pyarrow.fs.LocalFileSystem(), str(root), str(archive), str(root / "raw"))

    @classmethod
    def of_deployment(
        cls, session: Any, outputs: Mapping[str, str], endpoint: str | None = None
    ) -> Lake:
        """Return the lake of a stack, by its outputs, with the current credentials of boto3's
        session."""
        keys = session.get_credentials().get_frozen_credentials()
        options = {
            "AWS_REGION": session.region_name,
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            **({"AWS_SESSION_TOKEN": keys.token} if keys.token else {}),
        }
        place: dict[str, str] = {}
        if endpoint:
            options |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
            scheme, _, address = endpoint.partition("://")
            place = {"endpoint_override": address, "scheme": scheme}
        files = pyarrow.fs.S3FileSystem(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.token,
            region=session.region_name,
            **place,
        )
        uris = (outputs[name] for name in ("Lake", "Archive", "RawZone"))
        places = [uri.removeprefix("s3://").rstrip("/") for uri in uris]
        return cls(files, places[0], places[1], places[2], "s3://", options)

    def path(self, name: str) -> str:
        """Return the path of a table."""
        folder = "rejected" if name == "rejected_records" else "lakehouse-dwh"
        return f"{self.root}/{folder}/{name}"

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """Return a table at a version or now; None if it does not exist."""
        address, options = self.scheme + self.path(name), dict(self.options)
        try:
            return DeltaTable(address, version=version, storage_options=options)
        except TableNotFoundError:
            return None

    def dataset(self, name: str) -> ds.Dataset | None:
        """Return a table's rows; None if it does not exist."""
        table = self.table(name)
        if table is None:
            return None
        return table.to_pyarrow_dataset(
            filesystem=pyarrow.fs.SubTreeFileSystem(self.path(name), self.files)
        )

    def data_files(self, name: str) -> list[Row]:
        """Return the data files of a table as its log names them: `path`, `size_bytes`,
        `num_records` (None without statistics) and `partition.<column>`."""
        table = self.table(name)
        if table is None:
            return []
        return pyarrow.table(table.get_add_actions(flatten=True)).to_pylist()

    def rows(
        self,
        name: str,
        condition: ds.Expression | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """Return a table's rows that meet a condition; none if the table does not exist."""
        dataset = self.dataset(name)
        if dataset is None:
            return []
        query = {"filter": condition, "columns": columns}
        rows = dataset.to_table(**query) if limit is None else dataset.head(limit, **query)
        return rows.to_pylist(maps_as_pydicts="strict")

    def rows_by_file(
        self, name: str, files: Sequence[str], condition: ds.Expression
    ) -> dict[str, Row]:
        """Return the row of each data file that meets a condition, for the files that have one."""
        table, current = self.table(name), self.dataset(name)
        if table is None or current is None or not files:
            return {}
        partitions = table.metadata().partition_columns
        folders = pyarrow.schema([column for column in current.schema if column.name in partitions])
        dataset = ds.dataset(
            list(files),
            schema=current.schema,
            format=PARQUET,
            filesystem=pyarrow.fs.SubTreeFileSystem(self.path(name), self.files),
            partitioning=ds.partitioning(folders, flavor="hive"),
        )
        columns = [*current.schema.names, FILE_NAME]
        rows = dataset.to_table(columns=columns, filter=condition).to_pylist()
        return {row.pop(FILE_NAME): row for row in rows}

    def listed(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, relative to it."""
        selector = pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True)
        listed = self.files.get_file_info(selector)
        return [file.path.removeprefix(f"{folder}/") for file in listed if file.is_file]

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return the contents of files; None for a file that does not exist."""

        def content(path: str) -> bytes | None:
            try:
                with self.files.open_input_stream(path, compression=None) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            return list(pool.map(content, paths))

    def manifest(self, run_id: str = "") -> list[Row]:
        """Return the lines of a run's manifest or of all, with the run id, by delivery."""
        runs = f"{self.root}/runs"
        names = [f"{run_id}/manifest.jsonl"] if run_id else self.listed(runs)
        names = [name for name in names if name.endswith("/manifest.jsonl")]
        contents = self.read([f"{runs}/{name}" for name in names])
        lines = [
            {"run_id": name.rsplit("/", 1)[0], **json.loads(line)}
            for name, content in zip(names, contents, strict=True)
            for line in (content or b"").splitlines()
        ]
        return sorted(lines, key=lambda line: (line["last_modified"], line["path"], line["run_id"]))

    def destination(self, line: Row) -> str:
        """Return where the archiver has put a file of a manifest."""
        folders = {"archive": self.archive, "rejected": f"{self.root}/rejected/files"}
        if line["destination"] not in folders:
            return f"{self.raw}/{line['path']}"
        return f"{folders[line['destination']]}/run={line['run_id']}/{line['path']}"

    def commits(self, name: str) -> list[Commit]:
        """Return the versions of a table that can be read, the oldest first.

        A version can be read if its data files exist and the log is complete since then or since a
        checkpoint. The oldest one adds all of its files.
        """
        listed = set(self.listed(self.path(name)))
        readable: list[Commit] = []
        files: set[str] = set()
        missing: set[str] = set()
        for commit in self._logged(name, listed):
            for paths, added in ((files, commit.added), (missing, commit.added - listed)):
                paths -= commit.removed
                paths |= added
            if missing:
                readable = []
            elif readable:
                readable.append(commit)
            else:
                readable.append(replace(commit, added=frozenset(files), removed=frozenset()))
        return readable

    def _logged(self, name: str, listed: Iterable[str]) -> Iterator[Commit]:
        """Yield the commits that the log contains; without its begin, from a checkpoint on."""
        matches = [match for match in map(LOG_FILE.fullmatch, sorted(listed)) if match]
        texts = {int(match[1]): match[0] for match in matches if match[2] == "json"}
        first = min(texts, default=0)
        if first:
            whole = (int(match[1]) for match in matches if match[2] != "json")
            start = min((version for version in whole if version >= first - 1), default=None)
            snapshot = None if start is None else self.table(name, start)
            if start is None or snapshot is None:
                return
            root = f"{self.scheme}{self.path(name)}/"
            uris = map(urllib.parse.unquote, snapshot.file_uris())
            yield Commit(start, "", frozenset(uri.removeprefix(root) for uri in uris))
            texts = {version: path for version, path in texts.items() if version > start}
        contents = self.read([f"{self.path(name)}/{path}" for path in texts.values()])
        for version, content in zip(texts, contents, strict=True):
            yield parsed_commit(version, content or b"")


def parsed_commit(version: int, content: bytes) -> Commit:
    """Return a commit from its JSON in the log."""
    paths: dict[str, set[str]] = {"add": set(), "remove": set()}
    stamp: Row = {}
    for action in map(json.loads, content.splitlines()):
        for kind in paths.keys() & action.keys():
            paths[kind].add(urllib.parse.unquote(action[kind]["path"]))
        if "commitInfo" in action:
            stamp = json.loads(action["commitInfo"].get("userMetadata") or "{}")
    return Commit(
        version, stamp.get("run_id", ""), frozenset(paths["add"]), frozenset(paths["remove"])
    )
