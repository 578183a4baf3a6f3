"""`make run`: uploads go the whole way to Athena on this machine, in front of your eyes."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from local.aws.pipeline import Pipeline
from local.aws.server import LocalAws, QueryFailed
from local.commands.sql import as_table
from local.commands.watch import Watch
from local.runtime import STATE, SetupError, jars
from samples.shop import write_sample

FILES_PER_CALL = (
    12  # so few files has a call of the archiver in the sample run that its loop is seen
)
WINDOW = 5.0  # seconds in which uploads are gathered into one execution; the template says a minute
LOOKS = {
    "What the tables hold now": [
        "SELECT * FROM clean_products ORDER BY try_cast(product_id AS integer) LIMIT 3",
        "SELECT * FROM clean_orders ORDER BY try_cast(order_id AS integer) LIMIT 3",
        "SELECT * FROM clean_orders_items ORDER BY try_cast(id AS integer) LIMIT 3",
    ],
    "Why rows are not in the tables (parked: they wait for their order or product)": [
        "SELECT status, reason, count(*) AS rows, "
        "min_by(file_path || ':' || cast(line AS varchar), line) AS first_place,\n"
        "       min_by(substr(raw, 1, 44), line) AS example\n"
        "FROM rejected_records CROSS JOIN UNNEST(reasons) AS t(reason)\n"
        "GROUP BY status, reason ORDER BY status, rows DESC, reason"
    ],
    "What became of the files": [
        "SELECT dataset, outcome, count(*) AS files, sum(rows_read) AS rows_read, "
        "sum(inserted) AS inserted,\n"
        "       sum(updated) AS updated, sum(rejected) AS rejected, sum(parked) AS parked\n"
        "FROM ingested_files GROUP BY dataset, outcome ORDER BY dataset, outcome"
    ],
}


@dataclass(frozen=True)
class Upload:
    """The files of one delivery: a folder laid out as the raw zone, and the files in the order of
    their upload."""

    folder: Path
    files: Sequence[Path]
    story: str


def uploads(data: Path | None, workplace: Path) -> list[Upload]:
    """The sample's two deliveries, or one of all files below the given folder."""
    if data is None:
        return [
            Upload(delivery.folder, delivery.files, delivery.story)
            for delivery in write_sample(workplace / "sample")
        ]
    files = sorted(
        path for path in data.rglob("*") if path.is_file() and not path.name.startswith(".")
    )
    if not files:
        raise SetupError(
            f"{data} holds no files: give a folder with CSV exports, laid out as the raw zone"
        )
    return [Upload(data, files, f"the files in {data}")]


def deliver(aws: LocalAws, upload: Upload, watch: Watch) -> bool:
    """Uploads the files, shows the executions that their events start.

    Whether all of them succeeded.
    """
    seen = {execution["executionArn"] for execution in aws.executions()}
    for path in upload.files:
        aws.upload(path.relative_to(upload.folder).as_posix(), path.read_bytes())
    watch.console.print(
        f"{len(upload.files)} files uploaded. Their events start the state machine:",
        highlight=False,
    )
    end, results = time.monotonic() + 60, []
    while True:
        idle = aws.pipe.idle() and not aws.executions(
            "RUNNING"
        )  # asked first: what has ended by now is in the list below
        fresh = [
            execution["executionArn"]
            for execution in aws.executions()
            if execution["executionArn"] not in seen
        ]
        for arn in fresh:
            results.append(watch.follow(aws, arn))
            show_messages(aws, watch.console)
        seen.update(fresh)
        if results and idle and not fresh:
            break
        if not results and time.monotonic() > end:
            raise SetupError(
                "The uploads have started no execution for a minute: look at the rule and the Pipe "
                "in template.yaml"
            )
        time.sleep(0.1)
    return all(execution["status"] == "SUCCEEDED" for execution in results)


def show_messages(aws: LocalAws, console: Console) -> None:
    """What has come into the operators' mailbox."""
    for message in aws.messages():
        console.print(f"\n  ✉ {message['subject']}", style="bold", highlight=False)
        for line in message["message"].splitlines():
            console.print(f"  │ {line}", highlight=False, markup=False, soft_wrap=True)


def show_answer(pipeline: Pipeline, sql: str, console: Console) -> None:
    console.print(f"\nathena> {sql}", style="cyan", highlight=False, markup=False, soft_wrap=True)
    try:
        console.print(as_table(pipeline.query(sql)), highlight=False, markup=False, soft_wrap=True)
    except QueryFailed as error:  # a table that no delivery has filled yet
        console.print(str(error), style="yellow", highlight=False, markup=False, soft_wrap=True)


def cost_on_aws(folder: Path) -> str:
    """What the runs whose records lie in the folder would have cost."""
    costs = [json.loads(path.read_text("utf-8")) for path in folder.glob("runs/*/cost.json")]
    usd = sum(cost["usd"] for cost in costs)
    return (
        f"These {len(costs)} runs would cost ${usd:.4f} on AWS, if its job took as long as the one "
        "here, whose Spark is warm "
        "(docs/costs.md)"
    )


def keep_records(aws: LocalAws, folder: Path) -> list[Path]:
    """Copies the records of all runs into the folder, since the local AWS forgets.

    Returns the reports, oldest first.
    """
    s3 = aws.client("s3")
    for key in aws.keys("LakeBucket", "runs/"):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get_object(Bucket=aws.name("LakeBucket"), Key=key)["Body"].read())
    reports = [
        folder / "runs" / execution["name"] / "report.html" for execution in aws.executions()
    ]
    return [path for path in reports if path.exists()]


@contextmanager
def play(
    data: Path | None = None, console: Console | None = None
) -> Iterator[tuple[Pipeline, bool]]:
    """Runs all deliveries, shows them, and hands over the pipeline, still running, and whether all
    executions succeeded."""
    console, workplace = console or Console(), STATE / "run"
    watch = Watch(console)
    shutil.rmtree(workplace, ignore_errors=True)
    jars()
    deliveries = uploads(data, workplace)
    console.print("Starting an AWS on this machine, and Spark ...", highlight=False)
    with Pipeline(show=watch.job_says, brief=data is None, batching_window=WINDOW) as pipeline:
        if data is None:
            pipeline.aws.set_environment({"FILES_PER_CALL": str(FILES_PER_CALL)})
        for number, upload in enumerate(deliveries, 1):
            console.rule(f"[bold]Delivery {number}[/bold]: {upload.story}", align="left")
            if not deliver(pipeline.aws, upload, watch):
                console.print(
                    f"The run has failed; Spark's own words are in {pipeline.job.log}", style="red"
                )
                yield pipeline, False
                return
        yield pipeline, True


def main(argv: Sequence[str]) -> int:
    """0 when every execution has succeeded."""
    parser = argparse.ArgumentParser(
        prog="python -m local run",
        description="Uploads go the whole way to Athena on this machine.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="your own exports, laid out as the raw zone, instead of two deliveries of sample data",
    )
    options = parser.parse_args(argv)
    console, started = Console(), time.monotonic()
    with play(options.data, console) as (pipeline, succeeded):
        for title, queries in LOOKS.items() if succeeded else ():
            console.rule(f"[bold]{title}[/bold]", align="left")
            for sql in queries:
                show_answer(pipeline, sql, console)
        reports = keep_records(pipeline.aws, STATE / "run")
        console.rule("[bold]Next[/bold]", align="left")
        console.print(
            "A page about each run, to open in a browser:",
            *(f"  {path}" for path in reports),
            sep="\n",
            highlight=False,
            soft_wrap=True,
        )
        console.print(cost_on_aws(STATE / "run"), highlight=False, soft_wrap=True)
        console.print(
            "Keep it running, with the console in a browser: make up\n"
            "Your own exports: .venv/bin/python -m local run --data FOLDER\n"
            f"(all of this took {time.monotonic() - started:.0f} s)",
            highlight=False,
        )
        if pipeline.job.keeps_classes:
            console.print("Keeping Spark's classes, for faster starts from now on ...")
    return 0 if succeeded else 1
