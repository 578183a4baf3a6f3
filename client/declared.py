"""What the job declares, for all who speak of it: datasets, tables, outcomes and reasons.

The declarations themselves are at the top of `src/glue_etl.py`.
"""

from __future__ import annotations

import glue_etl

DATASETS = tuple(table.dataset for table in glue_etl.TABLES)
OUTCOMES = glue_etl.OUTCOMES
COUNTS = ("rows_read", "admitted", *OUTCOMES)  # rows_read + admitted = the sum of the outcomes


def table_of(dataset: str) -> glue_etl.Table:
    """Return the declared table of a dataset."""
    return next(table for table in glue_etl.TABLES if table.dataset == dataset)


def meaning_of(reason: str) -> str:
    """Return what a reason code says of a row or a file; empty for a rule of the shop."""
    meanings: dict[str, str] = {**glue_etl.FILE_REASONS, **glue_etl.ROW_REASONS}
    kind, _, column = reason.partition("_")
    if reason not in meanings and f"{kind}_<column>" in meanings:
        return meanings[f"{kind}_<column>"] + f" ({column})"
    return meanings.get(reason, "")


def column_of(reason: str) -> str | None:
    """Return the column that a reason blames, or None if it blames the row."""
    if reason == "date_mismatch":
        return "date"
    parents = {p.reason: p.column for table in glue_etl.TABLES for p in table.parents}
    kind, _, column = reason.partition("_")
    return parents.get(reason) or (column if kind in ("missing", "invalid", "ambiguous") else None)


def names_and_columns() -> dict[str, list[tuple[str, str]]]:
    """Return each table that can be queried, with its columns and their types."""
    tables = {
        table.name: [(column.name, column.type.lower()) for column in table.columns]
        for table in glue_etl.TABLES
    }
    return tables | {name: columns_of(ddl) for name, ddl in glue_etl.JOB_TABLES.items()}


def columns_of(ddl: str) -> list[tuple[str, str]]:
    """Return name and type of each column of a declaration; a comma within `<>` is part of a
    type."""
    parts, depth = [""], 0
    for character in ddl:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    pairs = [part.strip().partition(" ") for part in parts]
    return [(name, kind.lower()) for name, _, kind in pairs]
