"""Listed files before Spark: what each is, and what if it has gone or is not given out. And what a
failed run says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber
from moto import mock_aws

import glue_etl as etl
from tests.corpus.cases import NO_NEWS_PATHS, UNFINISHED_PATHS
from tests.corpus.cases import PRODUCTS as HEADER

PRODUCTS = b"product_id,department_id,department,product_name\n1,2,Food,Tea\n"
NAMES = tuple(HEADER.split(","))
NOW = datetime(2025, 5, 1, 12, tzinfo=UTC)
BLOCK = 1 << 16


class FakeStore:
    """One object of `size` bytes, given out in blocks; `blocks` counts how many were asked for."""

    def __init__(self, *blocks: bytes, times: int = 1) -> None:
        self.content, self.times, self.blocks = blocks, times, 0
        self.size = sum(map(len, blocks)) * times

    def chunks(self, path: str, etag: str = "", listed: bool = True) -> Iterator[bytes]:
        for _ in range(self.times):
            for block in self.content:
                self.blocks += 1
                yield block


class ClosedStore(FakeStore):
    def chunks(self, path: str, etag: str = "", listed: bool = True) -> Iterator[bytes]:
        raise PermissionError(13, "Permission denied", path)
        yield b""


def stored(path: str, size: int = 1, age: timedelta = timedelta(0)) -> Any:
    return etl.StoredObject(path, "etag", size, NOW - age)


def looked_at(*blocks: bytes, path: str = "products/x.csv", times: int = 1) -> Any:
    """What the job says of a file of these bytes."""
    store = FakeStore(*blocks, times=times)
    raw = etl.inspect(store, stored(path, store.size))
    assert raw is not None
    return raw


# ---- what is worth a look
@pytest.mark.parametrize("path", UNFINISHED_PATHS)
def test_an_unfinished_upload_is_left_alone_for_a_day(path: str) -> None:
    assert not etl.is_delivery(stored(path), NOW)
    assert not etl.is_delivery(stored(path, age=timedelta(hours=23, minutes=59)), NOW)
    assert etl.is_delivery(stored(path, age=timedelta(hours=24, minutes=1)), NOW)


@pytest.mark.parametrize("path", UNFINISHED_PATHS)
def test_an_upload_not_finished_within_a_day_is_set_aside(path: str) -> None:
    assert looked_at(PRODUCTS, path=path).reason == "unfinished_upload"


@pytest.mark.parametrize("path", [*NO_NEWS_PATHS, "orders/", "orders/2025/", ""])
def test_what_tools_leave_behind_is_no_delivery(path: str) -> None:
    assert not etl.is_delivery(stored(path, age=timedelta(days=9)), NOW)


@pytest.mark.parametrize(
    "path",
    ["orders/x.csv", "orders/success.csv", "orders/_success.csv", "readme.txt", "orders/part.csv"],
)
def test_all_else_is_a_delivery(path: str) -> None:
    assert etl.is_delivery(stored(path), NOW)


@pytest.mark.parametrize(
    ("path", "dataset"),
    [
        ("orders.csv", "orders"),
        ("ORDERS/Capitals.CSV", "orders"),
        ("orders_2025-04.csv.gz", "orders"),
        ("order_items/2025/04/x.csv", "order_items"),
        ("products/\u3000 100%.csv", "products"),
        ("orders/a\nb.csv", "orders"),
        ("ordersheet.csv", None),
        ("orders/x.csv\n", None),
        ("orders/x.csv.zip", None),
        ("orders/_x.csv", None),
        ("orders/.x.csv", None),
        ("old/orders/x.csv", None),
    ],
)
def test_the_path_tells_the_dataset(path: str, dataset: str | None) -> None:
    assert etl.dataset_of(path) == dataset


@pytest.mark.parametrize(
    "path",
    [
        "orders//dup.csv",
        "/orders/dup.csv",
        "orders/./dup.csv",
        "./orders/dup.csv",
        "orders/sub/../dup.csv",
        "orders/../orders/dup.csv",
        "orders/caf\udce9.csv",
        "stock//x.txt",
    ],
)
def test_a_key_that_would_be_read_as_another_is_set_aside_unread(path: str) -> None:
    store = FakeStore(PRODUCTS)
    raw = etl.inspect(store, stored(path))
    assert (raw.outcome, raw.reason, store.blocks) == ("set_aside", "unusable_path", 0)


@pytest.mark.parametrize("path", ["orders/..dup.csv", "orders/a..b/x.csv", "orders/.../x.csv"])
def test_dots_that_are_no_folder_are_usable(path: str) -> None:
    assert looked_at(PRODUCTS, path=path).reason != "unusable_path"


# ---- headers
@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        "\ufeff" + HEADER,
        "\ufeff\ufeff" + HEADER,
        HEADER.upper(),
        HEADER.replace(",", " , "),
        ",".join(f'"{name}"' for name in NAMES),
        '\ufeff"' + '" , "'.join(NAMES) + '"',
        "\n \r\n" + HEADER,
        ",,,\n" + HEADER,
        "sep=,\n" + HEADER,
        "sep=,\r" + HEADER,
        "\ufeffSEP=,\r\n" + HEADER,
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_a_header_is_known_by_its_names(text: str, end: str) -> None:
    raw = looked_at((text + end).encode())
    assert (raw.outcome, raw.layout.names, raw.layout.delimiter) == ("loaded", NAMES, ",")


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_finds_the_columns(sign: str) -> None:
    row = sign.join(["1", "2", "a;b|c\td" if sign == "," else "Food", "Tea"])
    raw = looked_at(f"{HEADER.replace(',', sign)}{sign}a:b\n{row}{sign}\n".encode())
    assert (raw.outcome, raw.layout.delimiter) == ("loaded", sign)
    assert raw.layout.names == (*NAMES, "a:b")
    assert raw.ignored_columns == ("a:b",)


def test_the_header_is_the_first_record_and_not_the_first_line() -> None:
    text = f'"Note\n(internal)",{HEADER}\nx,1,2,Food,Tea\n'
    layout = etl.read_header(text, ",", etl.PRODUCTS)
    assert layout.names == ("note\n(internal)", *NAMES)
    assert layout.line == f'"Note\n(internal)",{HEADER}'
    assert looked_at(text.encode()).ignored_columns == ("note\n(internal)",)


def test_a_column_whose_name_is_latin_1_is_ignored() -> None:
    raw = looked_at(f"{HEADER},größe\n".encode("latin-1"))
    assert (raw.outcome, len(raw.ignored_columns)) == ("loaded", 1)


def test_one_field_more_than_names_is_allowed_where_it_is_empty_in_every_row() -> None:
    for rows, wide in (
        (["1,2,Food,Tea,", '2,2,"a,b",Tea, '], True),
        (["1,2,Food,Tea,", "2,2,Food,Tea"], False),
        (["1,2,Food,Tea,x"], False),
        (["1,2,Food,Tea,,"], False),
        ([], False),
    ):
        raw = looked_at("\n".join([HEADER, *rows, ""]).encode())
        assert (len(raw.layout.names) == 5) == wide, rows
        assert raw.ignored_columns == ()


OTHER_FORMATS = (
    (
        b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml" + b"\0" * 90 + b"xl/book",
        "Excel workbook",
    ),
    (b"PK\x03\x04" + b"\0" * 26 + b"mimetypeapplication/vnd.oasis.opendocument", "OpenDocument"),
    (b"PK\x03\x04" + b"\0" * 26 + b"orders.csvPK", "zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
    (b"%PDF-1.7\n", "PDF"),
    (b"<!DOCTYPE html>\n<html>", "HTML"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "HTML or XML"),
    (gzip.compress(gzip.compress(b"x" * 100, mtime=0), mtime=0), "a gzip file within"),
    (gzip.compress(b"orders.csv" + b"\0" * 247 + b"ustar\x0000", mtime=0), "tar archive"),
)


@pytest.mark.parametrize(
    ("content", "reason", "hint"),
    [
        (b"", "empty_file", ""),
        (b"\xef\xbb\xbf\r\n \t\n", "empty_file", ""),
        (HEADER.replace(",", ":").encode(), "no_header", "separated by ':'"),
        (b"sku,stock\n1,2\n", "no_header", "sku,stock"),
        (HEADER.replace(",", ',"').encode(), "no_header", "a broken quote"),
        (b"product_id,department\n", "missing_column", "department_id, product_name"),
        (f"{HEADER},Product_ID\n".encode(), "duplicate_column", "product_id"),
        (HEADER.encode("utf-16"), "utf16", "UTF-8"),
        (HEADER.encode("utf-16-le"), "utf16", "UTF-8"),
        (HEADER.encode("utf-32"), "utf16", "UTF-8"),
        (
            b"product_id,dept_id,department,product_name\n",
            "missing_column",
            "did you mean 'dept_id'?",
        ),
        (b"1,2,Food,Tea\n" + PRODUCTS, "no_header", "rows stand above it"),
        *[(begin, "wrong_format", what) for begin, what in OTHER_FORMATS],
    ],
)
def test_a_file_that_stays_refused_says_what_was_found(
    content: bytes, reason: str, hint: str
) -> None:
    raw = looked_at(content)
    assert (raw.outcome, raw.reason) == ("set_aside", reason)
    assert "products/x.csv" in raw.detail and hint in raw.detail
    assert len(raw.detail) <= 500


@pytest.mark.parametrize("zeros", [10, 150, 100_000])
def test_zeros_behind_a_header_are_a_row_s_fault_and_not_the_file_s(zeros: int) -> None:
    assert looked_at(PRODUCTS + b"\0" * zeros).outcome == "loaded"


# ---- files without an end
@pytest.mark.parametrize("block", [b"x" * BLOCK, b'"' + b"x" * BLOCK, b'a,"' * (BLOCK // 3)])
def test_a_line_of_a_gigabyte_is_read_once_and_its_head_is_kept(block: bytes) -> None:
    store = FakeStore(block, times=1 << 12)
    raw = etl.inspect(store, stored("orders/endless.csv", size=store.size))
    assert (raw.outcome, raw.reason) == ("set_aside", "no_header")
    assert store.blocks == 1 << 12
    assert "64 kB" in raw.detail or len(raw.detail) <= 500


def test_a_good_header_before_a_line_of_a_gigabyte_is_found() -> None:
    store = FakeStore(PRODUCTS + b"x" * BLOCK, times=1 << 12)
    raw = etl.inspect(store, stored("products/endless.csv", size=store.size))
    assert (raw.outcome, store.blocks) == ("loaded", 1 << 12)


def test_blank_lines_of_a_gigabyte_are_not_kept() -> None:
    store = FakeStore(b"\r\n \t" * (BLOCK // 4), times=1000)
    raw = etl.inspect(store, stored("orders/blank.csv", size=store.size))
    assert (raw.reason, store.blocks) == ("empty_file", 1000)


def test_the_digest_is_that_of_all_bytes_and_no_name_changes_it() -> None:
    digest = hashlib.sha256(PRODUCTS).hexdigest()
    assert looked_at(PRODUCTS).digest == digest
    assert looked_at(PRODUCTS[:30], PRODUCTS[30:], path="products (1).csv").digest == digest
    packed = looked_at(PACKED, path="products.csv.gz")
    assert packed.digest == hashlib.sha256(PACKED).hexdigest()
    assert looked_at(PACKED[:20], path="products.csv.gz").digest  # of a damaged file as well


@pytest.mark.parametrize("read", [PRODUCTS[:-1], PRODUCTS + b"1,2,Food,Tea\n"])
def test_a_file_of_another_size_than_listed_has_changed(read: bytes) -> None:
    raw = etl.inspect(FakeStore(read), stored("products/x.csv", size=len(PRODUCTS)))
    assert (raw.outcome, raw.destination) == ("changed", "raw")


def test_small_pieces_of_a_file_make_the_same_header() -> None:
    pieces = [bytes([byte]) for byte in b"\xef\xbb\xbf\n" + PRODUCTS]
    assert looked_at(*pieces).layout == looked_at(PRODUCTS).layout


# ---- gzip
def unpacked(*chunks: bytes) -> bytes:
    return b"".join(etl.FileText(iter(chunks)))


PACKED = gzip.compress(PRODUCTS, mtime=0)
ZEROS = b"\0" * 512


@pytest.mark.parametrize(
    "chunks",
    [
        (PACKED,),
        tuple(bytes([byte]) for byte in PACKED),
        (PACKED[:20], PACKED[20:]),
    ],
)
def test_a_packed_file_is_unpacked_however_it_comes(chunks: tuple[bytes, ...]) -> None:
    assert unpacked(*chunks) == PRODUCTS


@pytest.mark.parametrize("chunks", [(PACKED + ZEROS,), (PACKED, ZEROS), (PACKED, ZEROS, ZEROS)])
def test_zeros_behind_the_end_are_no_text_and_known_since_spark_fails_at_them(
    chunks: tuple[bytes, ...],
) -> None:
    text = etl.FileText(iter(chunks))
    assert b"".join(text) == PRODUCTS and text.padded
    assert looked_at(*chunks, path="products.csv.gz").repack


def test_a_packed_file_that_ends_in_zeros_of_its_own_is_not_padded() -> None:
    assert PACKED.endswith(b"\0")  # its size in four bytes
    assert not looked_at(PACKED, path="products.csv.gz").repack


def test_a_packed_file_may_have_several_parts() -> None:
    assert unpacked(PACKED + PACKED) == PRODUCTS * 2


@pytest.mark.parametrize("size", range(2, len(PACKED)))
def test_a_packed_file_that_was_cut_is_known_wherever_it_was_cut(size: int) -> None:
    with pytest.raises(zlib.error):
        unpacked(PACKED[:size])


@pytest.mark.parametrize("damaged", [PACKED + b"x", PACKED + ZEROS + b"x"])
def test_what_is_no_gzip_is_known(damaged: bytes) -> None:
    with pytest.raises(zlib.error):
        unpacked(damaged)


def test_a_damaged_packed_file_is_set_aside() -> None:
    path = "products/x.csv.gz"
    assert looked_at(PACKED, path=path).outcome == "loaded"
    for damaged in (PACKED[:-1], PACKED[:-8] + b"\0" * 8):
        assert looked_at(damaged, path=path).reason == "truncated_gzip"


def test_a_packed_line_of_a_gigabyte_is_not_kept() -> None:
    packed = gzip.compress(b"x" * (1 << 24), mtime=0)
    raw = looked_at(packed, path="products/x.csv.gz", times=64)
    assert (raw.outcome, raw.reason) == ("set_aside", "no_header")


# ---- what is not given out
def s3_storage(code: str, status: int) -> tuple[Any, Stubber]:
    """A bucket that answers the next GetObject with an error."""
    store = etl.storage("s3://raw/land/")
    stubber = Stubber(store.client)
    asked = {"Bucket": "raw", "Key": KEY, "IfMatch": '"etag"'}
    stubber.add_client_error("get_object", code, http_status_code=status, expected_params=asked)
    return store, stubber


KEY = "land/products/x.csv"


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
@pytest.mark.usefixtures("region")
def test_an_object_that_is_not_given_out_is_unreadable_and_named(code: str) -> None:
    store, stubber = s3_storage(code, 403)
    with stubber:
        raw = etl.inspect(store, stored("products/x.csv"))
    assert (raw.outcome, raw.reason, raw.destination) == ("unreadable", "unreadable", "raw")
    assert "products/x.csv" in raw.detail and code in raw.detail


@pytest.mark.parametrize(("code", "status"), [("InternalError", 500), ("NoSuchBucket", 404)])
@pytest.mark.usefixtures("region")
def test_an_error_that_is_not_the_object_s_fails_the_run(code: str, status: int) -> None:
    store, stubber = s3_storage(code, status)
    with stubber, pytest.raises(store.client.exceptions.ClientError, match=code):
        etl.inspect(store, stored("products/x.csv"))


@mock_aws
@pytest.mark.usefixtures("region")
def test_an_object_in_glacier_is_unreadable_and_the_others_are_not() -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw")
    s3.put_object(Bucket="raw", Key="land/products.csv", Body=PRODUCTS)
    s3.put_object(Bucket="raw", Key=KEY, Body=PRODUCTS, StorageClass="GLACIER")
    store = etl.storage("s3://raw/land/")
    outcomes = {
        raw_object.path: etl.inspect(store, raw_object).outcome for raw_object in store.list()
    }
    assert outcomes == {"products.csv": "loaded", "products/x.csv": "unreadable"}


def test_a_file_that_the_system_does_not_give_out_is_unreadable() -> None:
    raw = etl.inspect(ClosedStore(), stored("products/x.csv"))
    assert (raw.outcome, raw.destination) == ("unreadable", "raw")
    assert "Permission denied" in raw.detail


class CutBody:
    """A transfer that ends before its time, with the bytes that came until then."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def read(self, size: int) -> bytes:
        if not self.chunks:
            raise ReadTimeoutError(endpoint_url="s3", error="cut")
        return self.chunks.pop(0)

    def close(self) -> None:
        pass


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl.time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("region", "no_waiting")
def test_a_transfer_that_always_ends_early_leaves_the_file_unreadable() -> None:
    store = etl.storage("s3://raw/land/")
    asked: list[dict[str, Any]] = []

    def get_object(**request: Any) -> dict[str, Any]:
        asked.append(request)
        return {"Body": CutBody(), "ETag": '"etag"'}

    store.client = SimpleNamespace(get_object=get_object, exceptions=store.client.exceptions)
    raw = etl.inspect(store, stored("products/x.csv"))
    assert (raw.outcome, raw.destination) == ("unreadable", "raw")
    assert "ended the transfer early" in raw.detail and len(asked) == etl.S3_ATTEMPTS


@pytest.mark.usefixtures("region", "no_waiting")
def test_a_transfer_that_ends_early_goes_on_in_the_same_version() -> None:
    store = etl.storage("s3://raw/land/")
    content, asked = b"0123456789", []

    def get_object(**request: Any) -> dict[str, Any]:
        asked.append(request)
        start = int(request.get("Range", "bytes=0-")[6:-1])
        body = CutBody(content[start : start + 4]) if start < 8 else io.BytesIO(content[start:])
        return {"Body": body, "ETag": '"etag"'}

    store.client = SimpleNamespace(get_object=get_object, exceptions=store.client.exceptions)
    assert b"".join(store.chunks("x.csv")) == content
    assert [request.get("Range") for request in asked] == [None, "bytes=4-", "bytes=8-"]
    assert [request.get("IfMatch") for request in asked] == [None, '"etag"', '"etag"']


@mock_aws
@pytest.mark.usefixtures("region", "no_waiting")
def test_an_object_of_a_listing_is_asked_for_once_more() -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw")
    s3.put_object(Bucket="raw", Key=KEY, Body=PRODUCTS)
    store = etl.storage("s3://raw/land/")
    get, asked = store.client.get_object, []

    def get_object(**request: Any) -> Any:
        asked.append(request)
        return get(**{**request, "Key": "elsewhere"} if len(asked) == 1 else request)

    store.client.get_object = get_object
    assert b"".join(store.chunks("products/x.csv", "")) == PRODUCTS
    asked.clear()
    with pytest.raises(FileNotFoundError):
        store.read("products/x.csv")


@mock_aws
@pytest.mark.usefixtures("region")
def test_an_object_that_was_overwritten_after_the_listing_has_changed() -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw")
    s3.put_object(Bucket="raw", Key=KEY, Body=PRODUCTS)
    store = etl.storage("s3://raw/land/")
    (listed,) = store.list()
    s3.put_object(Bucket="raw", Key=KEY, Body=PRODUCTS.replace(b"Tea", b"Oil"))
    raw = etl.inspect(store, listed)
    assert (raw.outcome, raw.destination) == ("changed", "raw")


def test_what_was_unreadable_once_may_be_read_later() -> None:
    closed = etl.inspect(ClosedStore(), stored("products/x.csv"))
    opened = looked_at(PRODUCTS)
    assert closed.ledger_key != opened.ledger_key


def test_what_stays_unreadable_is_news_once() -> None:
    raw = etl.inspect(ClosedStore(), stored("products/x.csv"))
    assert etl.Discovered((raw,)).anything_new
    assert not etl.Discovered((replace(raw, first_path="products/x.csv"),)).anything_new


def test_a_file_that_changed_alone_is_no_news() -> None:
    assert not etl.Discovered((etl.changed(looked_at(PRODUCTS)),)).anything_new


# ---- a whole raw zone
def arguments_of(folder: Path) -> Any:
    names = {
        "RAW_PATH": "raw",
        "LAKEHOUSE_PATH": "lake",
        "REJECTED_PATH": "no",
        "RUNS_PATH": "runs",
    }
    paths = [part for name, path in names.items() for part in (f"--{name}", str(folder / path))]
    return etl.JobArguments.from_argv([*paths, "--RUN_ID", "run-1"])


def delivered(folder: Path, files: dict[bytes, bytes]) -> None:
    for name, content in files.items():
        path = os.fsencode(folder / "raw") + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(content)


def test_one_bad_file_is_one_file_s_outcome(tmp_path: Path) -> None:
    delivered(
        tmp_path,
        {
            b"products/good.csv": PRODUCTS,
            b"products/caf\xe9.csv": PRODUCTS,
            b"products/x.csv.filepart": PRODUCTS,
            b"products/_SUCCESS": b"",
            b"products/endless.csv": b"x" * 200_000,
            b"products/cut.csv.gz": PACKED[:20],
            b"\xff\xfe/x.csv": PRODUCTS,
        },
    )
    discovered = etl.discover(arguments_of(tmp_path))
    assert {raw.stored.path: raw.reason for raw in discovered.files} == {
        "products/good.csv": None,
        "products/caf\udce9.csv": "unusable_path",
        "products/endless.csv": "no_header",
        "products/cut.csv.gz": "truncated_gzip",
        "\udcff\udcfe/x.csv": "unusable_path",
    }
    assert [raw.stored.path for raw in discovered.to_load.values()] == ["products/good.csv"]


def test_a_name_that_is_no_utf_8_can_be_told_in_manifest_and_summary(tmp_path: Path) -> None:
    arguments = arguments_of(tmp_path)
    delivered(tmp_path, {b"products/caf\xe9.csv": PRODUCTS})
    files = etl.discover(arguments).files
    timed = etl.Timings(NOW)
    etl.write_summary(arguments, etl.summary_of(arguments, timed, files, "NOTHING_NEW"), files)
    lines = (tmp_path / "runs" / "run-1" / "manifest.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["unusable_path"]
    summary = json.loads((tmp_path / "runs" / "run-1" / "summary.json").read_text("utf-8"))
    assert summary["files"]["set_aside_by_reason"] == {"unusable_path": 1}


# ---- files that are bad as a whole
@pytest.mark.parametrize(
    ("rows", "rejected", "percent", "bad"),
    [
        (20, 10, 50, False),
        (20, 11, 50, True),
        (19, 19, 50, False),
        (0, 0, 0, False),
        (20, 1, 0, True),
        (20, 20, 99, True),
        (20, 20, 100, False),
        (3_000_000_000, 1_500_000_001, 50, True),
    ],
)
def test_a_file_is_mostly_rejected_by_more_than_a_share_of_twenty_rows(
    rows: int, rejected: int, percent: int, bad: bool
) -> None:
    assert etl.RowCounts(rows, rejected).mostly_rejected(percent) is bad


def judged_alone(raw: Any, counts: Any) -> Any:
    """What becomes of a file of which that much was read."""
    scratch = etl.Scratch(None, "", on_disk=False)
    read = etl.ReadDataset(etl.PRODUCTS, scratch, None, {0: counts}, (), False)
    return etl.validate_content(read, {0: raw}, 50)[0]


@pytest.mark.parametrize("rows", [0, 7])
def test_a_file_of_which_no_header_came_back_is_never_loaded(rows: int) -> None:
    raw = looked_at(PRODUCTS)
    judged = judged_alone(raw, etl.RowCounts(rows=rows))
    assert judged.outcome != "loaded" and judged.destination != "archive"
    assert raw.stored.path in judged.detail


def test_a_file_with_two_orders_of_columns_is_set_aside() -> None:
    judged = judged_alone(looked_at(PRODUCTS), etl.RowCounts(rows=2, headers=1, other_headers=1))
    assert (judged.outcome, judged.reason) == ("set_aside", "mixed_headers")


def test_a_twin_goes_where_the_first_goes() -> None:
    first = looked_at(PRODUCTS)
    twin = replace(first, outcome="duplicate", twin_of=first.stored.path)
    assert etl.follow_twin(twin, [first]) is twin
    for other in (etl.changed(first), etl.set_aside(first, "mostly_rejected")):
        followed = etl.follow_twin(twin, [other])
        assert (followed.outcome, followed.reason) == (other.outcome, other.reason)


# ---- a table's log
@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85"])
def test_a_key_with_a_sign_that_some_take_for_a_line_end_leaves_the_log_readable(
    tmp_path: Path, sign: str
) -> None:
    stats = json.dumps({"numRecords": 1, "minValues": {"id": f"a{sign}b"}}, ensure_ascii=False)
    actions = [{"commitInfo": {"operation": "WRITE"}}, {"add": {"path": "x", "stats": stats}}]
    lines = [json.dumps(action, ensure_ascii=False) + "\n" for action in actions]
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / f"{0:020d}.json").write_text("".join(lines), "utf-8")
    (commit,) = etl.DeltaLog(str(tmp_path)).commits(after=-1)
    assert (commit.version, commit.added) == (0, ("x",))


def test_only_the_end_of_a_long_log_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "_delta_log"
    log.mkdir()
    for version in range(295, 303):
        (log / f"{version:020d}.json").write_text(json.dumps({"commitInfo": {}}) + "\n")
    assert etl.DeltaLog(str(tmp_path)).latest() == 302
    (log / "_last_checkpoint").write_text('{"version":300,"size":9}')
    assert etl.DeltaLog(str(tmp_path)).latest() == 302
    assert [commit.version for commit in etl.DeltaLog(str(tmp_path)).commits(after=300)] == [
        301,
        302,
    ]
    for version in range(295, 303):
        (log / f"{version:020d}.json").unlink()
    assert etl.DeltaLog(str(tmp_path)).latest() == 300  # by its checkpoint alone


# ---- gone since the listing
def test_a_file_that_the_archive_took_after_the_listing_is_left_out_on_disk(tmp_path: Path) -> None:
    for name in ("products.csv", "products_2.csv"):
        (tmp_path / name).write_bytes(PRODUCTS)
    store = etl.storage(f"{tmp_path}/")
    listed = sorted(store.list(), key=lambda stored: stored.path)
    (tmp_path / "products.csv").unlink()
    assert etl.inspect(store, listed[0]) is None
    assert etl.inspect(store, listed[1]).outcome == "loaded"


@mock_aws
def test_a_file_that_the_archive_took_after_the_listing_is_left_out_on_s3() -> None:
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw")
    for name in ("products.csv", "products_2.csv"):
        s3.put_object(Bucket="raw", Key=f"land/{name}", Body=PRODUCTS)
    store = etl.storage("s3://raw/land/")
    listed = sorted(store.list(), key=lambda stored: stored.path)
    s3.delete_object(Bucket="raw", Key="land/products.csv")
    assert etl.inspect(store, listed[0]) is None
    assert etl.inspect(store, listed[1]).outcome == "loaded"


class JavaError:
    """An error as py4j shows it."""

    def __init__(self, name: str, message: str | None, cause: JavaError | None = None) -> None:
        self.name, self.message, self.cause = name, message, cause

    def getClass(self) -> SimpleNamespace:
        return SimpleNamespace(getName=lambda: self.name)

    def getMessage(self) -> str | None:
        return self.message

    def getCause(self) -> JavaError | None:
        return self.cause


def test_the_summary_names_the_first_cause_of_an_error_in_java() -> None:
    error = Exception(
        "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: ..."
    )
    error.java_exception = JavaError(
        "SparkException",
        "Task failed",
        JavaError("AccessDenied", "s3://lake/x: Forbidden\n\tat ..."),
    )
    assert etl.cause_of(error) == "AccessDenied: s3://lake/x: Forbidden"
    error.java_exception = JavaError("java.lang.NullPointerException", None)
    assert etl.cause_of(error) == "java.lang.NullPointerException: no message"
    assert etl.cause_of(etl.JobError("run again\nsoon")) == "JobError: run again"
    assert etl.cause_of(ValueError()) == "ValueError: no message"


FILE = "s3://lake/dwh/clean_orders/a.parquet"
READING = f"[FAILED_READ_FILE.NO_HINT] Encountered error while reading file {FILE}. SQLSTATE: KD001"


@pytest.mark.parametrize(
    ("name", "message", "cause"),
    [
        ("java.lang.RuntimeException", "footer is too large", f"damaged: {FILE} cannot be read ("),
        ("java.io.FileNotFoundException", f"No such file: {FILE}", "damaged: java.io.FileNot"),
        ("org.apache.http.ConnectionClosedException", "Premature end", "org.apache.http.Con"),
        ("java.nio.file.AccessDeniedException", "Forbidden", "java.nio.file.AccessDenied"),
        ("SparkException", "Checkpoint block rdd_7_0 not found!", "an executor was lost, and"),
    ],
)
def test_a_file_that_is_damaged_is_told_from_one_that_is_out_of_reach(
    name: str, message: str, cause: str
) -> None:
    error = Exception("An error occurred while calling o1.save.")
    error.java_exception = JavaError("SparkException", READING, JavaError(name, message))
    assert etl.cause_of(error).removeprefix("the lake is ").startswith(cause)


def test_a_scratch_file_that_is_gone_is_no_damage_of_the_lake() -> None:
    error = Exception("An error occurred while calling o1.save.")
    gone = "No such file or directory: s3://lake/glue-temp/run=a/candidate/part-0.snappy.parquet"
    error.java_exception = JavaError("java.io.FileNotFoundException", gone)
    assert etl.cause_of(error).startswith("scratch files of this run are gone: run again (")


@pytest.mark.parametrize(("path", "content"), [("x.csv", PACKED), ("x.csv.gz", PRODUCTS)])
def test_a_file_is_packed_if_its_bytes_say_so_whatever_its_name(path: str, content: bytes) -> None:
    raw = looked_at(content, path=f"products/{path}")
    assert (raw.outcome, raw.repack, raw.layout.names) == ("loaded", True, NAMES)


# ---- spellings
@pytest.mark.parametrize(
    "names",
    [
        "Product ID,department-id,Department,productName",
        "productId,departmentID,DEPARTMENT,PRODUCT_NAME ",
        "'product_id','department_id','department','product_name'",
    ],
)
def test_names_are_compared_by_their_letters_and_digits(names: str) -> None:
    assert looked_at(f"{names}\n1,2,Food,Tea\n".encode()).layout.names == NAMES


def test_a_name_that_is_spelled_in_two_ways_is_the_one_that_is_written_as_declared() -> None:
    raw = looked_at(f"Product ID,{HEADER}\n".encode())
    assert (raw.layout.names, raw.ignored_columns) == (("product id", *NAMES), ("product id",))
    raw = looked_at(f"Product ID,product-id,{HEADER.split(',', 1)[1]}\n".encode())
    assert raw.reason == "missing_column"


@pytest.mark.parametrize("path", ["order-items.csv", "orders_items/x.csv", "OrderItems_2025.csv"])
def test_a_dataset_is_known_in_other_spellings(path: str) -> None:
    assert etl.dataset_of(path) == "order_items"


@pytest.mark.parametrize("lines", [1, 20])
def test_lines_above_the_header_are_skipped_and_told(lines: int) -> None:
    above = "".join(f"# orders of shop {n}\n\n" for n in range(lines))
    raw = looked_at((above + HEADER + "\n1,2,Food,Tea\n").encode())
    assert (raw.outcome, raw.layout.names) == ("loaded", NAMES)
    assert f"{lines} lines above the header" in raw.detail


def test_rows_of_an_older_export_above_a_header_are_not_skipped() -> None:
    older = HEADER.rpartition(",")[0]
    raw = looked_at(f"{older}\n1,2,Food\n{HEADER}\n1,2,Food,Tea\n".encode())
    assert raw.reason == "missing_column"
    raw = looked_at(f"1,2,Food\n{HEADER}\n1,2,Food,Tea\n".encode())
    assert raw.reason == "no_header" and "rows stand above it" in raw.detail


def test_a_header_below_many_lines_is_none() -> None:
    raw = looked_at(("# a line\n" * 21 + HEADER + "\n").encode())
    assert raw.reason == "no_header"


@pytest.mark.parametrize(
    ("end", "cut"), [("", True), ("\n", False), ("\r", False), ("\r\n", False)]
)
def test_a_last_line_without_a_line_end_is_known(end: str, cut: bool) -> None:
    assert looked_at(f"{HEADER}\n1,2,Food,Tea{end}".encode()).cut is cut


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._x.csv", "Thumbs.db", "desktop.ini", "~$x.csv", ".~lock.x.csv#"],
)
def test_what_a_desktop_leaves_behind_is_no_delivery(name: str) -> None:
    now = datetime.now(UTC)
    assert not etl.is_delivery(stored(f"orders/{name}"), now)


# ---- what the rows in the head tell
@pytest.mark.parametrize(
    ("amounts", "points"),
    [
        (["12,50", "1.234"], False),
        (["12,50", "110.7", "1.234"], False),
        (["1.234", "1.000"], False),
        (["12.5", "1.234"], True),
        (["1234.5678"], True),
        ([], False),
    ],
)
def test_other_amounts_decide_what_a_point_means(amounts: list[str], points: bool) -> None:
    names = ";".join(column.name for column in etl.ORDERS.columns)
    rows = [f"1;S{n};u1;2025-04-01T10:00:00;{amount};" for n, amount in enumerate(amounts)]
    raw = looked_at("\n".join([names, *rows, ""]).encode(), path="orders/x.csv")
    assert raw.layout.points is points


@pytest.mark.parametrize(
    ("rows", "quote"),
    [
        (["'1','2','Food','Tea'", "'2','2','Food','O''Brien'"], "'"),
        (["'1','2','Food','Tea'", "2,2,Food,Tea"], '"'),
        (["'1',2,Food,'Tea'"], '"'),
        ([], '"'),
    ],
)
def test_single_quotes_are_quotes_only_around_every_value(rows: list[str], quote: str) -> None:
    raw = looked_at("\n".join([HEADER, *rows, ""]).encode())
    assert raw.layout.quote == quote


def test_a_column_may_have_further_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"order_id": ("Name",), "order_timestamp": ("Created at",), "total_amount": ("Total",)}
    columns = tuple(
        replace(column, also=names.get(column.name, ())) for column in etl.ORDERS.columns
    )
    tables = (etl.PRODUCTS, replace(etl.ORDERS, columns=columns), etl.ORDER_ITEMS)
    shopify = b"Order num,name,User ID,Created At,TOTAL,date\n1,#1001,u1,2025-04-01 10:00:00,5,\n"
    assert looked_at(shopify, path="orders.csv").reason == "missing_column"
    monkeypatch.setattr(etl, "TABLES", tables)
    raw = looked_at(shopify, path="orders.csv")
    assert (raw.outcome, raw.layout.names) == ("loaded", tuple(etl.ORDERS.column_names))
    assert raw.ignored_columns == ()
