"""The run report: one HTML page about a run, written next to its summary.json as report.html, and
what the run cost as cost.json.

The page is for the operator who got the mail: did it work, how many rows went where, why were rows
rejected, which files were read, what do the tables hold now, and what did the execution do. It
needs nothing but itself: no script, no font, no image from elsewhere. Whatever comes from a file or
an error is escaped.

The event is {"run_id", "execution_arn"}; LAKE_BUCKET and RUNS_PREFIX say where the run's records
lie. With "only": "cost" in it, nothing is written, and the answer is the line about the cost for
the run's message. What the page tells in numbers goes into the log as metrics of the environment
named by ENVIRONMENT.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

sys.path.append(
    str(Path(__file__).parent)
)  # for where the file is loaded by its path, not from its folder
import cost
import metrics
import run_graph
from hints import hints

LOG = logging.getLogger(__name__)
DATASETS = ("products", "orders", "order_items")
OUTCOMES = ("inserted", "updated", "unchanged", "superseded", "rejected", "parked")
MEANING = {
    "inserted": "a key that the table did not hold",
    "updated": "a newer version of a key won",
    "unchanged": "the table holds the same values",
    "superseded": "another version of the key won",
    "rejected": "breaks a rule; kept whole in rejected_records",
    "parked": "waits for its order or product",
}
FILES_SHOWN, EVENTS_READ = 500, 5000
NO_COST = "cost: not known, since the history of the execution cannot be read"

CSS = """
:root{--page:#f6f8fa;--card:#fff;--ink:#16202c;--soft:#566575;--line:#dfe5eb;--accent:#0b6bcb;
--inserted:#1d8a3c;--updated:#0b6bcb;--unchanged:#7b8794;--superseded:#7c4dbd;--rejected:#c9341c;--parked:#b26a00;
--ok:#176b2f;--okbg:#e3f4e6;--bad:#a52912;--badbg:#fde8e3;--calm:#44546a;--calmbg:#e8edf3}
@media (prefers-color-scheme:dark){:root{--page:#0d1319;--card:#151d26;--ink:#e8eef4;--soft:#9db0c2;--line:#2a3643;
--accent:#6db7ff;
--inserted:#54c172;--updated:#5aa9f5;--unchanged:#8d9aa8;--superseded:#ab85e6;--rejected:#f4755c;--parked:#e8a33d;
--ok:#8fdca3;--okbg:#143020;--bad:#ff9c86;--badbg:#3b1913;--calm:#b9c7d6;--calmbg:#222e3b}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 Inter,"Segoe UI",Roboto,"Helvetica Neue",
Arial,"Liberation Sans",sans-serif}main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:24px;margin:0 0 2px;overflow-wrap:anywhere}h2{font-size:18px;margin:0 0 12px}h3{font-size:15px;
margin:18px 0 6px}
p{margin:0 0 10px}.soft{color:var(--soft)}section{background:var(--card);border:1px solid var(--line);
border-radius:12px;
padding:20px 22px;margin:16px 0}.badge{display:inline-block;padding:3px 12px;border-radius:99px;font-weight:700;
font-size:13px}
.good{background:var(--okbg);color:var(--ok)}.bad{background:var(--badbg);color:var(--bad)}
.calm{background:var(--calmbg);color:var(--calm)}
.error{background:var(--badbg);color:var(--bad);border-radius:8px;padding:12px 14px;white-space:pre-wrap;
overflow-wrap:anywhere}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:10px;margin:18px 0 0;padding:0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;
border-top:4px solid var(--c,var(--line))}
.figures dt{font-size:12.5px;color:var(--soft)}.figures dd{margin:0;font-size:22px;font-weight:700;
font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px}caption{text-align:left;
color:var(--soft);padding-bottom:6px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}th{font-weight:600;
white-space:nowrap}
thead th{color:var(--soft);font-size:12.5px}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}pre{margin:4px 0;
white-space:pre-wrap;
overflow-wrap:anywhere;background:var(--page);border:1px solid var(--line);border-radius:6px;padding:6px 9px}
.path{overflow-wrap:anywhere}summary{cursor:pointer;padding:6px 0;font-weight:600}
summary:focus-visible{outline:2px solid var(--accent)}
.wide td.w{width:45%;vertical-align:middle}
.bar{display:block;height:12px;border-radius:3px;background:var(--c,var(--accent));min-width:2px}
.flow{width:100%;height:auto;max-height:560px}.flow text{fill:var(--ink);font-size:13px}.flow .s{fill:var(--soft);
font-size:12px}
.flow .b{font-weight:700}.graph svg{display:block;margin:0 auto;max-width:100%;height:auto}
@media (max-width:640px){.graph svg{max-width:none}section{padding:16px 14px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


# --------------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------------
def render(
    summary: Mapping[str, Any],
    manifest: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]] | None,
    asl: Mapping[str, Any] | None,
    reject_examples: Sequence[Mapping[str, Any]] | None,
    spent: Mapping[str, Any] | None = None,
) -> str:
    """The page of one run. `history` are the events of GetExecutionHistory, `asl` the state
    machine, `spent` what it cost; all may be missing.

    `reject_examples`: {"dataset", "reason", "file_path", "line", "raw"}, some for each reason.
    """
    runs = run_graph.runs_of(history)
    run_id = str(summary.get("run_id", "unknown"))
    datasets = _datasets(summary)
    sections = [
        _operation(summary.get("operation") or {}),
        _rows(datasets),
        _rejects(datasets, reject_examples or [], run_id),
        _files({} if summary.get("operation") else summary.get("files") or {}, manifest),
        _tables(summary.get("tables") or {}),
        _timings(summary.get("timings") or {}),
        _cost(spent),
        _execution(asl, runs),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        "'unsafe-inline'\">"
        f"<title>Run {escape(run_id)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f"{_head(summary, run_id, runs)}\n{''.join(s for s in sections if s)}</main></body></html>\n"
    )


def _head(summary: Mapping[str, Any], run_id: str, runs: Mapping[str, run_graph.StateRun]) -> str:
    text, kind = outcome(summary, runs)
    started, finished = _when(summary.get("started_at")), _when(summary.get("finished_at"))
    times = f"{started:%d %B %Y, %H:%M:%S} UTC" if started else ""
    if started and finished:
        times += f" · the job took {run_graph.seconds_text((finished - started).total_seconds())}"
    causes = [str(summary["error"])] if summary.get("error") else []
    told = causes[0] if causes else None  # Glue repeats the job's own words in a page of JSON
    causes += (
        [
            f"{name}: {run.error}"
            for name, run in runs.items()
            if run.error and not (told and told in run.error)
        ]
        if kind == "bad"
        else []
    )
    error = f'<p class="error" role="alert">{escape(chr(10).join(causes))}</p>' if causes else ""
    if "HandleValidationFailure" in runs:
        error += _offer("To take this run back, look first:", f"rollback --undo {run_id} --dry-run")
    operation = summary.get("operation") or {}
    datasets = _datasets(summary).values()
    totals = {
        k: sum(_int(d.get(k)) for d in datasets) for k in ("rows_read", "admitted", *OUTCOMES)
    }
    files = _int((summary.get("files") or {}).get("listed"))
    figures = "" if operation else _figure("files", files)
    figures += _figure("rows read", totals["rows_read"])
    figures += "".join(_figure(k, totals[k], k) for k in OUTCOMES)
    figures += _figure("admitted from parking", totals["admitted"]) if totals["admitted"] else ""
    figures = f'<dl class="figures">{figures}</dl>' if datasets else ""
    look_at = "".join(f"<p>{escape(sentence)}</p>" for sentence in hints(summary))
    return (
        f'<header><p class="soft">{escape(_kind(operation))}</p><h1>{escape(run_id)}</h1>'
        f'<p><span class="badge {kind}">{escape(text)}</span> <span '
        f'class="soft">{escape(times)}</span></p>'
        f"{error}{figures}{look_at}</header>"
    )


def _kind(operation: Mapping[str, Any]) -> str:
    """What the run was: a load, or who asked for which operation."""
    if not operation:
        return "Run of the lakehouse"
    only = ", a dry run: nothing was changed" if operation.get("dry_run") is True else ""
    return f"Operation {operation.get('name')}, by {operation.get('author')}{only}"


def _datasets(summary: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The rows of a load or a replay; no other operation reads any."""
    name = (summary.get("operation") or {}).get("name")
    return {} if name not in (None, "replay") else summary.get("datasets") or {}


def _offer(what: str, words: str) -> str:
    """An operation that may help, as it is typed on AWS and on one machine."""
    environment = os.environ.get("ENVIRONMENT", "prod")
    typed = f'make operate ENV={environment} ARGS="{words}"\npython -m local {words}'
    return f"<h3>{escape(what)}</h3><pre>{escape(typed)}</pre>"


def _operation(operation: Mapping[str, Any]) -> str:
    """What an operation says of itself, and its plan and effect."""
    if not operation:
        return ""
    parts = [
        f"<h3>{name}</h3>{_object(operation[name])}"
        for name in ("plan", "effect")
        if isinstance(operation.get(name), Mapping) and operation[name]
    ]
    return _section("The operation", f"<p>{escape(str(operation.get('text')))}</p>{''.join(parts)}")


def _object(value: Mapping[str, Any]) -> str:
    """Numbers and words by name; objects by name as rows of a table, and so the objects in `tables`
    or another one that holds nothing but objects."""
    objects = {name: inner for name, inner in value.items() if isinstance(inner, Mapping) and inner}
    nested = {
        name: inner
        for name, inner in objects.items()
        if all(isinstance(one, Mapping) for one in inner.values())
    }
    rows = {name: inner for name, inner in objects.items() if name not in nested}
    simple = "".join(
        _row([escape(name), _value(inner)], [])
        for name, inner in value.items()
        if name not in objects
    )
    return (
        (_table(["", ""], simple, "", []) if simple else "")
        + (_by_name("", rows) if rows else "")
        + "".join(_by_name(name, inner) for name, inner in nested.items())
    )


def _by_name(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Objects with the same fields, or others, as a table."""
    names = list(dict.fromkeys(str(name) for row in rows.values() for name in row))
    body = "".join(
        _row([f"<code>{escape(name)}</code>", *(_value(row.get(column)) for column in names)], [])
        for name, row in rows.items()
    )
    return _table([title, *(name.replace("_", " ") for name in names)], body, "", [])


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    several = isinstance(value, list) and all(isinstance(one, (str, int)) for one in value)
    words = ", ".join(map(str, value)) if several else value
    text = "" if words is None else words if isinstance(words, str) else json.dumps(words)
    return f'<span class="path">{escape(text)}</span>'


def outcome(summary: Mapping[str, Any], runs: Mapping[str, run_graph.StateRun]) -> tuple[str, str]:
    """Words and colour for how the run ended: of the execution where it is known, of the job
    otherwise."""
    job = "the operation" if summary.get("operation") else "the job"
    handlers = [name for name in runs if name.startswith("Handle") and name.endswith("Failure")]
    if handlers:
        step = {
            "HandleGlueJobFailure": "the job",
            "HandleOperationFailure": "the operation",
            "HandleArchiveFailure": "the archive",
            "HandleCrawlerFailure": "the crawler",
            "HandleValidationFailure": "the validation",
        }.get(handlers[0], handlers[0])
        return f"Failed: {step}", "bad"
    words = {
        "SUCCEEDED": ("Succeeded", "good"),
        "NOTHING_NEW": ("Nothing new", "calm"),
        "FAILED": (f"Failed: {job}", "bad"),
    }
    return words.get(str(summary.get("status")), (f"Unknown: {summary.get('status')}", "bad"))


def _figure(label: str, value: int, colour: str | None = None) -> str:
    style = f' style="--c:var(--{colour})"' if colour else ""
    return f"<div{style}><dt>{escape(label)}</dt><dd>{value:,}</dd></div>"


def _rows(datasets: Mapping[str, Mapping[str, Any]]) -> str:
    if not datasets:
        return ""
    body = ""
    for name in _ordered(datasets):
        row = datasets[name]
        came = _int(row.get("rows_read")) + _int(row.get("admitted"))
        went = sum(_int(row.get(k)) for k in OUTCOMES)
        check = "✓ balanced" if came == went else f"✗ {came - went:+,} rows not accounted for"
        values = [row.get("rows_read"), row.get("admitted"), *(row.get(k) for k in OUTCOMES)]
        body += _row([escape(name), *(f"{_int(v):,}" for v in values), check], range(1, 9))
    names = ["dataset", "rows read", "admitted", *OUTCOMES, "account"]
    return _section(
        "Where every row went",
        flow(datasets)
        + _table(
            names,
            body,
            "Rows read + admitted from parking = the sum of the six outcomes.",
            range(1, 9),
        ),
    )


def flow(datasets: Mapping[str, Mapping[str, Any]]) -> str:
    """The row accounting as a flow picture: datasets on the left, outcomes on the right, a ribbon
    for each pair."""
    names = [n for n in _ordered(datasets) if any(_int(datasets[n].get(k)) for k in OUTCOMES)]
    total = sum(_int(datasets[n].get(k)) for n in names for k in OUTCOMES)
    if not total:
        return '<p class="soft">No rows were read.</p>'
    ends = [k for k in OUTCOMES if any(_int(datasets[n].get(k)) for n in names)]
    # a thin ribbon is widened to 3 px so that one rejected row among a million can be seen
    size = {
        (n, k): max(_int(datasets[n].get(k)) / total * 260, 3.0)
        for n in names
        for k in ends
        if _int(datasets[n].get(k))
    }
    left = _stack([(n, sum(v for (m, _), v in size.items() if m == n)) for n in names], 56)
    right = _stack([(k, sum(v for (_, o), v in size.items() if o == k)) for k in ends], 44)
    tall = max(top + h for top, h in [*left.values(), *right.values()])
    for column in (left, right):
        shift = (tall - max(top + h for top, h in column.values())) / 2
        column.update({key: (top + shift, h) for key, (top, h) in column.items()})
    return _draw_flow(datasets, names, ends, size, left, right, tall + 30)


def _stack(parts: Sequence[tuple[str, float]], room: float) -> dict[str, tuple[float, float]]:
    """Tops and heights of the bars of a column; each keeps room for its label."""
    found, top = {}, 16.0
    for key, height in parts:
        found[key] = (top + max(room - 16 - height, 0) / 2, height)
        top += max(height + 16, room)
    return found


def _draw_flow(
    datasets: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    ends: Sequence[str],
    size: Mapping[tuple[str, str], float],
    left: Mapping[str, tuple[float, float]],
    right: Mapping[str, tuple[float, float]],
    height: float,
) -> str:
    x1, x2, bar = 210, 640, 14
    at_left, at_right = {k: v[0] for k, v in left.items()}, {k: v[0] for k, v in right.items()}
    ribbons = labels = ""
    for name in names:
        for end in ends:
            h = size.get((name, end), 0)
            if not h:
                continue
            a, b, mid = at_left[name], at_right[end], (x1 + x2) / 2
            d = (
                f"M{x1 + bar} {a:.1f}C{mid} {a:.1f} {mid} {b:.1f} {x2} {b:.1f}v{h:.1f}"
                f"C{mid} {b + h:.1f} {mid} {a + h:.1f} {x1 + bar} {a + h:.1f}z"
            )
            title = f"{name}: {_int(datasets[name].get(end)):,} {end}"
            ribbons += (
                f'<path d="{d}" style="fill:var(--{end})" '
                f'fill-opacity=".38"><title>{escape(title)}</title></path>'
            )
            at_left[name], at_right[end] = a + h, b + h
        top, h = left[name]
        admitted = _int(datasets[name].get("admitted"))
        more = f" + {admitted:,} admitted" if admitted else ""
        middle = top + h / 2
        labels += (
            f'<rect x="{x1}" y="{top:.1f}" width="{bar}" height="{h:.1f}" rx="3" '
            'style="fill:var(--calm)"/>'
        )
        labels += (
            f'<text class="b" x="{x1 - 10}" y="{middle - 3:.1f}" '
            f'text-anchor="end">{escape(name)}</text>'
        )
        labels += (
            f'<text class="s" x="{x1 - 10}" y="{middle + 14:.1f}" text-anchor="end">'
            f"{_int(datasets[name].get('rows_read')):,} read{more}</text>"
        )
    for end in ends:
        (top, h), count = right[end], sum(_int(datasets[n].get(end)) for n in names)
        labels += (
            f'<rect x="{x2}" y="{top:.1f}" width="{bar}" height="{h:.1f}" rx="3" '
            f'style="fill:var(--{end})"/>'
        )
        labels += (
            f'<text class="b" x="{x2 + bar + 10}" y="{top + h / 2 - 3:.1f}">{count:,} {end}</text>'
        )
        labels += (
            f'<text class="s" x="{x2 + bar + 10}" y="{top + h / 2 + 14:.1f}">{MEANING[end]}</text>'
        )
    return (
        f'<div class="wide"><svg class="flow" viewBox="0 0 960 {height:.0f}" role="img" '
        'aria-label="Rows of each dataset by outcome; the table below holds the same '
        f'numbers">{ribbons}{labels}</svg>'
        "</div>"
    )


def _rejects(
    datasets: Mapping[str, Mapping[str, Any]], examples: Sequence[Mapping[str, Any]], run_id: str
) -> str:
    counts = [
        (n, code, _int(rows))
        for n in _ordered(datasets)
        for code, rows in sorted(
            (datasets[n].get("rejected_by_reason") or {}).items(), key=lambda item: -_int(item[1])
        )
    ]
    if not counts and not examples:
        return ""
    most = max([c for _, _, c in counts], default=1)
    body = ""
    for name, code, rows in counts:
        colour = "parked" if code.startswith("orphan") else "rejected"
        bar = (
            '<span class="bar" '
            f'style="--c:var(--{colour});width:{100 * rows / max(most, 1):.1f}%"></span>'
        )
        body += _row([escape(name), f"<code>{escape(code)}</code>", f"{rows:,}", bar], [2])
    table = (
        _table(
            ["dataset", "reason", "rows", ""],
            body,
            "A row may have several reasons, and counts under each.",
            [2],
        )
        if body
        else ""
    )
    told = "Once a rule was too strict and is mended, take these rows in:"
    offer = _offer(told, f"replay --run {run_id}") if counts else ""
    return _section("Why rows were rejected", table + _examples(examples) + offer)


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for example in examples:
        groups.setdefault((str(example.get("dataset")), str(example.get("reason"))), []).append(
            example
        )
    out = "<h3>Examples</h3>" if groups else ""
    for (dataset, reason), rows in groups.items():
        items = "".join(
            f'<div class="soft path">{escape(str(r.get("file_path")))}, line '
            f"{escape(str(r.get('line')))}</div>"
            f"<pre>{escape(str(r.get('raw')))}</pre>"
            for r in rows[:5]
        )
        out += (
            f"<details><summary>{escape(dataset)}: "
            f"<code>{escape(reason)}</code></summary>{items}</details>"
        )
    return out


def _files(counts: Mapping[str, Any], manifest: Sequence[Mapping[str, Any]]) -> str:
    if not counts and not manifest:
        return ""
    said = ", ".join(
        f"{_int(counts.get(k)):,} {k.replace('_', ' ')}"
        for k in ("listed", "loaded", "duplicate", "set_aside", "changed", "unreadable")
    )
    rank = {"unreadable": 0, "set_aside": 1, "changed": 2, "duplicate": 3, "loaded": 4}
    body = ""
    for line in sorted(manifest, key=lambda entry: rank.get(str(entry.get("outcome")), 5))[
        :FILES_SHOWN
    ]:
        result = escape(str(line.get("outcome", "")).replace("_", " "))
        why = f"<code>{escape(str(line['reason']))}</code> " if line.get("reason") else ""
        why += escape(str(line.get("detail") or ""))
        ignored = ", ".join(map(str, line.get("ignored_columns") or []))
        why += f' <span class="soft">columns ignored: {escape(ignored)}</span>' if ignored else ""
        read = f"{_int(line.get('rows_read')):,}" if line.get("rows_read") is not None else ""
        body += _row(
            [
                f'<span class="path">{escape(str(line.get("path")))}</span>',
                result,
                read,
                f"{_int(line.get('size')):,}",
                escape(str(line.get("destination") or "")),
                why,
            ],
            [2, 3],
        )
    more = (
        f"; the first {FILES_SHOWN} of {len(manifest):,} are shown"
        if len(manifest) > FILES_SHOWN
        else ""
    )
    table = (
        _table(["file", "outcome", "rows", "bytes", "goes to", "why"], body, "", [2, 3])
        if body
        else ""
    )
    return _section(
        "Files",
        f"<p>{escape(said + more)}.</p>{_unreadable(_int(counts.get('unreadable')))}"
        + (
            f"<details{' open' if len(manifest) <= 12 else ''}><summary>Each file"
            f"</summary>{table}</details>"
            if table
            else ""
        ),
    )


def _unreadable(files: int) -> str:
    """What to do about files whose bytes S3 does not give out."""
    if not files:
        return ""
    return (
        f'<p class="error" role="alert">{files:,} unreadable, still in the raw zone: restore what '
        "lies in Glacier, give the job's role the right to the object and its key, or delete it. "
        "The next run loads what can be read by then; this is told once.</p>"
    )


def _tables(tables: Mapping[str, Mapping[str, Any]]) -> str:
    body = ""
    for name, table in tables.items():
        version = "" if table.get("version") is None else str(table["version"])
        days = _days_touched(table.get("dates") or [])
        files = f"+{_int(table.get('files_added')):,} / -{_int(table.get('files_removed')):,}"
        rows = "" if table.get("rows") is None else f"{_int(table['rows']):,}"
        changed = "new or changed" if table.get("schema_changed") else ""
        body += _row(
            [f"<code>{escape(name)}</code>", escape(version), rows, files, changed, escape(days)],
            [1, 2, 3],
        )
    names = ["table", "Delta version", "rows", "files", "schema", "days touched"]
    return _section("Tables after the run", _table(names, body, "", [1, 2, 3])) if body else ""


def _days_touched(spans: Sequence[Sequence[Any]]) -> str:
    """Spans of days, [first, last] each, in words: how many days, from when to when."""
    days = [[_date(day) for day in span] for span in spans]
    known = [(span[0], span[1]) for span in days if len(span) == 2 and span[0] and span[1]]
    if not known:
        return ""
    first, last = min(first for first, _ in known), max(last for _, last in known)
    count = sum((b - a).days + 1 for a, b in known)
    return f"{first}" if first == last else f"{count:,} days, {first} to {last}"


def _date(text: Any) -> dt.date | None:
    try:
        return dt.date.fromisoformat(str(text))
    except ValueError:
        return None


def _timings(timings: Mapping[str, Any]) -> str:
    values = [(str(k), float(v)) for k, v in timings.items() if isinstance(v, (int, float))]
    most = max([v for _, v in values], default=0) or 1
    body = "".join(
        _row(
            [
                escape(k.replace("_", " ")),
                run_graph.seconds_text(v),
                f'<span class="bar" style="width:{100 * v / most:.1f}%"></span>',
            ],
            [1],
        )
        for k, v in values
    )
    return (
        _section("Where the job's time went", _table(["phase", "time", ""], body, "", [1]))
        if body
        else ""
    )


def _cost(spent: Mapping[str, Any] | None) -> str:
    if not spent:
        return ""
    glue, steps, athena, crawler = (
        spent[name] for name in ("glue", "step_functions", "athena", "crawler")
    )
    amounts = {
        "Glue": (f"{glue['dpu_seconds']:,.0f} DPU-seconds", glue),
        "Step Functions": (f"{steps['transitions']:,} transitions", steps),
        "Athena": (f"{athena['queries']} queries, {athena['bytes_scanned']:,} bytes", athena),
        "crawler, estimated": (f"{crawler['crawls']} crawls", crawler),
    }
    body = "".join(
        _row([name, amount, cost.dollars(part["usd"])], [2])
        for name, (amount, part) in amounts.items()
        if part["usd"]
    )
    body += _row(["<b>the run</b>", "", f"<b>{cost.dollars(spent['usd'])}</b>"], [2])
    missing = "" if glue["complete"] else " A Glue run is missing in it."
    said = (
        f"By AWS's list prices of {spent['prices']['region']}, read on "
        f"{spent['prices']['read_on']}; S3, KMS, Lambda and logs are "
        f"not in it.{missing}"
    )
    return _section("What it cost", _table(["service", "amount", "US dollars"], body, said, [2]))


def _execution(asl: Mapping[str, Any] | None, runs: Mapping[str, run_graph.StateRun]) -> str:
    if not asl:
        return ""
    body = "".join(
        _row(
            [
                escape(name),
                escape(run.status),
                run_graph.seconds_text(run.seconds),
                str(run.entered),
                f'<span class="path">{escape(run.error or "")}</span>',
            ],
            [2, 3],
        )
        for name, run in runs.items()
    )
    names = ["state", "result", "time", "entered", "error"]
    table = (
        "<details><summary>The same as a "
        f"table</summary>{_table(names, body, '', [2, 3])}</details>"
        if body
        else ""
    )
    note = (
        '<p class="soft">This page is written by one of the last states, so that state still shows '
        "as running.</p>"
        if runs
        else ""
    )
    picture = run_graph.draw(asl, runs if runs else None)
    return _section("The execution", f'{note}<div class="wide graph">{picture}</div>{table}')


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>\n"


def _table(names: Sequence[str], body: str, caption: str, numbers: Iterable[int]) -> str:
    right = set(numbers)
    head = "".join(
        f'<th scope="col"{" class=n" if i in right else ""}>{escape(n)}</th>'
        for i, n in enumerate(names)
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Sequence[str], numbers: Iterable[int]) -> str:
    """A row whose cells are HTML already; the first names it, those in `numbers` stand to the
    right."""
    right = set(numbers)
    rest = "".join(
        f"<td{' class=n' if i in right else ''}{' class=w' if 'bar' in c[:18] else ''}>{c}</td>"
        for i, c in enumerate(cells[1:], 1)
    )
    return f'<tr><th scope="row">{cells[0]}</th>{rest}</tr>'


def _ordered(datasets: Mapping[str, Any]) -> list[str]:
    return [n for n in DATASETS if n in datasets] + [n for n in datasets if n not in DATASETS]


def _int(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _when(value: Any) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(str(value).replace("Z", "+00:00")) if value else None
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------
# The Lambda
# --------------------------------------------------------------------------------------------------
def handler(event: Mapping[str, Any], context: Any = None) -> dict[str, str]:
    """Write the page and the cost of the run, and tell its metrics; returns the page's place."""
    import boto3

    run_id, bucket = event["run_id"], os.environ["LAKE_BUCKET"]
    folder = f"{os.environ.get('RUNS_PREFIX', 'runs/')}{run_id}/"
    s3 = boto3.client("s3")
    history, asl = execution(boto3.client("stepfunctions"), event.get("execution_arn"))
    spent = cost.of_run(history, asl) if history and asl else None
    if event.get("only") == "cost":
        return {"line": cost.line(spent) if spent else NO_COST}
    text = read(s3, bucket, folder + "summary.json")
    summary = json.loads(text) if text else no_summary(run_id)
    manifest = json_lines(read(s3, bucket, folder + "manifest.jsonl") or "")
    page = render(summary, manifest, history, asl, summary.get("reject_examples"), spent)
    s3.put_object(
        Bucket=bucket,
        Key=folder + "report.html",
        Body=page.encode(),
        ContentType="text/html; charset=utf-8",
    )
    before = json.loads(read(s3, bucket, folder + "cost.json") or "{}")
    if spent:
        record = cost_record(run_id, spent, summary, before)
        s3.put_object(Bucket=bucket, Key=folder + "cost.json", Body=record.encode())
    for line in measures(summary, history or [], spent, before):
        print(line)
    return {"report": f"s3://{bucket}/{folder}report.html"}


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def cost_record(
    run_id: str,
    spent: Mapping[str, Any],
    summary: Mapping[str, Any],
    before: Mapping[str, Any],
) -> str:
    """cost.json, with whether the run's rows have been told as metrics: now, or `before` it was
    redriven."""
    rows_told = bool(before.get("rows_told")) or summary.get("status") == "SUCCEEDED"
    return json.dumps({"run_id": run_id, **spent, "rows_told": rows_told}, indent=1)


def measures(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    spent: Mapping[str, Any] | None,
    before: Mapping[str, Any],
) -> list[str]:
    """The run as metrics. `before` is the cost.json that the run had left before it was redriven:
    rows count once, and the cost is what it cost more since.
    """
    environment, now = os.environ.get("ENVIRONMENT", "prod"), dt.datetime.now(dt.UTC)
    usd = spent["usd"] - before.get("usd", 0) if spent else None
    told = {"run_id": summary.get("run_id")} if before.get("rows_told") else summary
    return list(metrics.lines(environment, told, metrics.freshness(history), usd, now))


def lean(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without what went into a state and came out of it, which holds the summary again and
    again; a task's answer stays.
    """
    return {
        key: {name: inner for name, inner in value.items() if name not in ("input", "output")}
        if key in ("stateEnteredEventDetails", "stateExitedEventDetails")
        else value
        for key, value in event.items()
    }


def no_summary(run_id: str) -> dict[str, Any]:
    """What can be said of a run that wrote no summary."""
    return {
        "run_id": run_id,
        "status": "FAILED",
        "error": "The job wrote no summary: it did not start, or it was stopped.",
    }


def read(s3: Any, bucket: str, key: str) -> str | None:
    """The text of an object; None where there is none."""
    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    except s3.exceptions.NoSuchKey:
        return None


def execution(
    states: Any, arn: str | None
) -> tuple[list[dict[str, Any]] | None, dict[str, Any] | None]:
    """Events and definition of the execution; a page without them is better than none."""
    if not arn:
        return None, None
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        asl = json.loads(
            states.describe_state_machine_for_execution(executionArn=arn)["definition"]
        )
        pages = states.get_paginator("get_execution_history").paginate(
            executionArn=arn, includeExecutionData=True, PaginationConfig={"MaxItems": EVENTS_READ}
        )
        return [lean(event) for page in pages for event in page["events"]], asl
    except (BotoCoreError, ClientError, NotImplementedError, ValueError) as error:
        LOG.warning("the execution cannot be shown: %s", error)
        return None, None
