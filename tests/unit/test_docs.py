"""What the docs say is what the files say: parameters, alarms, commands, links; and the example queries run."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from local.athena import Athena
from local.template import ROOT, Template
from local.worker import load_job

DOCS = sorted((ROOT / "docs").glob("*.md"))


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_every_parameter_is_described_with_its_default() -> None:
    described = dict(
        re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|empty) \|", text("parameters.md"), re.MULTILINE)
    )
    declared = Template.load().document["Parameters"]
    assert described == {name: str(parameter["Default"]) for name, parameter in declared.items()}


def test_the_runbook_has_every_alarm() -> None:
    alarms = {
        properties["AlarmName"].removeprefix("delta-lake-prod-")
        for _, properties in Template.load().of_type("AWS::CloudWatch::Alarm")
    }
    headings = {
        name
        for line in re.findall(r"^### (.*)$", text("runbook.md"), re.MULTILINE)
        for name in line.split(", ")
    }
    assert headings == alarms


def test_the_runbook_has_every_subject_of_a_message() -> None:
    subjects = set(
        re.findall(
            r'"Subject": "([^"]+)"', (ROOT / "stepfunctions" / "delta-lake.json").read_text("utf-8")
        )
    )
    assert subjects <= set(re.findall(r"^\| ([^|*]+?) \|", text("runbook.md"), re.MULTILINE))


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md"], ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    targets = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text("utf-8"))
        if "://" not in target
    ]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert (
        set(re.findall(r"(?:`|^    )make ([a-z][\w-]*)", path.read_text("utf-8"), re.MULTILINE))
        <= targets
    )


def queries() -> list[str]:
    """The example queries of the page about Athena."""
    section = text("athena.md").partition("## Queries to start with")[2].partition("\n## ")[0]
    lines = [
        line.strip()
        for line in section.splitlines()
        if line.startswith("    ") and not line.strip().startswith("--")
    ]
    return [query.strip() for query in " ".join(lines).split(";") if query.strip()]


TYPES = {
    "STRING": pa.string(),
    "BIGINT": pa.int64(),
    "INT": pa.int32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "ARRAY<STRING>": pa.list_(pa.string()),
    "MAP<STRING, STRING>": pa.map_(pa.string(), pa.string()),
    "MAP<STRING, BIGINT>": pa.map_(pa.string(), pa.int64()),
}


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    """All tables as the job declares them, without a row."""
    job, folder = load_job(), tmp_path_factory.mktemp("lake")
    declared = {table.name: table.ddl for table in job.TABLES} | {
        "rejected_records": job.REJECTED_DDL,
        "ingested_files": job.LEDGER_DDL,
        "etl_runs": job.RUNS_DDL,
    }
    for name, ddl in declared.items():
        columns = re.findall(r"`?(\w+)`? ((?:MAP|ARRAY)<[^>]*>|\w+)", ddl)
        write_deltalake(
            str(folder / name),
            pa.schema([(column, TYPES[kind]) for column, kind in columns]).empty_table(),
        )
    return Athena({name: str(folder / name) for name in declared})


@pytest.mark.parametrize("query", queries(), ids=lambda query: query[:40])
def test_every_example_query_runs_on_the_tables_as_the_job_declares_them(
    query: str, empty_lake: Athena
) -> None:
    assert empty_lake.query(query).text_rows() == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [path.name for path in DOCS if f"(docs/{path.name})" not in readme] == []


def test_what_the_page_on_extending_declares_the_job_takes() -> None:
    job = load_job()
    blocks = re.findall(r"(?:^    .+\n)+", text("extending.md"), re.MULTILINE)
    declared = dict(vars(job))
    found = [eval(re.sub(r"^\w+ = ", "", block.strip()), declared) for block in blocks]
    kinds = (job.Rule, job.Column, job.Table, job.Parent)
    rule, column, table, parent = [one[0] if isinstance(one, tuple) else one for one in found]
    assert tuple(type(one) for one in (rule, column, table, parent)) == kinds
    assert column.type in job.PARSERS and table.key in table.column_names
    assert parent.dataset == table.dataset and parent.column in job.PRODUCTS.column_names
