"""docs/architecture.md says what the job says: its steps, commits, internal columns and names."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
SCRIPT = (ROOT / "src" / "glue_etl.py").read_text("utf-8")
STEPS = ["discover", "stage", "resolve", "publish", "finalize"]


def section(title: str) -> str:
    """The text of the page below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """The first cells of a section's table, where they are code."""
    return re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)


def described_columns() -> dict[str, tuple[str, str]]:
    """Column -> type and step, as the page has them."""
    rows = re.findall(r"^\| `(_\w+)` \| (\w+) \| (\w+) \|", section("Internal columns"), re.M)
    return {name: (kind, step) for name, kind, step in rows}


def declared_columns() -> dict[str, tuple[str, str]]:
    """Column -> type and step, as the script's glossary has them."""
    rows = re.findall(r"^#   (_\w+) +([A-Z]+) +(resolve: )?", SCRIPT, re.MULTILINE)
    return {name: (kind, "resolve" if step else "stage") for name, kind, step in rows}


def test_the_glossary_has_the_columns_of_the_job_and_no_others() -> None:
    declared = declared_columns()
    assert {step for _, step in declared.values()} == {"stage", "resolve"}
    assert described_columns() == declared


def test_every_column_of_the_glossary_is_used_by_the_job() -> None:
    code = re.sub(r"^#.*$", "", SCRIPT, flags=re.MULTILINE)
    unused = [name for name in described_columns() if not re.search(rf"\b{name}\b", code)]
    assert unused == []


def test_the_drawing_has_the_steps_in_the_order_in_which_the_job_calls_them() -> None:
    drawn = re.findall(r'[\["](\d) (\w+)', section("Data flow"))
    assert drawn == [(str(number), step) for number, step in enumerate(STEPS, 1)]
    run = SCRIPT.partition("\ndef run(")[2].partition("\ndef ")[0]
    assert re.findall(rf"\b({'|'.join(STEPS)})\(", run) == STEPS


def test_the_commits_are_drawn_and_explained_in_the_order_in_which_they_are_made() -> None:
    names = re.findall(r'^    name="(\w+)"', SCRIPT, re.MULTILINE)
    commits = ["rejected_records", *names, "rejected_records", "ingested_files", "etl_runs"]
    assert first_cells("The commit points") == commits
    drawing = section("Data flow")
    assert re.findall(r"commit \d: (\w+)", drawing) == commits
    arrows = [re.findall(r"c\d", line) for line in drawing.splitlines() if "c1 -->" in line]
    assert arrows == [[f"c{number}" for number in range(1, len(names) + 3)]]


def test_what_the_page_names_to_change_is_there() -> None:
    named = re.findall(r"`([^`]+)`", section("Where to change what"))
    lost = [
        name
        for name in named
        if not name.startswith("make ")
        and not (ROOT / name).exists()
        and not re.search(rf"^(?:def |class )?(?:\w+, )*{name}\b", SCRIPT, re.MULTILINE)
    ]
    assert lost == []


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert re.findall(r"^- \[\d+\]\(decisions/(\S+)\)", section("Decisions"), re.MULTILINE) == [
        page.name for page in pages
    ]
    for page in pages:
        text = page.read_text("utf-8")
        links = re.findall(r"\]\(([^)#\s]+)\)", text)
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name
        parts = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
        assert [part.rstrip(".") for part in parts] == [
            "Context",
            "Decision",
            "Consequences",
            "What would make us change it",
        ], page.name
