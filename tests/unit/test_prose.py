"""Lines of the documentation wrap at 100 columns; a name says what its value holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from client import ROOT

COLUMNS = 100
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r" {0,3}(```|~~~)")
TABLE_ROW = re.compile(r"\s*\|")
CODE = re.compile(r" {4}")
# A link, picture or address that no line break can split
LONG_LINK = re.compile(r"\s*([-*>] |\d+\. )?\S*(\]\(|https?://)\S{60,}")
CODE_FOLDERS = "client console deploy lambda local rules samples src tests".split()
# Words that say nothing of a value, and what to write instead
WORDS = {
    "one": "the kind of element (file, row, state): everything is one",
    "told": "the document (summary, message, values): telling is not its content",
    "said": "the text or its parts (sentences, lines): saying is not its content",
    "kept": "what is stored (state_folder, raw_lines), or what it is for",
    "found": "the result (rows, match, by_key): whatever a function returns was found",
    "wanted": "what is required or expected (columns, expected_rows, preferred_port)",
    "again": "the second or repeated value (second_run, repeated_rows)",
    "given": "the input (arguments, request, frame): every parameter is given",
    "known": "the collection and its use (registered, seen, precisions)",
    "more": "what is added (extra_columns, fields), or a count (unlisted)",
    "rest": "the part (columns, number_widths, tail): the rest of what is unclear",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def long_lines(text: str) -> list[str]:
    """Return lines of more than COLUMNS characters, each as `number: line`, outside of tables, code
    and Mermaid blocks, and lines that consist of one long link."""
    fenced, too_long = False, []
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            fenced = not fenced
        free = fenced or any(kind.match(line) for kind in (TABLE_ROW, CODE, LONG_LINK))
        if len(line) > COLUMNS and not free:
            too_long.append(f"{number}: {line}")
    return too_long


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_is_longer_than_100_columns(page: Path) -> None:
    too_long = long_lines(page.read_text("utf-8"))
    assert too_long == [], f"{name_of(page)}: wrap these lines at {COLUMNS} columns"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("x" * 100, []),
        ("x" * 101, ["1"]),
        ("- " + "word " * 30, ["1"]),
        ("| " + "cell " * 30 + "|", []),
        ("    " + "command " * 20, []),
        ("```mermaid\n" + "x" * 101 + "\n```\n" + "y" * 101, ["4"]),
        ("- [a](https://example.com/" + "x" * 100 + ")", []),
        ("many words before " * 5 + "[a](https://example.com/" + "x" * 100 + ")", ["1"]),
    ],
)
def test_tables_code_and_long_links_may_be_longer(text: str, numbers: list[str]) -> None:
    assert [line.partition(":")[0] for line in long_lines(text)] == numbers


def bound_name(node: ast.AST) -> str:
    """Return the name that a node binds: of a variable, parameter, attribute, function or class;
    empty for any other node and for a test, whose name is a sentence."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
            return name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return "" if name.startswith("test_") else name
    return ""


def filler_names(source: str) -> list[tuple[int, str]]:
    """Return line and name of each value that is named by one of WORDS."""
    names = [(node, bound_name(node)) for node in ast.walk(ast.parse(source))]
    return [
        (node.lineno, name) for node, name in names if WORDS.keys() & set(name.lower().split("_"))
    ]


def filler_names_below(folder: str) -> list[str]:
    """Return the values of a folder that are named by one of WORDS, as `file:line: name`."""
    return [
        f"{name_of(file)}:{line}: {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line, name in filler_names(file.read_text("utf-8"))
    ]


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_no_value_is_named_by_a_filler_word(folder: str) -> None:
    names = filler_names_below(folder)
    hints = "\n".join(f"{word}: {hint}" for word, hint in WORDS.items())
    assert not names, "\n".join([*names, "Name what each value holds:", hints])


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("for one in rows: pass", ["one"]),
        ("rows = [one_row for one_row in table]", ["one_row"]),
        (
            "def told(given, *more, rest=1, **known): pass",
            ["told", "given", "more", "rest", "known"],
        ),
        ("class Lake:\n    def judged_again(self): self._kept = 1", ["judged_again", "_kept"]),
        ("import kept as kept_state", ["kept_state"]),
        ("KNOWN: int = 1", ["KNOWN"]),
        ("try: pass\nexcept OSError as found: pass", ["found"]),
        ("match row:\n    case [first, *rest]: pass", ["rest"]),
        ("def test_no_row_is_told_again(): pass", []),
        ("import kept\nrow['told'] = call(kept.said, given=1)", []),
        ("someone, phone, foundation, restored = unknown", []),
    ],
)
def test_filler_words_are_found_in_every_kind_of_name(source: str, names: list[str]) -> None:
    assert sorted(name for _, name in filler_names(source)) == sorted(names)
