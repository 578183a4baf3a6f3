"""Any file that a shop may send: no run fails, no row is lost, and the good files beside are loaded.

Hypothesis draws keys and contents; a reader in plain Python, the model's, counts what is in them.
FUZZ_FILES=10000 draws more than the suite does.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.corpus.cases import item, order, product, text
from tests.corpus.cases import ITEMS as ITEMS_HEADER
from tests.corpus.cases import ORDERS as ORDERS_HEADER
from tests.corpus.cases import PRODUCTS as PRODUCTS_HEADER
from tests.model import OUTCOMES, RawFile, SetAside, read_file
from tests.spark.conftest import Lake, check_equation

FILES = int(os.environ.get("FUZZ_FILES", "500"))
BATCH = 500
DELIVERED = datetime(2025, 5, 1, 8)
HEADERS = {"products": PRODUCTS_HEADER, "orders": ORDERS_HEADER, "order_items": ITEMS_HEADER}
ROWS = {"products": product, "orders": order, "order_items": item}
GOOD = [
    RawFile("products.csv", text(PRODUCTS_HEADER, product("good-product")), DELIVERED),
    RawFile("orders.csv", text(ORDERS_HEADER, order("good-order")), DELIVERED),
    RawFile(
        "order_items.csv",
        text(ITEMS_HEADER, item("good-item", order_id="good-order", product_id="good-product")),
        DELIVERED,
    ),
]

# ---- keys
SIGNS = list(
    " %+#?*[]{}:;,&='\"\\|~!$()<>\t\n\r\x01\x7f\u00e9e\u0301\u3000\u200b\ufeff\U0001fad6"
) + [
    "%20",
    "%2F",
    "..",
    "date=2025-04-01",
    "_x",
    ".x",
    "a",
    "CSV",
]
ENDINGS = [".csv"] * 8 + [".csv.gz"] * 3 + [".CSV", ".csv.bak", ".csv.part", ".txt", ""]
piece = st.one_of(
    st.lists(st.sampled_from(SIGNS), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=20),
    st.just("long" * 45),
)


@st.composite
def a_key(draw: Callable) -> tuple[str, str]:
    """The start and the end of a key; a number between them makes it unique."""
    dataset = draw(st.sampled_from([*HEADERS, *HEADERS, *HEADERS, "ORDERS", "stock", "ordersheet"]))
    folders = draw(st.lists(piece, min_size=1, max_size=5))
    parts = [part if part.strip(".") else f"{part}x" for part in folders]
    return dataset + draw(st.sampled_from("/_- .")), "/".join(parts) + draw(
        st.sampled_from(ENDINGS)
    )


# ---- contents
def csv_lines(dataset: str, count: int, start: int) -> list[str]:
    rows = [ROWS[dataset](f"fuzz-{start}-{place}") for place in range(count)]
    return [HEADERS[dataset], *rows]


SNIPPETS = [
    *[b'"', b'""', b'"\n', b'\n"', b",", b";", b"\t", b"|", b",,", b"\r", b"\n", b"\r\n", b"\n\n"],
    *[
        b"\0",
        b"\x1a",
        b"\n\x1a\n",
        b"\x0b",
        b"\x7f",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xe9",
        b"\xe2\x80",
    ],
    *[b"NULL", b"\\N", b"nan", b"2.5E+11", b'="007"', b"1,234", b"sep=;\n", b" ", b"\xe3\x80\x80"],
    *[f"\n{header}\n".encode() for header in HEADERS.values()],
    *[f"\n{header.upper()}\n".encode() for header in HEADERS.values()],
    b"\nproduct_name,department,department_id,product_id\n",
    b"\n,,,\n",
    b"x" * 9000,
]
ENCODINGS = ["utf-8"] * 10 + ["utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32"]


@st.composite
def a_csv(draw: Callable) -> bytes:
    """A good file in one of many dialects."""
    dataset = draw(st.sampled_from(list(HEADERS)))
    lines = csv_lines(dataset, draw(st.integers(0, 25)), draw(st.integers(0, 99)))
    sign = draw(st.sampled_from([",", ",", ",", ";", "\t", "|", ":"]))
    quote = draw(st.sampled_from(["", "", '"']))
    lines = [sign.join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in lines]
    if draw(st.booleans()):
        lines = [
            line.replace("Tea", draw(st.sampled_from(["Tee für €", "\u3000x", "茶"])))
            for line in lines
        ]
    whole = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])).join(lines)
    end = draw(st.sampled_from(["\n", "\n", "", "\r\n", "\x1a", "\n\n"]))
    return (whole + end).encode(draw(st.sampled_from(ENCODINGS)), "replace")


@st.composite
def a_mutated_csv(draw: Callable) -> bytes:
    """A good file with something put in, taken out or repeated, a few times."""
    content = draw(a_csv())
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(content)))
        until = min(len(content), at + draw(st.sampled_from([0, 0, 0, 1, 1, 40])))
        new = draw(st.sampled_from([*SNIPPETS, *SNIPPETS, b"", content[at : at + 200]]))
        content = content[:at] + new + content[until:]
    return content


@st.composite
def a_soup(draw: Callable) -> bytes:
    """A header, and snippets in any order."""
    header = HEADERS[draw(st.sampled_from(list(HEADERS)))].encode()
    snippets = draw(st.lists(st.sampled_from([*SNIPPETS, b"x", b"1", b"a,b,c,d"]), max_size=30))
    return header + b"\n" + b"".join(snippets)


@st.composite
def a_packed_file(draw: Callable) -> bytes:
    """A gzip file, whole, cut anywhere, or with something behind its end."""
    packed = gzip.compress(draw(st.one_of(a_csv(), a_mutated_csv(), a_soup())), mtime=0)
    cut = draw(st.sampled_from([False, False, True]))
    end = draw(st.integers(0, len(packed))) if cut else len(packed)
    return packed[:end] + draw(st.sampled_from([b"", b"", b"", b"\0" * 600, b"x", packed]))


contents = st.one_of(a_csv(), a_mutated_csv(), a_mutated_csv(), a_soup(), st.binary(max_size=300))


@st.composite
def a_file(draw: Callable) -> tuple[str, str, bytes]:
    """The start and the end of its key, and its content."""
    start, end = draw(a_key())
    packed = end.endswith(".gz") != draw(st.sampled_from([False] * 9 + [True]))
    return start, end, draw(a_packed_file() if packed else contents)


def drawn_files() -> list[RawFile]:
    """The files that hypothesis draws, the same in every session."""
    drawn: list[RawFile] = []

    @settings(
        max_examples=FILES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(a_file())
    def collect(one: tuple[str, str, bytes]) -> None:
        start, end, content = one
        drawn.append(RawFile(f"{start}{len(drawn)}-{end}", content, DELIVERED))

    collect()
    return drawn


# ---- runs
@dataclass
class Ran:
    """A batch, and what the job says of each of its files by path."""

    files: dict[str, RawFile]
    summary: dict[str, Any]
    manifest: dict[str, dict[str, Any]]
    ledger: dict[str, Any]
    rejected: dict[str, set[tuple[int, str]]]
    tables: dict[str, dict[str, tuple]]


BATCHES = range(0, FILES, BATCH)


@pytest.fixture(scope="module", params=BATCHES, ids=lambda first: f"from {first}")
def ran(request: Any, job: Any, spark: Any, tmp_path_factory: Any) -> Ran:
    files = [*GOOD, *drawn_files()[request.param : request.param + BATCH]]
    lake = Lake(job, tmp_path_factory.mktemp("any"))
    summary = lake.run(files)
    rejected: dict[str, set[tuple[int, str]]] = {}
    for row in lake.records():
        if row.status == "rejected":
            told = (row.line, " ".join(sorted(row.reasons)))
            rejected.setdefault(row.file_path, set()).add(told)
    return Ran(
        {file.path: file for file in files},
        summary,
        lake.manifest("run-1"),
        {row.file_path: row for row in lake.frame("ingested_files").collect()},
        rejected,
        lake.tables(),
    )


def smallest(ran: Ran, wrong: dict[str, Any]) -> str:
    """The smallest files of which something is wrong."""
    paths = sorted(wrong, key=lambda path: len(ran.files[path].content))
    told = [f"{path!r}\n  {ran.files[path].content!r}\n  {wrong[path]}" for path in paths[:10]]
    return "\n".join([f"{len(wrong)} files", *told])


def judged(file: RawFile) -> tuple[str, int, set[tuple[int, str]]]:
    """What the plain reader says: outcome, rows, and the rejected lines with their reasons."""
    try:
        read = read_file(file)
    except SetAside:
        return "set_aside", 0, set()
    bad = {(one.source.line, " ".join(sorted(one.reasons))) for one in read.rejected}
    return "loaded", read.rows_read, bad


def test_enough_files_of_each_kind_are_drawn() -> None:
    files = drawn_files()
    outcomes = [judged(file)[0] for file in files]
    assert len({file.path for file in files}) == len(files) >= FILES * 0.9
    assert min(outcomes.count("loaded"), outcomes.count("set_aside")) > len(files) / 5


def test_the_run_succeeds_and_tells_of_every_file(ran: Ran) -> None:
    assert ran.summary["status"] == "SUCCEEDED"
    check_equation(ran.summary)
    assert ran.manifest.keys() == ran.files.keys()


def test_the_good_files_beside_are_loaded(ran: Ran) -> None:
    assert {ran.manifest[file.path]["outcome"] for file in GOOD} == {"loaded"}
    for dataset, key in (("products", "product"), ("orders", "order"), ("order_items", "item")):
        assert f"good-{key}" in ran.tables[dataset]


def test_the_rows_of_every_file_are_its_outcomes(ran: Ran) -> None:
    wrong = {}
    for path, entry in ran.manifest.items():
        row = ran.ledger.get(path)
        if row is None:
            wrong[path] = "not in the ledger"
        elif not entry["rows_read"] == row.rows_read == sum(row[name] for name in OUTCOMES):
            wrong[path] = f"{entry['rows_read']} rows in the manifest, {row} in the ledger"
    assert not wrong, smallest(ran, wrong)


def test_a_file_is_loaded_where_the_plain_reader_would_load_it(ran: Ran) -> None:
    wrong = {
        path: f"{entry['outcome']} {entry['reason']}"
        for path, entry in ran.manifest.items()
        if entry["outcome"] != judged(ran.files[path])[0]
    }
    assert not wrong, smallest(ran, wrong)


def test_a_loaded_file_has_the_rows_that_the_plain_reader_counts(ran: Ran) -> None:
    wrong = {}
    for path, entry in ran.manifest.items():
        outcome, rows, rejected = judged(ran.files[path])
        if entry["outcome"] != "loaded" or outcome != "loaded":
            continue
        found = ran.rejected.get(path, set())
        if entry["rows_read"] != rows:
            wrong[path] = f"{entry['rows_read']} rows instead of {rows}"
        elif found != rejected:
            wrong[path] = f"rejected {found - rejected} instead of {rejected - found}"
    assert not wrong, smallest(ran, wrong)
