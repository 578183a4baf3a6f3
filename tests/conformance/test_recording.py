"""The local Athena against the answers of a real Trino: the same, or a clear refusal; never another
answer."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from local.athena import Athena, AthenaError
from local.athena.functions import KNOWN, signatures
from tests.conformance import tables
from tests.conformance.compare import DIFFERENCES, Question, questions, verdict
from tests.conformance.record import QUERIES, RECORDED, statements

ASKED = list(questions())


@pytest.fixture(scope="module")
def athena(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    # Trino read the rows in another order: a query with more than one right answer shows
    return Athena(tables.build(tmp_path_factory.mktemp("lake"), shuffled=True))


@pytest.fixture(scope="module")
def verdicts(athena: Athena) -> dict[Question, str]:
    return {question: verdict(athena, question) for question in ASKED}


@pytest.mark.parametrize("question", ASKED, ids=lambda q: f"{q.kind}-{q.number}")
def test_the_answer_is_trinos_or_none(verdicts: dict[Question, str], question: Question) -> None:
    assert verdicts[question] in ("same", "refused", "known")


def test_nine_of_ten_are_answered(verdicts: dict[Question, str]) -> None:
    found = Counter(verdicts.values())
    assert len(ASKED) >= 500
    assert found["refused"] <= len(ASKED) / 10, found


def test_the_recording_is_of_the_queries_that_are_written_down() -> None:
    for path in sorted(QUERIES.glob("*.sql")):
        recorded = json.loads((RECORDED / f"{path.stem}.json").read_text("utf-8"))["answers"]
        assert [answer["sql"] for answer in recorded] == statements(path), path.name


def test_every_difference_of_athena_from_trino_names_its_source() -> None:
    assert set(DIFFERENCES) <= {question.sql for question in ASKED}
    assert all("https://docs.aws.amazon.com/athena/" in why for why in DIFFERENCES.values())


def offered_names() -> set[str]:
    return {name for kind in ("scalar", "aggregate", "window") for name in signatures(kind)}


def test_each_function_that_is_offered_was_asked_and_answered_the_same(
    verdicts: dict[Question, str],
) -> None:
    proven: set[str] = set()
    for question, found in verdicts.items():
        if "error" not in question.recorded and found == "same":
            proven |= set(re.findall(r"\b(\w+)\s*\(", question.sql.lower()))
    assert offered_names() - proven == set()


def test_each_function_that_is_offered_is_one_of_trinos() -> None:
    assert offered_names() - KNOWN == set()


def test_a_function_of_trino_that_is_not_offered_is_said_to_be_missing_here(athena: Athena) -> None:
    with pytest.raises(AthenaError, match="NOT_SUPPORTED.*not part of this local console"):
        athena.query("SELECT st_area(1)")
    with pytest.raises(AthenaError, match="FUNCTION_NOT_FOUND.*'st_nothing' not registered"):
        athena.query("SELECT st_nothing(1)")
