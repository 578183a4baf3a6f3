"""The smoke test of a deployed environment: loads the sample's two deliveries, reads the tables by
Athena and the history by the client, and runs `sql` and `vacuum` dry.

The dry runs start the job's other script: they prove its location, its extra files, the SQL parser
and the rights of the job.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from deploy.stack import DeployError, Say
from samples.shop import Delivery, write_sample
from words import OUTCOMES

if TYPE_CHECKING:
    from client.lake import Lake

SETTLED = ("loaded", "duplicate", "set_aside")  # what becomes of a file that needs no other run
TAGS_COUNT_AFTER = 360.0  # seconds; the right to a new key hangs on its tags, AWS says five minutes
AUTHOR, NAME = "smoke test", "Smoke test"
CORRECTION = f"UPDATE clean_products SET product_name = '{NAME}'"  # of every row
Summary = dict[str, Any]


@dataclass
class Smoke:
    """One smoke test of the environment with these outputs, which ends at `end` on the monotonic
    clock.
    """

    session: Any
    outputs: Mapping[str, str]
    say: Say
    poll: float
    end: float

    def deliver(self, delivery: Delivery) -> list[Summary]:
        """Uploads a delivery; returns the summaries of the runs that took its files.

        Raises DeployError where an execution does not succeed, where rows do not add up, or when
        the time is over.
        """
        before = {execution["executionArn"] for execution in self._executions()}
        for path in delivery.files:
            self._put(path.relative_to(delivery.folder).as_posix(), path.read_bytes())
        self.say(f"Uploaded {len(delivery.files)} files to {self.outputs['RawZone']}")
        while time.monotonic() < self.end:
            summaries = [self._summary(name) for name in self._ended(before)]
            if sum(settled(summary) for summary in summaries) >= len(delivery.files):
                for summary in summaries:
                    self._tell(summary)
                return summaries
            time.sleep(self.poll)
        raise DeployError(
            "The files were not all loaded in time; look at the queue, the Pipe and "
            f"{self.outputs['StateMachineArn']}"
        )

    def check_tables(self, summary: Summary) -> None:
        """Counts each table by Athena.

        Raises DeployError where that is not what the last run said.
        """
        for name, numbers in summary["tables"].items():
            if not name.startswith("clean_"):
                continue
            counted = self._ask(f"SELECT count(*) FROM {name}")
            if counted != str(numbers["rows"]):
                raise DeployError(
                    f"{name}: Athena counts {counted} rows, the run {numbers['rows']}"
                )
            self.say(f"{name}: Athena counts {int(counted):,} rows, as the run did")

    def check_history(self, lake: Lake, loads: Sequence[str]) -> None:
        """Read the history of the lake as `make operate ARGS=history` does.

        Raises DeployError if it has other loads than those of the deliveries, or anything else.
        """
        from client import history  # it imports pyarrow, which no other command needs

        answer = history.of_lake(lake)
        runs = {(row["run_id"], row["operation"]) for row in answer.rows}
        expected = {(run_id, "load") for run_id in loads}
        if runs != expected:
            raise DeployError(
                f"The history has {sorted(runs)}, expected {sorted(expected)}: smoke an "
                "environment that nothing else was loaded into"
            )
        self.say(f"History: {answer.text}")

    def check_dry_runs(self, tables: Mapping[str, Any]) -> None:
        """Run a correction and a vacuum dry. `tables` is that of the last load's summary.

        Raises DeployError if an operation fails, or does not report what it must.
        """
        products = tables["clean_products"]["rows"]
        corrected = self._dry_run("sql", sql=CORRECTION)
        updated = corrected["plan"]["tables"]["clean_products"]["updated"]
        if updated != products:
            raise DeployError(f"sql --dry-run would update {updated} of {products} products")
        planned = self._dry_run("vacuum")["plan"]["tables"]
        for name in tables:
            if name.startswith("clean_") and not planned.get(name, {}).get("files"):
                raise DeployError(f"vacuum --dry-run finds no file of {name}")
        removable = sum(table["removable"] for table in planned.values())
        if removable:
            raise DeployError(
                f"vacuum --dry-run would remove {removable} files, although none is older than the "
                "tables' retention"
            )

    def _dry_run(self, name: str, **options: Any) -> Mapping[str, Any]:
        """Run an operation dry, as `make operate` does; return its operation.json."""
        from client.operations import Operations  # it imports pyspark

        lakehouse = Operations(
            self.session.client("stepfunctions"),
            self.session.client("s3"),
            self.outputs["StateMachineArn"],
            self.outputs["Lake"].removeprefix("s3://").rstrip("/"),
        )
        asked = {"operation": name, "author": AUTHOR, "dry_run": True, **options}
        outcome = lakehouse.run(asked, self.say, self.poll)
        if outcome.cause is not None:
            raise DeployError(f"{name} --dry-run failed: {outcome.cause}")
        if outcome.result["effect"]:
            raise DeployError(f"{name} --dry-run reports an effect: {outcome.result['effect']}")
        self.say(f"{name} --dry-run: {outcome.result['text']}")
        return outcome.result

    def _executions(self) -> list[dict[str, Any]]:
        pages = (
            self.session.client("stepfunctions")
            .get_paginator("list_executions")
            .paginate(stateMachineArn=self.outputs["StateMachineArn"])
        )
        return [execution for page in pages for execution in page["executions"]]

    def _ended(self, before: set[str]) -> Iterator[str]:
        """The names of the executions since then that have ended, oldest first."""
        for execution in reversed(self._executions()):
            if execution["executionArn"] in before or execution["status"] == "RUNNING":
                continue
            if execution["status"] != "SUCCEEDED":
                cause = (
                    self.session.client("stepfunctions")
                    .describe_execution(executionArn=execution["executionArn"])
                    .get("cause", "")
                )
                raise DeployError(
                    f"Execution {execution['name']} ended {execution['status']}: {cause}"
                )
            yield execution["name"]

    def _put(self, path: str, body: bytes) -> None:
        bucket, _, prefix = self.outputs["RawZone"].removeprefix("s3://").partition("/")
        patience = min(self.end, time.monotonic() + TAGS_COUNT_AFTER)
        while True:
            try:
                self.session.client("s3").put_object(Bucket=bucket, Key=prefix + path, Body=body)
                return
            except ClientError as error:
                if status(error) != 403 or time.monotonic() > patience:
                    raise
                time.sleep(self.poll)

    def _summary(self, run_id: str) -> Summary:
        """The run's summary; empty for an execution that found nothing new."""
        bucket = self.outputs["Lake"].removeprefix("s3://").rstrip("/")
        try:
            response = self.session.client("s3").get_object(
                Bucket=bucket, Key=f"runs/{run_id}/summary.json"
            )
        except ClientError as error:
            if status(error) in (403, 404):  # 403 where the caller may not list the bucket
                return {}
            raise
        return json.loads(response["Body"].read())

    def _tell(self, summary: Summary) -> None:
        for dataset, numbers in summary.get("datasets", {}).items():
            self.say(
                f"{dataset}: {numbers['rows_read']:,} rows read, "
                + ", ".join(f"{numbers[name]:,} {name}" for name in OUTCOMES)
            )
            came = numbers["rows_read"] + numbers["admitted"]
            if came != sum(numbers[name] for name in OUTCOMES):
                raise DeployError(
                    f"{dataset}: the rows read are not the sum of what became of them"
                )

    def _ask(self, sql: str) -> str:
        """The only value of a query's answer."""
        athena = self.session.client("athena")
        query = athena.start_query_execution(
            QueryString=sql,
            WorkGroup=self.outputs["WorkGroup"],
            QueryExecutionContext={"Database": self.outputs["Database"]},
        )["QueryExecutionId"]
        while True:
            answer = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
            if answer["State"] not in ("QUEUED", "RUNNING"):
                break
            time.sleep(self.poll / 10)
        if answer["State"] != "SUCCEEDED":
            raise DeployError(f"Athena: {sql}: {answer.get('StateChangeReason', answer['State'])}")
        rows = athena.get_query_results(QueryExecutionId=query)["ResultSet"]["Rows"]
        return rows[1]["Data"][0]["VarCharValue"]


def smoke(
    session: Any,
    outputs: Mapping[str, str],
    say: Say = print,
    minutes: float = 60,
    poll: float = 15.0,
    lake: Lake | None = None,
) -> Summary:
    """Load both deliveries of the sample, of which the second changes what the first brought, then
    read the tables and the history and run two operations dry. Return the last summary.

    `lake` is where the history is read, by default the deployment's own.

    Raises DeployError where an execution does not succeed, where the numbers are not as they must
    be, or after so many minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, second = write_sample(Path(folder))
        test = Smoke(session, outputs, say, poll, time.monotonic() + minutes * 60)
        loaded = test.deliver(first)
        for dataset, rows in total(loaded, "inserted").items():
            if not rows:
                raise DeployError(f"{dataset}: nothing was inserted")
        merged = test.deliver(second)
    if not any(total(merged, "updated").values()):
        raise DeployError("The second delivery updated no row: nothing was merged")
    recorded = [summary for summary in [*loaded, *merged] if summary.get("status") == "SUCCEEDED"]
    last = recorded[-1]
    test.check_tables(last)
    lake = lake or lake_of(session, outputs)
    loads = [summary["run_id"] for summary in recorded]
    test.check_history(lake, loads)
    test.check_dry_runs(last["tables"])
    test.check_history(lake, loads)  # which a dry run does not enter
    return last


def lake_of(session: Any, outputs: Mapping[str, str]) -> Lake:
    """Return the lake of a deployment, for reading."""
    from client.lake import Lake  # it imports pyarrow, which no other command needs

    return Lake.of_deployment(session, outputs)


def settled(summary: Summary) -> int:
    """How many files a run has done with."""
    return sum(summary.get("files", {}).get(outcome, 0) for outcome in SETTLED)


def total(summaries: Sequence[Summary], measure: str) -> dict[str, int]:
    """Dataset -> rows over all runs."""
    names = [name for summary in summaries for name in summary.get("datasets", {})]
    return {
        name: sum(s.get("datasets", {}).get(name, {}).get(measure, 0) for s in summaries)
        for name in names
    }


def status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
