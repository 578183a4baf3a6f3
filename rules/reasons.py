"""Why a file is set aside as a whole, in the words of the manifest and the mail."""

from __future__ import annotations

FILE_REASONS = {
    "unusable_path": "Spark would read another object: rename it without //, /./, /../, in UTF-8",
    "unfinished_upload": "an upload that was not finished within a day: upload the file again",
    "unknown_dataset": "the path names no dataset: start it with products, orders or order_items "
    "and end it with .csv or .csv.gz",
    "empty_file": "the file contains no text",
    "no_header": "the first record names no column of the dataset, or a quote in it is broken",
    "missing_column": "columns are missing from the header",
    "duplicate_column": "the header names a column twice",
    "mixed_headers": "a second header has its columns in another order: split the file there",
    "mostly_rejected": "more rows are rejected than MaxRejectedPercent allows, so its format may "
    "have changed: fix it, or raise the limit, and upload it again",
    "keys_reused": "its keys belong to rows of other parents, which it would overwrite: give each "
    "row its own key, or upload it again and load it with --FORCE true",
    "utf16": "the file is UTF-16 or UTF-32: save it as UTF-8",
    "binary": "the file is not text",
    "wrong_format": "the file is not CSV",
    "truncated_gzip": "the gzip stream is truncated or damaged: compress and upload it again",
}
SHAPE_REASONS = {  # of rows whose fields cannot be laid on the header
    *("too_few_fields", "too_many_fields", "unclosed_quote", "invalid_utf8", "broken_line"),
    *("swallowed_row", "repeated_header", "control_character"),
}


class SetAside(Exception):
    """A file cannot be read as a whole.

    reason  a code of FILE_REASONS
    seen    what was seen in the file, if that helps
    """

    def __init__(self, reason: str, seen: str = "") -> None:
        super().__init__(reason)
        self.reason, self.seen = reason, seen

    @property
    def detail(self) -> str:
        """The reason in words, with what was seen."""
        return FILE_REASONS[self.reason] + (f" ({self.seen})" if self.seen else "")
