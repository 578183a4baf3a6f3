"""AWS on one machine: the template's resources in a moto server of this process, and stand-ins
where moto only records.

    with LocalAws(Runners(glue_job=run_job)) as aws:
        aws.upload('orders/2025-04-01.csv', b'order_id,...')     # the upload event starts the state
                                                                 machine
        execution = aws.wait_until_idle()[-1]

moto plays S3, EventBridge, SQS, SNS, IAM, the Glue catalog and Step Functions. It never runs a job,
a crawler, a query or a function, and knows Pipes only as records; `Runners` and `Pipe` do that
here. Everything is seen through the ordinary AWS API at `aws.endpoint`. Not played: roles are
recorded, not enforced; bucket, queue and topic policies and lifecycles; log groups, alarms and
schedules (`sweep()` is the schedule); events about executions. Nothing is encrypted: SSE-KMS shows
in response headers and in random ETags (`local.aws.etags`).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto import backends
from moto.athena.models import AthenaBackend, QueryResults
from moto.athena.responses import AthenaResponse
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.glue.models import FakeCrawler, FakeJob, FakeJobRun
from moto.stepfunctions.parser.models import stepfunctions_parser_backends
from moto.stepfunctions.responses import StepFunctionResponse

from client import ROOT
from client.aws import REGION, local_client
from client.template import Template
from local.athena.results import DIGITS
from local.aws import etags, stepfunctions
from local.aws.kept import StateFolder
from local.aws.moto_server import MotoServer
from local.aws.stepfunctions import Pace, replace

WORKER_DPUS = {"G.1X": 1.0, "G.2X": 2.0, "G.4X": 4.0}
STOPPING = 5.0  # seconds that executions have to end before what is held is written
FINISHED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
Function = Callable[[Mapping[str, Any], Any], Any]


class JobFailed(Exception):
    """A job run that ends as FAILED, TIMEOUT or STOPPED."""

    def __init__(self, message: str, state: str = "FAILED") -> None:
        super().__init__(message)
        self.state = state


class CrawlFailed(Exception):
    """A crawl that ends as FAILED."""


class QueryFailed(Exception):
    """A query that Athena refuses or cannot finish; the message is Athena's."""


def _no_job(arguments: Mapping[str, str]) -> None:
    raise JobFailed("no Glue job is plugged in")


def _no_crawl(database: str, targets: Sequence[str]) -> None:
    """A crawl that finds nothing to do."""


def _no_stop(run_id: str) -> None:
    """A job that is never stopped."""


def column_info(name: str, kind: str) -> dict[str, Any]:
    """Return one column of GetQueryResults: the type's name without its numbers, which come
    apart."""
    base = re.sub(r"\(.*\)", "", kind)
    numbers = [] if base in ("array", "map") else [int(n) for n in re.findall(r"\d+", kind)]
    precisions = {"double": 17, "varchar": 2147483647, **DIGITS}
    shared = {"CatalogName": "hive", "SchemaName": "", "TableName": "", "Nullable": "UNKNOWN"}
    own = {"Name": name, "Label": name, "Type": base, "CaseSensitive": base == "varchar"}
    scale = numbers[1] if base == "decimal" else 0
    return shared | own | {"Precision": (numbers or [precisions.get(base, 0)])[0], "Scale": scale}


def _no_query(sql: str, database: str) -> tuple[list[str], list[list[Any]]]:
    raise QueryFailed("no query engine is plugged in")


@dataclass
class Runners:
    """What does the work behind the API. Each is called in a thread of its own and returns when the
    work is done.

    glue_job   (arguments of the run, the job's defaults among them); raises JobFailed
    stop_job   (the run's id) ends that run of the job, if it goes on
    crawl      (database, paths of the Delta tables); raises CrawlFailed
    query      (SQL, database) -> column names, rows as Athena writes them, Athena's types, or no
               types where all are texts; raises QueryFailed
    engine     the name of what answers queries
    functions  function name -> handler(event, context); a function that is not here runs from its
               folder in `lambda/`
    """

    glue_job: Callable[[Mapping[str, str]], None] = _no_job
    stop_job: Callable[[str], None] = _no_stop
    crawl: Callable[[str, Sequence[str]], None] = _no_crawl
    query: Callable[[str, str], tuple[Any, ...]] = _no_query
    engine: str = "DuckDB, a part of Athena's SQL"
    functions: dict[str, Function] = field(default_factory=dict)


class LocalAws:
    """One deployment of the template.

    One at a time in a process: moto's state belongs to the process.
    """

    template: Template
    pipe: Pipe
    inbox: str  # the URL of a queue that gets what an operator's mailbox would get

    def __init__(
        self,
        runners: Runners | None = None,
        parameters: Mapping[str, Any] | None = None,
        port: int = 0,
        pace: Pace | None = None,
        batching_window: float | None = None,
        change_definition: Callable[[dict[str, Any]], None] | None = None,
        keep: Path | None = None,
    ) -> None:
        """`keep`: a folder from which the state of the last time is taken, and into which `save`
        and the end write it."""
        self.state_folder = StateFolder(self, keep) if keep else None
        self.runners = runners or Runners()
        self.pace = pace
        self.port = port
        self.parameters = parameters
        self.batching_window = batching_window
        self.change_definition = change_definition
        self.region = REGION
        self._server: MotoServer | None = None
        self._environment: dict[str, str | None] = {}
        self._clients: dict[str, Any] = {}
        self.log: list[str] = []  # what functions have printed

    def __enter__(self) -> LocalAws:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> LocalAws:
        """Starts the server and deploys the template."""
        default_user_config["stepfunctions"] = {"execute_state_machine": True}
        default_user_config["lambda"] = {"use_docker": False}
        self._server = MotoServer(self.port).start()
        self.port = self._server.port
        self.set_environment(
            {
                "MOTO_PORT": str(self.port),
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_DEFAULT_REGION": self.region,
                "AWS_REGION": self.region,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        )
        stepfunctions_parser_backends.reset()
        stepfunctions.install(self.pace)
        _StandIns.install(self)
        self.template = Template.load(
            parameters=self.parameters, region=self.region, endpoint=self.endpoint
        )
        Deployment(self).create()
        restored = self.state_folder is not None and self.state_folder.restore()
        self.pipe = Pipe(self)
        self.pipe.start()
        if restored and self.keys("RawBucket"):  # files whose events went with the last time
            self.sweep()
        return self

    def save(self) -> None:
        """Writes what is held into the folder that keeps it, where there is one."""
        if self.state_folder:
            self.state_folder.save()

    def stop(self) -> None:
        """Stops taking events, then the server; the process's environment is as before."""
        if hasattr(self, "pipe"):
            self.pipe.stop()
            for execution in self.executions("RUNNING"):
                with suppress(ClientError, BotoCoreError):
                    self.client("stepfunctions").stop_execution(
                        executionArn=execution["executionArn"]
                    )
            end = time.monotonic() + STOPPING
            while self.state_folder and self.executions("RUNNING") and time.monotonic() < end:
                time.sleep(0.05)
            self.save()
        if self._server is not None:
            self._server.stop()
        for name, value in self._environment.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)

    @property
    def endpoint(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def server(self) -> MotoServer:
        """The server behind the endpoint, while it runs."""
        if self._server is None:
            raise RuntimeError("the local AWS is not started")
        return self._server

    def client(self, service: str) -> Any:
        """A boto3 client for this deployment."""
        if service not in self._clients:
            self._clients[service] = local_client(service, self.endpoint)
        return self._clients[service]

    def name(self, logical_id: str) -> str:
        """The name, ARN or URL of a resource, as Ref gives it."""
        return self.template.ref(logical_id)

    # What people do -------------------------------------------------------------------------------

    def upload(self, path: str, body: bytes) -> None:
        """Puts a file into the raw zone."""
        prefix = self.template.outputs()["RawZone"].partition("://")[2].partition("/")[2]
        self.client("s3").put_object(Bucket=self.name("RawBucket"), Key=prefix + path, Body=body)

    def sweep(self) -> str:
        """Starts an execution as the hourly schedule does; returns its ARN."""
        target = self.template.properties("Sweep")["Target"]
        return self.client("stepfunctions").start_execution(
            stateMachineArn=target["Arn"], input=target["Input"]
        )["executionArn"]

    def executions(self, status: str | None = None) -> list[dict[str, Any]]:
        """All executions, oldest first."""
        options = {"statusFilter": status} if status else {}
        pages = (
            self.client("stepfunctions")
            .get_paginator("list_executions")
            .paginate(stateMachineArn=self.name("StateMachine"), **options)
        )
        executions = [execution for page in pages for execution in page["executions"]]
        return sorted(executions, key=lambda execution: execution["startDate"])

    def describe(self, execution_arn: str) -> dict[str, Any]:
        return self.client("stepfunctions").describe_execution(executionArn=execution_arn)

    def wait_for(self, execution_arn: str, seconds: float = 60) -> dict[str, Any]:
        """The execution once it has ended."""
        end = time.monotonic() + seconds
        while (execution := self.describe(execution_arn))["status"] not in FINISHED:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{execution_arn} is still running in {self.states(execution_arn)[-1:]}"
                )
            time.sleep(0.05)
        return execution

    def wait_until_idle(self, seconds: float = 60) -> list[dict[str, Any]]:
        """All executions, once no event waits and none of them runs."""
        end = time.monotonic() + seconds
        while not self.pipe.idle() or self.executions("RUNNING"):
            if time.monotonic() > end:
                raise TimeoutError("executions are still running")
            time.sleep(0.1)
        return self.executions()

    def history(self, execution_arn: str) -> list[dict[str, Any]]:
        return self.client("stepfunctions").get_execution_history(executionArn=execution_arn)[
            "events"
        ]

    def states(self, execution_arn: str) -> list[str]:
        """The names of the states in the order in which they were entered."""
        return [
            event["stateEnteredEventDetails"]["name"]
            for event in self.history(execution_arn)
            if "stateEnteredEventDetails" in event
        ]

    def messages(self) -> list[dict[str, str]]:
        """What the topic has sent to operators since the last call: subject and text."""
        url, messages = self.inbox, []
        while (
            received := self.client("sqs")
            .receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            .get("Messages")
        ):
            for message in received:
                body = json.loads(message["Body"])
                messages.append({"subject": body["Subject"], "message": body["Message"]})
                self.client("sqs").delete_message(
                    QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]
                )
        return messages

    def keys(self, logical_id: str, prefix: str = "") -> list[str]:
        """The keys in one of the template's buckets."""
        pages = (
            self.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.name(logical_id), Prefix=prefix)
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def set_environment(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._environment.setdefault(name, os.environ.get(name))
            os.environ[name] = value

    def function(self, name: str) -> Function:
        """The handler behind a Lambda function's name."""
        if name not in self.runners.functions:
            properties = next(
                function
                for _, function in self.template.of_type("AWS::Lambda::Function")
                if function["FunctionName"] == name
            )
            handler = load_handler(ROOT / properties["Code"], properties["Handler"])
            # What a function prints goes to its log, not onto this console.
            handler.__globals__["print"] = lambda *words: self.log.append(" ".join(words))
            self.runners.functions[name] = handler
        return self.runners.functions[name]


def load_handler(folder: Path, handler: str) -> Function:
    """The function `module.function` in a folder of `lambda/`."""
    module_name, _, function_name = handler.partition(".")
    module = importlib.import_module(f"{folder.name}.{module_name}")
    return getattr(module, function_name)


def encryption_rules(bucket_encryption: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template's `BucketEncryption` with the field names of S3's API."""
    names = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
    return {
        "Rules": [
            {names.get(name, name): value for name, value in rule.items()}
            for rule in bucket_encryption["ServerSideEncryptionConfiguration"]
        ]
    }


class Deployment:
    """Creates the template's resources; what is listed in the module's docstring is left out."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.template = aws.template

    def create(self) -> None:
        for logical_id, _ in self.template.of_type("AWS::KMS::Key"):
            key = self.aws.client("kms").create_key()["KeyMetadata"]
            self.template.physical[logical_id] = {"Ref": key["KeyId"], "Arn": key["Arn"]}
        for kind, create in {
            "AWS::IAM::Role": self.role,
            "AWS::S3::Bucket": self.bucket,
            "AWS::SQS::Queue": self.queue,
            "AWS::Events::Rule": self.rule,
            "AWS::SNS::Topic": self.topic,
            "AWS::Glue::Database": self.database,
            "AWS::Glue::Job": self.job,
            "AWS::Glue::Crawler": self.crawler,
            "AWS::Athena::WorkGroup": self.workgroup,
            "AWS::Lambda::Function": self.function,
            "AWS::StepFunctions::StateMachine": self.state_machine,
        }.items():
            for logical_id, properties in self.template.of_type(kind):
                create(logical_id, properties)
        self.inbox()

    def role(self, logical_id: str, properties: dict[str, Any]) -> None:
        name = self.template.ref(logical_id)
        iam = self.aws.client("iam")
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]),
        )
        for policy in properties.get("Policies", []):
            iam.put_role_policy(
                RoleName=name,
                PolicyName=policy["PolicyName"],
                PolicyDocument=json.dumps(policy["PolicyDocument"]),
            )

    def bucket(self, logical_id: str, properties: dict[str, Any]) -> None:
        s3, name = self.aws.client("s3"), properties["BucketName"]
        s3.create_bucket(Bucket=name)
        if "BucketEncryption" in properties:
            s3.put_bucket_encryption(
                Bucket=name,
                ServerSideEncryptionConfiguration=encryption_rules(properties["BucketEncryption"]),
            )
        if "VersioningConfiguration" in properties:
            s3.put_bucket_versioning(
                Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"]
            )
        notifications = properties.get("NotificationConfiguration", {})
        if notifications.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled"):
            s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )

    def queue(self, logical_id: str, properties: dict[str, Any]) -> None:
        settings = {name: value for name, value in properties.items() if name != "QueueName"}
        attributes = {
            name: json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
            for name, value in settings.items()
        }
        self.aws.client("sqs").create_queue(
            QueueName=properties["QueueName"], Attributes=attributes
        )

    def rule(self, logical_id: str, properties: dict[str, Any]) -> None:
        events = self.aws.client("events")
        events.put_rule(
            Name=properties["Name"], EventPattern=json.dumps(properties["EventPattern"])
        )
        events.put_targets(Rule=properties["Name"], Targets=properties["Targets"])

    def topic(self, logical_id: str, properties: dict[str, Any]) -> None:
        self.aws.client("sns").create_topic(
            Name=properties["TopicName"], Attributes={"DisplayName": properties["DisplayName"]}
        )

    def inbox(self) -> None:
        """A queue that gets what an operator's mailbox would get."""
        sqs = self.aws.client("sqs")
        self.aws.inbox = sqs.create_queue(QueueName="local-operator-inbox")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.aws.inbox, AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]
        for logical_id, _ in self.template.of_type("AWS::SNS::Topic"):
            self.aws.client("sns").subscribe(
                TopicArn=self.template.ref(logical_id), Protocol="sqs", Endpoint=arn
            )

    def database(self, logical_id: str, properties: dict[str, Any]) -> None:
        self.aws.client("glue").create_database(DatabaseInput=properties["DatabaseInput"])

    def job(self, logical_id: str, properties: dict[str, Any]) -> None:
        self.aws.client("glue").create_job(**properties)

    def crawler(self, logical_id: str, properties: dict[str, Any]) -> None:
        self.aws.client("glue").create_crawler(**properties)

    def workgroup(self, logical_id: str, properties: dict[str, Any]) -> None:
        configuration = dict(properties["WorkGroupConfiguration"])
        self.aws.client("athena").create_work_group(
            Name=properties["Name"],
            Configuration=configuration,
            Description=properties["Description"],
        )

    def function(self, logical_id: str, properties: dict[str, Any]) -> None:
        # One process plays all functions: their variables share its environment, and must not
        # contradict.
        self.aws.set_environment(properties.get("Environment", {}).get("Variables", {}))
        fields = (
            "FunctionName",
            "Description",
            "Role",
            "Handler",
            "Runtime",
            "MemorySize",
            "Timeout",
            "Environment",
        )
        self.aws.client("lambda").create_function(
            Code={"ZipFile": b"the handler is called in this process"},
            **{name: properties[name] for name in fields},
        )

    def state_machine(self, logical_id: str, properties: dict[str, Any]) -> None:
        definition = json.loads(self.template.definition())
        if self.aws.change_definition is not None:
            self.aws.change_definition(definition)
        self.aws.client("stepfunctions").create_state_machine(
            name=properties["StateMachineName"],
            definition=json.dumps(definition),
            roleArn=properties["RoleArn"],
            type=properties["StateMachineType"],
        )


class Pipe(threading.Thread):
    """Plays the Pipe: gathers the queue's messages for the batching window, then starts one
    execution for the batch."""

    def __init__(self, aws: LocalAws) -> None:
        super().__init__(daemon=True, name="pipe")
        properties = aws.template.properties("UploadPipe")
        source = properties["SourceParameters"]["SqsQueueParameters"]
        self.aws = aws
        self.window = (
            source["MaximumBatchingWindowInSeconds"]
            if aws.batching_window is None
            else aws.batching_window
        )
        self.batch_size = source["BatchSize"]
        self.input = json.loads(properties["TargetParameters"]["InputTemplate"])
        self.target = properties["Target"]
        self.queue = aws.name("UploadQueue")
        self._stopping = threading.Event()
        self._batch: list[dict[str, Any]] = []

    def run(self) -> None:
        opened = 0.0
        while not self._stopping.is_set():
            try:
                received = self.aws.client("sqs").receive_message(
                    QueueUrl=self.queue, MaxNumberOfMessages=10
                )
                if not self._batch:
                    opened = time.monotonic()
                self._batch += received.get("Messages", [])
                full = (
                    len(self._batch) >= self.batch_size or time.monotonic() - opened >= self.window
                )
                if self._batch and full:
                    self._start_execution()
                elif not received.get("Messages"):
                    self._stopping.wait(0.05)
            except (ClientError, BotoCoreError):
                traceback.print_exc()
                self._batch.clear()  # the queue hands these out again
                self._stopping.wait(1)

    def _start_execution(self) -> None:
        self.aws.client("stepfunctions").start_execution(
            stateMachineArn=self.target, input=json.dumps([self.input] * len(self._batch))
        )
        for first in range(0, len(self._batch), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(self._batch[first : first + 10])
            ]
            self.aws.client("sqs").delete_message_batch(QueueUrl=self.queue, Entries=entries)
        self._batch.clear()

    def idle(self) -> bool:
        """No event is waiting, in the queue or in the batch."""
        counts = self.aws.client("sqs").get_queue_attributes(
            QueueUrl=self.queue, AttributeNames=["All"]
        )["Attributes"]
        waiting = int(counts["ApproximateNumberOfMessages"]) + int(
            counts["ApproximateNumberOfMessagesNotVisible"]
        )
        return waiting == 0 and not self._batch

    def stop(self) -> None:
        self._stopping.set()
        self.join(5)


class _StandIns:
    """Gives moto's Glue, Athena and Lambda something that does the work.

    Installed once; `aws` is the deployment.
    """

    aws: LocalAws
    installed = False
    lock = threading.Lock()

    @classmethod
    def install(cls, aws: LocalAws) -> None:
        cls.aws = aws
        if cls.installed:
            return
        cls.installed = True
        # moto looks through its folders at each request
        modules = tuple(backends.list_of_moto_modules())
        replace(backends, list_of_moto_modules=lambda: modules)
        etags.install()
        cls._glue_jobs()
        cls._crawlers()
        cls._athena()
        cls._histories()
        cls._functions()

    @staticmethod
    def _attempt(work: Callable[[], None], failure: type[Exception]) -> Any:
        """The `failure` that ended the work, or None.

        A mistake in a stand-in is one too: it must end a run, not leave it running for ever.
        """
        try:
            work()
        except failure as error:
            return error
        except Exception as error:
            traceback.print_exc()
            return failure(f"{type(error).__name__}: {error}")
        return None

    @classmethod
    def _glue_jobs(cls) -> None:
        start, as_dict = FakeJob.start_job_run, FakeJobRun.as_dict

        def start_job_run(job: FakeJob, *positional: Any, **named: Any) -> str:
            with cls.lock:
                run_id = start(job, *positional, **named)
                run = job.job_runs[-1]
                run._transitions, run._status = [], "RUNNING"
            threading.Thread(target=work, args=(run,), daemon=True, name=run_id).start()
            return run_id

        def work(run: Any) -> None:
            # Glue tells the script the id of its run, by which its log is named
            arguments = {**run.arguments, "--JOB_RUN_ID": run.job_run_id}
            error = cls._attempt(lambda: cls.aws.runners.glue_job(arguments), JobFailed)
            if error is not None:
                run.error_message = str(error)
            run.completed_on = utcnow()
            run._status = "SUCCEEDED" if error is None else error.state

        def described(run: Any) -> dict[str, Any]:
            description = as_dict(run)
            job = cls.aws.template.properties("GlueJob")
            description.update({key: job[key] for key in ("GlueVersion", "WorkerType")})
            description["NumberOfWorkers"] = int(job["NumberOfWorkers"])
            description["MaxCapacity"] = (
                description["NumberOfWorkers"] * WORKER_DPUS[job["WorkerType"]]
            )
            description["ExecutionTime"] = int((run.completed_on - run.started_on).total_seconds())
            if hasattr(run, "error_message"):
                description["ErrorMessage"] = run.error_message
            if description["JobRunState"] == "RUNNING":
                del description["CompletedOn"]
            return description

        replace(FakeJob, start_job_run=start_job_run)
        replace(FakeJobRun, as_dict=described)

    @classmethod
    def _crawlers(cls) -> None:
        start, as_dict = FakeCrawler.start_crawler, FakeCrawler.as_dict

        def start_crawler(crawler: FakeCrawler) -> None:
            with cls.lock:
                start(crawler)
                crawl = crawler.crawls[-1]
                crawl._transitions, crawl._status = [], "RUNNING"
            threading.Thread(
                target=work, args=(crawler, crawl), daemon=True, name=crawler.name
            ).start()

        def work(crawler: FakeCrawler, crawl: Any) -> None:
            paths = [
                path
                for target in crawler.targets.get("DeltaTargets", [])
                for path in target["DeltaTables"]
            ]
            error = cls._attempt(
                lambda: cls.aws.runners.crawl(crawler.database_name, paths), CrawlFailed
            )
            if error is not None:
                crawl.error_message = str(error)
            crawl.end_time = utcnow()
            crawl._status = "COMPLETED" if error is None else "FAILED"

        def described(crawler: Any) -> dict[str, Any]:
            description = as_dict(crawler)
            description.pop("LastCrawl", None)
            finished = [
                crawl for crawl in crawler.crawls if crawl.status not in ("RUNNING", "STOPPING")
            ]
            if finished:
                last = finished[-1]
                status = {"COMPLETED": "SUCCEEDED", "STOPPED": "CANCELLED"}.get(
                    last.status, last.status
                )
                description["LastCrawl"] = {
                    "Status": status,
                    "StartTime": last.start_time,
                    "LogGroup": last.log_group,
                    "LogStream": last.log_stream,
                    "MessagePrefix": last.message_prefix,
                }
                if hasattr(last, "error_message"):
                    description["LastCrawl"]["ErrorMessage"] = last.error_message
            return description

        replace(FakeCrawler, start_crawler=start_crawler, as_dict=described)

    @classmethod
    def _athena(cls) -> None:
        start, respond = AthenaBackend.start_query_execution, AthenaResponse.get_query_execution

        def start_query_execution(
            backend: AthenaBackend,
            query: str,
            context: Any,
            config: Any,
            workgroup: str,
            execution_parameters: Any,
        ) -> str:
            group = backend.work_groups.get(workgroup)
            enforced = (
                dict((group.configuration or {}).get("ResultConfiguration", {})) if group else {}
            )
            query_id = start(
                backend, query, context, enforced or config, workgroup, execution_parameters
            )
            execution = backend.executions[query_id]
            execution._transitions, execution._status = [], "RUNNING"
            threading.Thread(
                target=work, args=(backend, execution), daemon=True, name=query_id
            ).start()
            return query_id

        def work(backend: AthenaBackend, execution: Any) -> None:
            def answer() -> None:
                database = (execution.context or {}).get("Database", "")
                answer = cls.aws.runners.query(execution.query, database)
                backend.query_results[execution.id] = results(*answer)
                backend._store_query_result_in_s3(execution.id)

            error = cls._attempt(answer, QueryFailed)
            if error is not None:
                execution.reason = str(error)
            execution.end_time = time.time()
            if execution._status == "RUNNING":  # and not cancelled meanwhile
                execution._status = "SUCCEEDED" if error is None else "FAILED"

        def results(
            columns: Sequence[str], rows: Sequence[Sequence[Any]], types: Sequence[str] = ()
        ) -> QueryResults:
            """Athena's shape: all values as text, NULL as a field that is missing, the column names
            as first row."""
            data = [
                [{} if value is None else {"VarCharValue": str(value)} for value in row]
                for row in [columns, *rows]
            ]
            kinds = types or ["varchar"] * len(columns)
            info = [column_info(name, kind) for name, kind in zip(columns, kinds, strict=True)]
            return QueryResults(rows=[{"Data": row} for row in data], column_info=info)

        def get_query_execution(response: AthenaResponse) -> str:
            answer = json.loads(respond(response))
            execution = response.athena_backend.executions[
                answer["QueryExecution"]["QueryExecutionId"]
            ]
            if hasattr(execution, "reason"):
                answer["QueryExecution"]["Status"]["StateChangeReason"] = execution.reason
            engine = {"EffectiveEngineVersion": cls.aws.runners.engine}
            answer["QueryExecution"]["EngineVersion"] = engine
            return json.dumps(answer)

        def batch_get_query_execution(response: AthenaResponse) -> str:
            """moto lacks the call."""
            executions = response.athena_backend.executions
            queries = [
                {"QueryExecutionId": query_id, "Query": executions[query_id].query}
                for query_id in response._get_param("QueryExecutionIds")
            ]
            return json.dumps({"QueryExecutions": queries, "UnprocessedQueryExecutionIds": []})

        def list_query_executions(response: AthenaResponse) -> str:
            """The newest first, as Athena lists them."""
            ids = json.loads(list_all(response))["QueryExecutionIds"]
            return json.dumps({"QueryExecutionIds": ids[::-1]})

        list_all = AthenaResponse.list_query_executions
        replace(AthenaBackend, start_query_execution=start_query_execution)
        replace(
            AthenaResponse,
            get_query_execution=get_query_execution,
            list_query_executions=list_query_executions,
            batch_get_query_execution=batch_get_query_execution,
        )

    @classmethod
    def _histories(cls) -> None:
        """moto gives a history in one order only, and stops an execution without its job or a
        cause."""
        oldest_first = StepFunctionResponse.get_execution_history

        def get_execution_history(response: StepFunctionResponse) -> ActionResult:
            answer: Any = oldest_first(response).result
            if response._get_bool_param("reverseOrder"):
                answer = {"events": list(answer["events"])[::-1]}
            return ActionResult(answer)

        def stop_execution(response: StepFunctionResponse) -> ActionResult:
            """An execution that is stopped stops the job that it waits for, and has a cause."""
            arn = str(response._get_param("executionArn"))
            execution = response.stepfunction_backend.describe_execution(arn)
            if execution.status == "RUNNING":
                execution.error, execution.cause = map(response._get_param, ("error", "cause"))
                execution.stop(utcnow(), execution.error, execution.cause)
                cls.aws.runners.stop_job(execution.name)
            return ActionResult({"stopDate": execution.stop_date})

        replace(
            StepFunctionResponse,
            get_execution_history=get_execution_history,
            stop_execution=stop_execution,
        )

    @classmethod
    def _functions(cls) -> None:

        def invoke(
            backend: LambdaSimpleBackend,
            function_name: str,
            qualifier: str | None,
            body: Any,
            headers: Any,
            response_headers: Any,
        ) -> bytes:
            function = backend.get_function(function_name, qualifier)
            end = time.monotonic() + function.timeout
            context = SimpleNamespace(
                function_name=function.function_name,
                aws_request_id=f"{time.time_ns():x}",
                get_remaining_time_in_millis=lambda: int((end - time.monotonic()) * 1000),
            )
            try:
                answer = cls.aws.function(function.function_name)(json.loads(body or "{}"), context)
            except Exception as error:  # what Lambda answers for a function that raises
                response_headers["x-amz-function-error"] = "Unhandled"
                answer = {
                    "errorMessage": str(error),
                    "errorType": type(error).__name__,
                    "stackTrace": traceback.format_tb(error.__traceback__)[-3:],
                }
            return json.dumps(answer).encode()

        replace(LambdaSimpleBackend, invoke=invoke)
