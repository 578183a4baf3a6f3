"""The rules for files and rows in plain Python, without Spark: what the job would load, reject or
set aside.

It shares no line with the job. Tests give both the same files and compare the verdicts.
"""

from __future__ import annotations

from rules.reader import CheckedRow, Reading, open_file
from rules.reasons import SetAside

__all__ = ["CheckedRow", "Reading", "SetAside", "open_file"]
