"""The whole product on this machine: the local AWS with real work behind it.

    with Pipeline() as pipeline:
        pipeline.aws.upload('orders/2025-04-01.csv', b'order_id,...')
        executions = pipeline.aws.wait_until_idle(300)
        print(pipeline.query('SELECT count(*) FROM clean_orders').csv())

The job is the deployed script in a long-lived Spark that reaches the local S3 by `s3://`. Crawler
and Athena work in processes of their own: `deltalake` may hold Python's lock while it waits for S3,
which is served by this process.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from client.aws import REGION, local_client
from local import trino
from local.athena import Result
from local.aws import readers
from local.aws.job import JobProcess
from local.aws.server import CrawlFailed, JobFailed, LocalAws, QueryFailed, Runners
from local.aws.stepfunctions import Pace
from local.runtime import SetupError

QUICK = Pace(
    waits=0.05, retries=0.1, poll=0.2
)  # the crawler is looked at each second, not each twenty


class SparkJob:
    """The Glue job on this machine: `src/glue_etl.py` in a Spark that stays.

    One run at a time, as the template says.
    """

    def __init__(
        self, endpoint: str, show: Callable[[str], None] = lambda line: None, brief: bool = False
    ) -> None:
        """`show` gets the job's lines of progress; `brief` as for JobProcess."""
        self.endpoint, self.show, self.brief = endpoint, show, brief
        self._lock = threading.Lock()
        self._run_id = ""  # of the run that goes on
        self._process = self._start()

    def __call__(self, arguments: Mapping[str, str]) -> None:
        """One run. Raises JobFailed with the job's own cause where it has left one."""
        with self._lock:
            if not self._process.alive():
                self._process.close()
                self._process = self._start()
            words = [word for pair in arguments.items() for word in pair]
            show = self._into_log(arguments.get("--JOB_RUN_ID", ""), arguments)
            self._run_id = arguments.get("--RUN_ID", "")
            try:
                code = self._process.run(words, show)
            finally:
                self._run_id = ""
        if code:
            raise JobFailed(
                self._cause(arguments) or f"the job ended with exit code {code}; see {self.log}"
            )

    @property
    def log(self) -> Path:
        return self._process.log

    @property
    def keeps_classes(self) -> bool:
        return self._process.keeps_classes

    def close(self) -> None:
        self._process.close()

    def kill(self) -> None:
        """Ends Spark as a lost machine does."""
        self._process.kill()

    def stop(self, run_id: str) -> None:
        """End a run of an execution that was stopped, if it goes on; the next run gets a new
        Spark."""
        if run_id == self._run_id:
            self._process.kill()

    def _into_log(self, stream: str, arguments: Mapping[str, str]) -> Callable[[str], None]:
        """Return what shows a line and puts it where Glue puts the driver's: into the log group
        `<prefix>/output`, in the stream `<id of the job's run>-driver`."""
        prefix = arguments.get("--custom-logGroup-prefix")
        if not stream or not prefix:
            return self.show
        logs, group = local_client("logs", self.endpoint), f"{prefix}/output"
        stream = f"{stream}-driver"
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)

        def show(line: str) -> None:
            self.show(line)
            event = {"timestamp": int(time.time() * 1000), "message": line or " "}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

        return show

    def _start(self) -> JobProcess:
        settings, environment = s3a_settings(self.endpoint), job_environment(self.endpoint)
        return JobProcess(settings=settings, environment=environment, warm=True, brief=self.brief)

    def _cause(self, arguments: Mapping[str, str]) -> str | None:
        """The error in the run's summary; None where the job died before it could write one."""
        bucket, _, prefix = arguments["--RUNS_PATH"].removeprefix("s3://").partition("/")
        s3 = local_client("s3", self.endpoint)
        try:
            body = s3.get_object(
                Bucket=bucket, Key=f"{prefix}{arguments['--RUN_ID']}/summary.json"
            )["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return None
        return json.loads(body)["error"]


def s3a_settings(endpoint: str) -> dict[str, str]:
    """Spark's settings for `s3://` on a server of this machine. On AWS, Glue brings its own."""
    return {
        # S3A gathers its uploads in one
        "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.access.key": "local",
        "spark.hadoop.fs.s3a.secret.key": "local",
    }


def job_environment(endpoint: str) -> dict[str, str]:
    """What boto3 in the job's process needs."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Pipeline:
    """The deployed pipeline with a real Spark, crawler and Athena. One at a time in a process."""

    def __init__(
        self,
        port: int = 0,
        pace: Pace = QUICK,
        show: Callable[[str], None] = lambda line: None,
        brief: bool = False,
        **options: Any,
    ) -> None:
        """`show` and `brief` as for SparkJob; `options` go to LocalAws."""
        port = free_port(port)
        self.endpoint = f"http://localhost:{port}"
        self.trino = ""
        self.job = SparkJob(self.endpoint, show, brief)
        self.readers = ProcessPoolExecutor(
            2, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        )
        for _ in range(2):
            self.readers.submit(readers.ready)
        self.aws = LocalAws(self.runners(), port=port, pace=pace, **options)

    def __enter__(self) -> Pipeline:
        try:
            self.aws.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the executions, the server, Spark and the readers."""
        self.aws.stop()
        self.job.close()
        self.readers.shutdown()

    def runners(self) -> Runners:
        """What does the work, to be plugged into an AWS."""
        return Runners(self.job, self.job.stop, self._crawl, self._answer)

    def use_trino(self, address: str) -> None:
        """Let a Trino answer all queries from now on."""
        self.trino, self.aws.runners.engine = address, f"Trino {trino.VERSION}"

    def query(self, sql: str, database: str = "") -> Result:
        """One statement in Athena's SQL. Raises QueryFailed."""
        answer = self.readers.submit(
            readers.query, self.endpoint, sql, database or self.aws.name("Database"), self.trino
        ).result()
        if isinstance(answer, str):
            raise QueryFailed(answer)
        return answer

    def _answer(self, sql: str, database: str) -> tuple[Any, ...]:
        result = self.query(sql, database)
        return result.names, result.text_rows(), result.types

    def _crawl(self, database: str, locations: Sequence[str]) -> None:
        failures = self.readers.submit(readers.crawl, self.endpoint, database, locations).result()
        if failures:
            raise CrawlFailed("; ".join(failures))


def free_port(port: int = 0) -> int:
    """The wanted port, or any. Raises SetupError where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SetupError(f"Port {port} is taken: say another one with --port") from None
        return probe.getsockname()[1]
