"""What the docs say is what the files say: parameters, alarms, commands, links; and the example
queries run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from deltalake import write_deltalake

import glue_etl as etl
from client.template import ROOT, Template
from local.athena import Athena
from tests.arrow import schema_of

DOCS = sorted((ROOT / "docs").glob("*.md"))


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_every_parameter_is_described_with_its_default() -> None:
    described = dict(
        re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|empty) \|", text("parameters.md"), re.MULTILINE)
    )
    declared = Template.load().document["Parameters"]
    assert described == {name: str(parameter["Default"]) for name, parameter in declared.items()}


def test_every_column_is_described_as_it_is_declared() -> None:
    row = r"^\| `(\w+)` \| `(\w+)` \| [\w ]+ \| ?(yes)? \| (.*) \|$"
    described = re.findall(row, text("rules.md"), re.MULTILINE)
    assert described == [
        (table.dataset, column.name, "yes" if column.required else "", column.meaning)
        for table in etl.TABLES
        for column in table.columns
    ]


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


@pytest.mark.parametrize(
    "path", [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name
)
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


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Athena:
    """All tables as the job declares them, without a row."""
    folder = tmp_path_factory.mktemp("lake")
    declared = {table.name: table.ddl for table in etl.TABLES} | etl.JOB_TABLES
    for name, ddl in declared.items():
        write_deltalake(str(folder / name), schema_of(ddl).empty_table())
    return Athena({name: str(folder / name) for name in declared})


@pytest.mark.parametrize("query", queries(), ids=lambda query: query[:40])
def test_every_example_query_runs_on_the_tables_as_the_job_declares_them(
    query: str, empty_lake: Athena
) -> None:
    assert empty_lake.query(query).text_rows() == []


def test_who_deploys_from_github_is_told_how_to_learn_the_subject() -> None:
    """Renamed, transferred and opted-in repositories have another subject than their age tells;
    GitHub's API says which."""
    call = "/actions/oidc/customization/sub"
    parameter = Template.load(ROOT / "bootstrap.yaml").document["Parameters"]["GitHubSubjects"]
    assert call in text("deploy.md") and call in parameter["Description"]


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [path.name for path in DOCS if f"(docs/{path.name})" not in readme] == []


def test_what_the_page_on_extending_declares_the_job_takes() -> None:
    blocks = re.findall(r"(?:^    .+\n)+", text("extending.md"), re.MULTILINE)
    declared = dict(vars(etl))
    blocks = [block.strip() for block in blocks if not block.strip().startswith(".venv")]
    examples = [eval(re.sub(r"^\w+ = ", "", block), declared) for block in blocks]
    kinds = (etl.Rule, etl.ColumnSpec, etl.Table, etl.Parent)
    rule, column, table, parent = [
        example[0] if isinstance(example, tuple) else example for example in examples
    ]
    assert tuple(type(example) for example in (rule, column, table, parent)) == kinds
    assert column.type in etl.PARSERS and table.key in table.column_names
    assert parent.dataset == table.dataset and parent.column in etl.PRODUCTS.column_names


def test_every_reason_of_rows_and_files_is_explained() -> None:
    """With what to do, but where the message itself says it."""
    reasons = text("rules.md").partition("## Reasons of rows")[2]
    explained = dict(re.findall(r"^- `([^`]+)`: (.*?)(?=^- |^## |^What|\Z)", reasons, re.M | re.S))
    assert explained.keys() == etl.ROW_REASONS.keys() | etl.FILE_REASONS.keys()
    assert {
        code
        for code, explanation in explained.items()
        if "To do:" not in " ".join(explanation.split())
    } <= {
        "orphan_product",
        "wrong_format",
    }
