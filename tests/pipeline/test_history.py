"""The history is the same on a local AWS as in a folder, and starts no execution."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from local.aws.server import LocalAws, Runners
from local.commands import history
from tests.small_lake import SmallLake, order

HEADER = "order_num,order_id,user_id,order_timestamp,total_amount,date\n"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> SmallLake:
    """Two loads of one order, an archived and a rejected file, and a rejected row."""
    lake = SmallLake(tmp_path_factory.mktemp("lake"))
    for number, amount in enumerate(("5", "7"), 1):
        run_id, path = f"run-{number}", f"orders/{number}.csv"
        lake.orders(run_id, order("o1", float(amount)))
        lake.file(run_id, path, f"{HEADER}1,o1,u1,2025-04-01T10:00:00,{amount},2025-04-01\n")
        lake.run(run_id)
    lake.file("run-2", "x.csv", b"x", "set_aside", "rejected", ledger=False)
    lake.reject("run-2", "orders/2.csv", 3, "o1")
    return lake


@pytest.fixture(scope="module")
def aws(lake: SmallLake) -> Iterator[LocalAws]:
    """A local AWS with the same lake in its buckets."""
    with LocalAws(Runners(), batching_window=10_000) as aws:
        s3 = aws.client("s3")
        for path in lake.folder.rglob("*"):
            if path.is_file():
                key = path.relative_to(lake.folder).as_posix()
                bucket = "ArchiveBucket" if key.startswith("archived/") else "LakeBucket"
                s3.put_object(Bucket=aws.name(bucket), Key=key, Body=path.read_bytes())
        yield aws


@pytest.mark.parametrize(
    "question", [(), ("--run", "run-2"), ("--file", "x.csv"), ("--order", "o1")]
)
def test_the_answer_is_that_of_the_folder(
    lake: SmallLake, aws: LocalAws, question: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    places = (["--lake", str(lake.folder)], ["--endpoint", aws.endpoint])
    answers = []
    for place in places:
        assert history.main([*place, *question, "--json"]) == 0
        answers.append(capsys.readouterr().out)
    bucket = aws.name("LakeBucket")
    assert answers[0].replace(str(lake.folder), f"s3://{bucket}") == answers[1]
    assert json.loads(answers[0])["rows"]
    assert aws.executions() == []
