"""The local Athena against the answers of a real Trino: the same, or a clear word; never another
answer, never an answer where Trino refuses."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from local.athena import Athena
from local.athena.functions import TABLE
from tests.conformance import tables
from tests.conformance.compare import (
    ALIKE,
    DIFFERENCES,
    NOT_HERE,
    OWN_FORM,
    SAME,
    Question,
    items,
    questions,
    verdict,
)
from tests.conformance.record import QUERIES, RECORDED, statements

ASKED = list(questions())
ITEMS = [item for question in ASKED for item in items(question)]
FLOOR: dict[str, dict[str, int]] = json.loads(
    Path(__file__).with_name("floor.json").read_text("utf-8")
)
USED_MOST = ("aggregates", "analysts", "joins", "selects", "tools", "windows")


@pytest.fixture(scope="module")
def athena(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    # Trino read the rows in another order: a query with more than one right answer shows
    return Athena(tables.build(tmp_path_factory.mktemp("lake"), shuffled=True))


@pytest.fixture(scope="module")
def verdicts(athena: Athena) -> dict[Question, str]:
    return {question: verdict(athena, question) for question in ASKED}


@pytest.fixture(scope="module")
def counts(verdicts: dict[Question, str]) -> dict[str, Counter[str]]:
    """How many queries of each kind got which verdict."""
    by_kind: dict[str, Counter[str]] = {}
    for question, word in verdicts.items():
        by_kind.setdefault(question.kind, Counter())[word] += 1
    return by_kind


@pytest.mark.parametrize("question", ASKED, ids=lambda q: f"{q.kind}-{q.number}")
def test_the_answer_is_trinos_or_none(verdicts: dict[Question, str], question: Question) -> None:
    assert verdicts[question] in (SAME, ALIKE, NOT_HERE, OWN_FORM)


@pytest.fixture(scope="module")
def item_verdicts(athena: Athena) -> dict[Question, str]:
    return {item: verdict(athena, item) for item in ITEMS}


def test_what_trino_answered_together_is_answered_the_same_one_by_one(
    item_verdicts: dict[Question, str],
) -> None:
    assert len(ITEMS) > 1000
    other = {item.sql: v for item, v in item_verdicts.items() if v not in (SAME, NOT_HERE)}
    assert other == {}


@pytest.mark.parametrize("kind", sorted(FLOOR))
def test_no_fewer_queries_are_answered_than_before(
    counts: dict[str, Counter[str]], kind: str
) -> None:
    """A change that answers more raises the floor: the message has the figures."""
    answered = {word: counts[kind][word] for word in (SAME, ALIKE)}
    assert answered == FLOOR[kind]


def test_the_floor_knows_every_kind(counts: dict[str, Counter[str]]) -> None:
    assert set(FLOOR) == set(counts)


@pytest.mark.parametrize("kind", USED_MOST)
def test_seven_of_ten_queries_that_trino_answers_are_answered(
    counts: dict[str, Counter[str]], kind: str
) -> None:
    answers = [q for q in ASKED if q.kind == kind and "error" not in q.recorded]
    assert counts[kind][SAME] + counts[kind][OWN_FORM] >= 0.7 * len(answers)


def test_the_recording_is_of_the_queries_that_are_written_down() -> None:
    assert len(ASKED) >= 1290
    for path in sorted(QUERIES.glob("*.sql")):
        recorded = json.loads((RECORDED / f"{path.stem}.json").read_text("utf-8"))["answers"]
        assert [answer["sql"] for answer in recorded] == statements(path), path.name


def test_every_difference_of_athena_from_trino_names_its_source() -> None:
    assert set(DIFFERENCES) <= {question.sql for question in ASKED}
    assert all("https://docs.aws.amazon.com/athena/" in why for why in DIFFERENCES.values())


def test_each_function_that_is_offered_was_asked_and_answered_the_same(
    verdicts: dict[Question, str], item_verdicts: dict[Question, str]
) -> None:
    proven: set[str] = set()
    for question, word in (verdicts | item_verdicts).items():
        if word == SAME:
            proven |= set(re.findall(r"\b(\w+)\s*\(", question.sql.lower()))
    offered = {name for name in TABLE if re.fullmatch(r"[a-z]\w+", name)}
    assert offered - proven == set()
