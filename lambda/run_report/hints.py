"""What a run's numbers suggest to look at, though nothing failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hints(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each number of the summary that an operator should see."""
    found = []
    for dataset, numbers in (summary.get("datasets") or {}).items():
        name = dataset.replace("_", " ")
        conflicting, moved = (int(numbers.get(key) or 0) for key in ("conflicting", "moved"))
        if conflicting:
            found.append(
                f"{conflicting:,} superseded {name} contradict a row of their own file with the "
                "same key and time: the file may join rows that are different things."
            )
        if moved:
            found.append(
                f"{moved:,} updated {name} belong to another order or product than before: keys "
                "may have been used again."
            )
    cut = int((summary.get("files") or {}).get("no_final_newline") or 0)
    if cut:
        found.append(
            f"{cut:,} loaded files end without a line end, as a file does whose upload was cut: "
            "compare their sizes with the exports."
        )
    return found
