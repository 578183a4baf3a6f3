"""`make up`: the pipeline on this machine, kept running; uploads start runs by themselves."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from local import trino
from local.aws.pipeline import Pipeline, free_port
from local.commands.operate import ENDPOINT
from local.commands.run import WINDOW, show_messages
from local.commands.sql import ENGINES
from local.commands.watch import Watch
from local.runtime import ROOT, STATE, SetupError, jars
from samples.shop import write_sample

SAVED_STATE = STATE / "kept"
CONSOLE_PORT = 8080
NO_CONSOLE = (
    "The console in the browser is not installed: `make up` installs it, or run "
    "pip install -r requirements-console.txt"
)


def instructions(pipeline: Pipeline, sample: Path, console: str) -> str:
    """Return where to look, and what to type in another terminal."""
    aws, python = pipeline.aws, sys.executable
    option = "" if pipeline.endpoint == ENDPOINT else f" --endpoint {pipeline.endpoint}"
    return "\n".join(
        [
            console,
            "",
            f"Queries are answered by {aws.runners.engine}.",
            f"AWS on this machine listens at {pipeline.endpoint}. In another terminal:",
            "",
            f"  export AWS_ENDPOINT_URL={pipeline.endpoint} AWS_DEFAULT_REGION={aws.region} "
            "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
            "",
            f"  upload   aws s3 cp --recursive {sample} {aws.template.outputs()['RawZone']}",
            "  watch    aws stepfunctions list-executions --state-machine-arn "
            f"{aws.name('StateMachine')}",
            f'  query    {python} -m local sql{option} "SELECT count(*) FROM clean_orders"',
            f"  history  {python} -m local history{option}",
            f"  rejects  {python} -m local rejects{option} --csv",
            "",
            "The folder is laid out as the raw zone; take your own. Each upload starts a run, "
            "which is shown here with its message.",
            f"Ctrl-C ends it. Its content is kept in {SAVED_STATE} for the next start; "
            "make up FRESH=1 starts empty.",
            "",
        ]
    )


def keep_watching(pipeline: Pipeline, watch: Watch) -> None:
    """Shows each execution as it comes and keeps what it has left, until interrupted."""
    seen = {
        execution["executionArn"]
        for execution in pipeline.aws.executions()
        if execution["status"] != "RUNNING"
    }
    while True:
        for execution in pipeline.aws.executions():
            if execution["executionArn"] not in seen:
                seen.add(execution["executionArn"])
                watch.console.rule(f"Execution {execution['name']}", align="left")
                watch.follow(pipeline.aws, execution["executionArn"])
                show_messages(pipeline.aws, watch.console)
                pipeline.aws.save()
        time.sleep(0.5)


@contextmanager
def console_server(endpoint: str, preferred_port: int) -> Iterator[str]:
    """The console in a process of its own, where it is installed; gives a line about it."""
    if importlib.util.find_spec("nicegui") is None:
        yield NO_CONSOLE
        return
    try:
        port = free_port(preferred_port)
    except SetupError:
        port = free_port()
    command = [sys.executable, "-m", "console", "--endpoint", endpoint, "--port", str(port)]
    log = STATE / "console.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield f"The console: http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@contextmanager
def trino_for(pipeline: Pipeline, engine: str) -> Iterator[None]:
    """Let a Trino answer the pipeline's queries if it is the engine."""
    if engine != "trino":
        yield
        return
    trino.install()
    print(f"Starting Trino {trino.VERSION} ...", flush=True)
    with trino.server(pipeline.endpoint) as address:
        pipeline.use_trino(address)
        yield


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local up", description="The pipeline on this machine, until Ctrl-C."
    )
    parser.add_argument("--port", type=int, default=5000, help="of the endpoint (5000)")
    parser.add_argument(
        "--console-port", type=int, default=CONSOLE_PORT, help=f"of the console ({CONSOLE_PORT})"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget what was kept from the last time"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="duckdb",
        help="what answers queries: DuckDB, or a real Trino (820 MB once, 3 GB of memory)",
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    watch = Watch(console)
    jars()
    if options.fresh:
        shutil.rmtree(SAVED_STATE, ignore_errors=True)
    sample = write_sample(STATE / "up")[0].folder
    console.print("Starting an AWS on this machine, and Spark ...", highlight=False)
    try:
        with (
            Pipeline(
                port=options.port, show=watch.job_says, batching_window=WINDOW, keep=SAVED_STATE
            ) as pipeline,
            trino_for(pipeline, options.engine),
            console_server(pipeline.endpoint, options.console_port) as where,
        ):
            console.print(
                instructions(pipeline, sample, where), highlight=False, markup=False, soft_wrap=True
            )
            keep_watching(pipeline, watch)
    except KeyboardInterrupt:
        console.print("Ended.")
    return 0
