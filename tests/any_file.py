"""Files that a shop may send, good and odd ones, drawn by hypothesis: keys and contents.

FUZZ_FILES=10000 draws more than the suite does.
"""

from __future__ import annotations

import gzip
import os
from datetime import datetime
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.corpus.cases import CASES, item, order, product
from tests.corpus.cases import ITEMS as ITEMS_HEADER
from tests.corpus.cases import ORDERS as ORDERS_HEADER
from tests.corpus.cases import PRODUCTS as PRODUCTS_HEADER
from tests.model import RawFile

FILES = int(os.environ.get("FUZZ_FILES", "500"))
DELIVERED = datetime(2025, 5, 1, 8)
HEADERS = {"products": PRODUCTS_HEADER, "orders": ORDERS_HEADER, "order_items": ITEMS_HEADER}
ROWS = {"products": product, "orders": order, "order_items": item}

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
    dataset: [
        case.content for case in CASES if case.dataset == dataset and len(case.content) < 20_000
    ]
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
    whole = [
        sign.join(names),
        *[sign.join(f"{quote}{value}{quote}" for value in row) for row in rows],
    ]
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


def a_file_of_fixed_rows(dice: Random, dataset: str) -> bytes:
    """Rejected rows that a person has fixed, or not: two columns in front, apostrophes before
    values."""
    header, *lines = csv_lines(dataset, dice.randrange(1, 25), dice.randrange(100))
    sign, quote = dice.choice(",,;"), dice.choice(["", '"'])
    rows = [["reasons", "where", *header.split(",")]]
    for line in lines:
        cells = [dice.choice(["", "'"]) + cell for cell in line.split(",")]
        if dice.random() < 0.5:
            cells[dice.randrange(len(cells))] = dice.choice(["'", "''", ""]) + dice.choice(WORDS)
        where = dice.choice(["", "'x", f"{dataset}/a.csv:2 (0a1b2c3d)"])
        rows.append([dice.choice(["", "blank", "'=1"]), where, *cells])
    whole = "\n".join(sign.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    content = f"{whole}\n".encode(dice.choice(["utf-8", "utf-8-sig"]))
    return mutated(dice, content, len(rows[0])) if dice.random() < 0.3 else content


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
            a_file_of_fixed_rows,
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
