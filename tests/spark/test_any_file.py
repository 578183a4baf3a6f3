"""Any file that a shop may send: no run fails, no row is lost, the good files beside are loaded.

Hypothesis draws keys and contents; a reader in plain Python, the model's, counts what is in them.
FUZZ_FILES=10000 draws more than the suite does.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import glue_etl as etl
from local.aws.job import job_arguments
from tests.corpus.cases import CASES, item, order, product, text
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
ENDINGS = [".csv"] * 16 + [".csv.gz"] * 5 + [".CSV", ".csv.bak", ".csv.part", ".txt", ""]


def a_letter(dice: Random) -> str:
    """Any character that a key can hold, of one to four bytes."""
    code = dice.randrange(1, 2 ** dice.choice([7, 8, 12, 16, 20]))
    return "" if 0xD800 <= code < 0xE000 or chr(code) == "/" else chr(code)


def a_name(dice: Random) -> str:
    """A folder or a file's name of up to 255 bytes."""
    make = dice.choice([lambda: dice.choice(SIGNS), lambda: a_letter(dice), lambda: "long" * 4])
    name = "".join(make() for _ in range(dice.choice([1, 2, 5, 12])))
    return name if name.strip(".") else f"{name}x"


def a_key(dice: Random, dataset: str, number: int) -> str:
    """A key of up to 1,024 bytes; its number makes it unique."""
    dataset = dice.choice([*[dataset] * 30, dataset.upper(), "stock", "ordersheet", *HEADERS])
    names = "/".join(a_name(dice) for _ in range(dice.choice([1, 1, 2, 5])))
    return f"{dataset}{dice.choice('/_- .')}{number}-{names}{dice.choice(ENDINGS)}"


# ---- contents
ODD = {
    dataset: [one.content for one in CASES if one.dataset == dataset and len(one.content) < 20_000]
    for dataset in HEADERS
}


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


def a_csv(dice: Random, dataset: str) -> bytes:
    """A good file in one of many dialects."""
    lines = csv_lines(dataset, dice.randrange(25), dice.randrange(100))
    sign = dice.choice([*[","] * 6, *";\t|" * 2, ":"])
    quote = dice.choice(["", "", '"'])
    lines = [sign.join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in lines]
    lines = [
        line.replace("Tea", dice.choice(["Tea", "Tee für €", "\u3000x", "茶"])) for line in lines
    ]
    whole = dice.choice(["\n", "\n", "\n", "\r\n", "\r"]).join(lines)
    end = dice.choice(["\n", "\n", "", "\r\n", "\x1a", "\n\n"])
    return (whole + end).encode(dice.choice(ENCODINGS), "replace")


WORDS = ["False", "[NULL]", "(null)", "<NA>", "undefined", "#REF!", "{}", "[nan]", "n/a", "NA"]
WORDS += ["1e+05", "3e3", "1.0023456E7", "2.02504e+11", "2E+11", "5E5", "1.50E2", "8e-3", "1e99"]
WORDS += ["1.234", "12,50", "1.234,50", "-3.000", "110.7", "12345678901234567", "1e-400", "1,234"]
WORDS += ["\u200eS1", "S\u00ad1", "\u2066x\u2069", "\U000e0020y", "--", "=", "2205-04-01T10:00:00"]
WORDS += [
    "2025-05-02T08:00:00",
    "2025-05-02T08:00:01",
    "x\\",
    "a\\b",
    "a\rb",
    "'q'",
    "O''B",
    "x\\\r",
]
ABOVE = ["# orders of shop 1", "", "-----", "sep=;", ",,,", "Export of 1 May", '"', "a,b,c,d", "1"]


def a_spelling(dice: Random, name: str) -> str:
    """A column's name as a shop system may write it."""
    words = name.split("_")
    camel = words[0] + "".join(word.title() for word in words[1:])
    return dice.choice([name, name, name.upper(), " ".join(words).title(), "-".join(words), camel])


def a_shop_csv(dice: Random, dataset: str) -> bytes:
    """A file as shops and their systems write it: words for nothing, numbers in other notations,
    invisible signs, broken lines, other spellings, titles above the header."""
    header, *lines = csv_lines(dataset, dice.randrange(1, 12), dice.randrange(100))
    names = [a_spelling(dice, name) for name in header.split(",")]
    rows = [line.split(",") for line in lines]
    for _ in range(dice.randrange(8)):
        row = dice.choice(rows)
        row[dice.randrange(len(row))] = dice.choice(WORDS)
    quote = dice.choice(["", "", "'", '"'])
    sign = dice.choice(",,,;;\t|")
    whole = [sign.join(names), *[sign.join(f"{quote}{one}{quote}" for one in row) for row in rows]]
    for _ in range(dice.choice([0, 0, 1, 2])):
        whole.insert(
            dice.randrange(1, len(whole) + 1), dice.choice(["---,---", "|--|", "+==+", "="])
        )
    above = [dice.choice(ABOVE) for _ in range(dice.choice([0, 0, 0, 1, 3, 22]))]
    end = dice.choice(["\n", "\n", "\r\n", "\r"])
    return (end.join([*above, *whole]) + dice.choice([end, end, ""])).encode()


def a_mutated_csv(dice: Random, dataset: str) -> bytes:
    """A good file with something put in, taken out or repeated, a few times."""
    spared = dice.choice([0, len(HEADERS[dataset])])  # nothing, or the header
    return mutated(dice, a_csv(dice, dataset), spared)


def a_mutated_case(dice: Random, dataset: str) -> bytes:
    """An odd file of the corpus, made still odder."""
    return mutated(dice, dice.choice(ODD[dataset]), 0)


def mutated(dice: Random, content: bytes, spared: int) -> bytes:
    """Content that is changed in a few places, none of them among its first, spared bytes."""
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(min(spared, len(content)), len(content) + 1)
        until = at + dice.choice([0, 0, 0, 1, 1, 40])
        new = dice.choice([*SNIPPETS, *SNIPPETS, b"", content[at : at + 200]])
        content = content[:at] + new + content[until:]
    return content


def a_soup(dice: Random, dataset: str) -> bytes:
    """A header, and snippets in any order."""
    snippets = [dice.choice([*SNIPPETS, b"x", b"1", b"a,b,c,d"]) for _ in range(dice.randrange(30))]
    return HEADERS[dataset].encode() + b"\n" + b"".join(snippets)


def some_bytes(dice: Random, dataset: str) -> bytes:
    return dice.randbytes(dice.randrange(300))


def a_packed_file(dice: Random, content: bytes) -> bytes:
    """A gzip file, whole, cut anywhere, or with something behind its end."""
    packed = gzip.compress(content, mtime=0)
    end = dice.choice([len(packed)] * 3 + [dice.randrange(len(packed))])
    return packed[:end] + dice.choice([b"", b"", b"", b"\0" * 600, b"x", packed])


def a_file(dice: Random, number: int) -> RawFile:
    dataset = dice.choice(list(HEADERS))
    path = a_key(dice, dataset, number)
    make = dice.choice(
        [
            a_csv,
            *[a_mutated_csv] * 4,
            *[a_shop_csv] * 4,
            *[a_soup] * 2,
            *[a_mutated_case] * 3,
            some_bytes,
        ]
    )
    content = make(dice, dataset)
    if path.endswith(".gz") != (dice.random() < 0.05):
        content = a_packed_file(dice, content)
    return RawFile(path, content, DELIVERED)


# Bits, not a number: numbers are drawn more often where a loaded module names them
bits = st.lists(st.booleans(), min_size=48, max_size=48)


def drawn_files() -> list[RawFile]:
    """The files that hypothesis draws, the same in every session."""
    drawn: dict[bytes, RawFile] = {}

    @settings(
        max_examples=FILES * 2,  # hypothesis likes to repeat itself
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(bits)
    def collect(seed: list[bool]) -> None:
        file = a_file(Random(str(seed)), len(drawn))
        drawn.setdefault(file.content, file)

    collect()
    return list(drawn.values())[:FILES]


# ---- files that are bad as a whole
def test_a_file_that_was_set_aside_for_its_rows_is_no_duplicate_and_can_be_taken(
    lake: Lake,
) -> None:
    names = ("more_than_half_of_twenty_rows_are_bad", "a_second_header_in_another_order")
    mostly, mixed = (next(one for one in CASES if one.name == name) for name in names)
    files = [RawFile(case.path, case.content, DELIVERED) for case in (mostly, mixed)]
    raw = lake.write(files, lake.folder / "raw")
    for run_id in ("first", "again"):
        lake.run_on(raw, run_id)
        entries = lake.manifest(run_id)
        assert {one.path: entries[one.path]["outcome"] for one in files} == {
            one.path: "set_aside" for one in files
        }, run_id
        assert entries[mostly.path]["reason"] == "mostly_rejected"
        assert (lake.rows("clean_orders"), lake.records()) == ([], [])
    arguments = job_arguments(raw, lake.folder, "taken", force=True)
    assert etl.main([*arguments, "--MAX_REJECTED_PERCENT", "100"]) == 0
    assert (len(lake.rows("clean_orders")), len(lake.records())) == (9, 11)


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
def ran(request: Any, spark: Any, tmp_path_factory: Any) -> Ran:
    files = [*GOOD, *drawn_files()[request.param : request.param + BATCH]]
    lake = Lake(tmp_path_factory.mktemp("any"))
    summary = lake.run(files)
    rejected: dict[str, set[tuple[int, str]]] = {}
    for row in lake.records():
        if row.status != "parked":  # or closed by a good row of a later file
            told = (row.line, " ".join(sorted(row.reasons)))
            rejected.setdefault(row.file_path, set()).add(told)
    return Ran(
        {file.path: file for file in files},
        summary,
        lake.manifest("run-1"),
        {row.file_path: row for row in lake.rows("ingested_files")},
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
        elif (
            not entry["rows_read"] == row.rows_read == sum(getattr(row, name) for name in OUTCOMES)
        ):
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
