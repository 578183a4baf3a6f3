"""Paths below the raw prefix: which dataset a file belongs to, and what is no delivery at all."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from rules.reasons import SetAside

DATASET_PATHS = {
    "order_items": re.compile(r"orders?[-_ ]?items?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
    "orders": re.compile(r"orders?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
    "products": re.compile(r"products?(?![a-z0-9]).*\.csv(\.gz)?", re.DOTALL),
}
MARKERS = re.compile(r"\.ds_store|thumbs\.db|desktop\.ini|\._.*|~\$.*|\.~lock\..*#", re.DOTALL)
UNFINISHED_ENDINGS = (".filepart", ".part", ".partial", ".tmp", ".crdownload", "._copying_")


def is_news(path: str, modified: datetime, now: datetime) -> bool:
    """Whether a run mentions a file: neither a tool's marker nor an upload that may still go on."""
    if is_unfinished(path):
        return now - modified > timedelta(days=1)
    return not is_marker(path)


def is_marker(path: str) -> bool:
    """Whether a file is what tools and desktops leave beside others."""
    name = path.lower().split("/")[-1]
    if name in ("", "_success") or MARKERS.fullmatch(name):
        return True
    return name.endswith(("_$folder$", ".crc"))


def is_unfinished(path: str) -> bool:
    """Whether a name is that of an upload in progress."""
    path = path.lower()
    return path.endswith(UNFINISHED_ENDINGS) or "_temporary" in path.split("/")


def is_usable(path: str) -> bool:
    """Whether a reader that folds paths finds this one, and whether it can be written down."""
    folded = {"", ".", ".."} & set(path.split("/"))
    return not folded and not any("\ud800" <= letter <= "\udfff" for letter in path)


def dataset_of(path: str) -> str | None:
    """Return the dataset that the start of a path names, if it ends with .csv or .csv.gz; None for
    a file whose name begins with . or _."""
    if path.split("/")[-1].startswith((".", "_")):
        return None
    named = (name for name, shape in DATASET_PATHS.items() if shape.fullmatch(path.lower()))
    return next(named, None)


def dataset_or_aside(path: str) -> str:
    """Return the dataset of a path that can be read and names one, else raise SetAside."""
    if not is_usable(path):
        raise SetAside("unusable_path")
    if is_unfinished(path):
        raise SetAside("unfinished_upload")
    dataset = dataset_of(path)
    if dataset is None:
        raise SetAside("unknown_dataset")
    return dataset
