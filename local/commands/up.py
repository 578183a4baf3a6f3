"""`make up`: the pipeline on this machine, kept running; uploads start runs by themselves."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from local.aws.pipeline import Pipeline
from local.commands.run import WINDOW, show_messages
from local.commands.watch import Watch
from local.runtime import STATE, jars
from tools.sample import write_sample


def instructions(pipeline: Pipeline, sample: Path) -> str:
    """What to type in another terminal."""
    aws, python = pipeline.aws, sys.executable
    return "\n".join(
        [
            f"AWS on this machine listens at {pipeline.endpoint}. In another terminal:",
            "",
            f"  export AWS_ENDPOINT_URL={pipeline.endpoint} AWS_DEFAULT_REGION={aws.region} "
            "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
            "",
            f"  upload   aws s3 cp --recursive {sample} {aws.template.outputs()['RawZone']}",
            "  watch    aws stepfunctions list-executions --state-machine-arn "
            f"{aws.name('StateMachine')}",
            f'  query    {python} -m local sql "SELECT count(*) FROM clean_orders"',
            "",
            "The folder is laid out as the raw zone; take your own. Each upload starts a run, "
            "which is shown here with its message.",
            "Ctrl-C ends it, and what it holds is gone.",
            "",
        ]
    )


def keep_watching(pipeline: Pipeline, watch: Watch) -> None:
    """Shows each execution as it comes, until interrupted."""
    known: set[str] = set()
    while True:
        for execution in pipeline.aws.executions():
            if execution["executionArn"] not in known:
                known.add(execution["executionArn"])
                watch.console.rule(f"Execution {execution['name']}", align="left")
                watch.follow(pipeline.aws, execution["executionArn"])
                show_messages(pipeline.aws, watch.console)
        time.sleep(0.5)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local up", description="The pipeline on this machine, until Ctrl-C."
    )
    parser.add_argument("--port", type=int, default=5000, help="of the endpoint (5000)")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    watch = Watch(console)
    jars()
    sample = write_sample(STATE / "up")[0].folder
    console.print("Starting an AWS on this machine, and Spark ...", highlight=False)
    try:
        with Pipeline(port=options.port, show=watch.job_says, batching_window=WINDOW) as pipeline:
            console.print(
                instructions(pipeline, sample), highlight=False, markup=False, soft_wrap=True
            )
            keep_watching(pipeline, watch)
    except KeyboardInterrupt:
        console.print("Ended.")
    return 0
