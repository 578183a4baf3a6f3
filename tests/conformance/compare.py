"""Each recorded query asked again of the local Athena: the same answer, refused alike, the clear
word that it is not part, or a difference."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.athena import Athena, AthenaError, as_text
from local.athena.results import NOT_PART, Type

RECORDED = Path(__file__).with_name("recorded")
DIFFERENCES: dict[str, str] = json.loads(
    Path(__file__).with_name("differences.json").read_text("utf-8")
)


@dataclass(frozen=True)
class Question:
    """One query of the recording with its answer."""

    kind: str
    number: int
    recorded: dict[str, Any] = field(compare=False)

    @property
    def sql(self) -> str:
        return str(self.recorded["sql"])


def questions() -> Iterator[Question]:
    for path in sorted(RECORDED.glob("*.json")):
        for number, answer in enumerate(json.loads(path.read_text("utf-8"))["answers"]):
            yield Question(path.stem, number, answer)


def items(question: Question) -> Iterator[Question]:
    """Yield each item of a SELECT without FROM as a question of its own: what Trino answered to
    several items at once, it answers to each."""
    recorded = question.recorded
    texts = split_items(question.sql)
    if "error" in recorded or len(texts) < 2 or len(texts) != len(recorded["names"]):
        return
    for number, text in enumerate(texts):
        name, kind = recorded["names"][number], recorded["types"][number]
        name = "_col0" if name == f"_col{number}" else name
        rows = [[row[number]] for row in recorded["rows"]]
        answer = {"sql": f"SELECT {text}", "names": [name], "types": [kind], "rows": rows}
        yield Question(question.kind, question.number * 100 + number, answer)


def split_items(sql: str) -> list[str]:
    """Split `SELECT a, f(b, c)` at its outer commas; nothing if there is a FROM."""
    word, _, columns = sql.partition(" ")
    outer, items, depth = "", [""], 0
    for token in re.findall(r"'(?:''|[^'])*'|\"[^\"]*\"|.", columns, re.S):
        depth += (token in ("(", "[")) - (token in (")", "]"))
        outer += token if depth == 0 and len(token) == 1 else " "
        if token == "," and depth == 0:
            items.append("")
        else:
            items[-1] += token
    plain = not re.search(r"(?i)\b(FROM|WHERE|UNION|ORDER|LIMIT|EXCEPT|INTERSECT)\b", outer)
    return [text.strip() for text in items] if plain and word.upper() == "SELECT" else []


SAME, ALIKE, NOT_HERE, OWN_FORM = "same answer", "refused alike", "not part", "Athena's own form"


def verdict(athena: Athena, question: Question) -> str:
    """Return SAME, ALIKE if both refuse with one code, NOT_HERE if the console says that it has not
    got it, OWN_FORM if Athena itself is known to differ from Trino, else what differs."""
    recorded = question.recorded
    if question.sql in DIFFERENCES:
        return OWN_FORM
    try:
        result = athena.query(question.sql)
    except AthenaError as error:
        if recorded.get("error") == error.code:
            return ALIKE
        if NOT_PART in str(error):
            return NOT_HERE
        return f"local error {error}, recorded {recorded.get('error', recorded.get('rows'))}"
    if "error" in recorded:
        return f"local answer {result.rows[:3]}, recorded error {recorded['error']}"
    if result.names != recorded["names"]:
        return f"local names {result.names}, recorded {recorded['names']}"
    types = [plain_type(kind) for kind in recorded["types"]]
    if [plain_type(kind) for kind in result.types] != types:
        return f"local types {result.types}, recorded {types}"
    rows = [[wire(v, k) for v, k in zip(row, result.kinds, strict=True)] for row in result.rows]
    return compare_rows(rows, recorded["rows"], in_order(question.sql))


def compare_rows(rows: list[Any], recorded: list[Any], ordered: bool) -> str:
    if not ordered:
        rows, recorded = sorted(rows, key=repr), sorted(recorded, key=repr)
    if len(rows) == len(recorded) and all(map(equal, rows, recorded)):
        return SAME
    pairs = [(a, b) for a, b in zip(rows, recorded, strict=False) if not equal(a, b)][:2]
    return f"local {len(rows)} rows, recorded {len(recorded)}; local, recorded: {pairs}"


def in_order(sql: str) -> bool:
    """Whether the query says in which order its rows come."""
    depth, text = 0, ""
    for letter in sql:
        depth += (letter == "(") - (letter == ")")
        text += letter if depth == 0 else " "
    return re.search(r"ORDER BY", text, re.I) is not None


def plain_type(text: str) -> str:
    """Athena names the type of a text without its length; Trino's client writes the intervals in
    capitals."""
    return re.sub(r"varchar\(\d+\)", "varchar", text).lower().replace(", ", ",")


def equal(local: Any, recorded: Any) -> bool:
    """The same value; a double may differ in its last digits, since sums are added in another
    order."""
    if isinstance(local, float) and isinstance(recorded, float | int):
        return math.isclose(local, recorded, rel_tol=1e-12, abs_tol=1e-12)
    if isinstance(local, list) and isinstance(recorded, list):
        return len(local) == len(recorded) and all(map(equal, local, recorded))
    if isinstance(local, dict) and isinstance(recorded, dict):
        return local.keys() == recorded.keys() and all(equal(local[k], recorded[k]) for k in local)
    return type(local) is type(recorded) and bool(local == recorded)


def wire(value: Any, kind: Type) -> Any:
    """A value as Trino's client protocol writes it in JSON."""
    if value is None or isinstance(value, bool | int | str) and kind.name != "double":
        return value
    if isinstance(value, float):
        return float(str(as_text(value, kind))) if math.isfinite(value) else as_text(value)
    if kind.name == "array":
        return [wire(v, kind.parts[0]) for v in value]
    if kind.name == "map":
        return {str(as_text(k)): wire(v, kind.parts[1]) for k, v in value.items()}
    assert isinstance(value, dt.date | dt.datetime | decimal.Decimal), value
    return as_text(value, kind)
