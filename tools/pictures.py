"""The pictures of the README, drawn from the files and the runs that they show.

    architecture.svg     from template.yaml: names and resources
    delta-lake-steps.svg from stepfunctions/delta-lake.json
    executed.svg         from a real execution: with --run one on this machine, or with --history
                         FILE any other
    athena-queries.png   with --run, from queries of the tables that it leaves; needs Chromium

A picture that holds states carries a fingerprint of the state machine, so that a test can tell when
it is out of date.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import run_graph as graph
from tools import ROOT
from tools.browser import measure, screenshot
from tools.template import ACCOUNT, Template

ASL_FILE = ROOT / "stepfunctions" / "delta-lake.json"
IMAGES = ROOT / "images"


# --------------------------------------------------------------------------------------------------
# The state machine
# --------------------------------------------------------------------------------------------------
def fingerprint(asl: Mapping[str, Any]) -> str:
    """Changes when the states or their connections change; parameters and comments do not count."""

    def shape(machine: Mapping[str, Any]) -> list[Any]:
        return [machine["StartAt"]] + [
            [
                name,
                graph.subtitle(state),
                graph.transitions(state),
                [shape(b) for b in state.get("Branches", [])],
            ]
            for name, state in machine["States"].items()
        ]

    return hashlib.sha256(json.dumps(shape(asl)).encode()).hexdigest()[:16]


def steps_svg(asl: Mapping[str, Any]) -> str:
    """The state machine as it is written."""
    lead = f"{len(asl['States'])} states, drawn from stepfunctions/delta-lake.json"
    return _signed(graph.draw(asl, None, "State machine delta-lake", lead), asl)


def executed_svg(asl: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """One execution: each state's result and seconds."""
    runs = graph.runs_of(history)
    ends = [e["type"] for e in history if str(e.get("type", "")).startswith("Execution")]
    how = ends[-1].removeprefix("Execution").lower() if len(ends) > 1 else "running"
    total = (
        graph._seconds(history[0].get("timestamp"), history[-1].get("timestamp")) if history else 0
    )
    lead = f"{how} after {graph.seconds_text(total)}, {len(runs)} states entered"
    return _signed(graph.draw(asl, runs, "An execution of delta-lake", lead), asl)


def _signed(svg: str, asl: Mapping[str, Any]) -> str:
    return svg.replace("<svg ", f'<svg data-asl="{fingerprint(asl)}" ', 1)


def stale(svg: str, asl: Mapping[str, Any]) -> bool:
    """Whether a picture was drawn from another state machine than this one."""
    return f'data-asl="{fingerprint(asl)}"' not in svg


# --------------------------------------------------------------------------------------------------
# The architecture
# --------------------------------------------------------------------------------------------------
BOX_W, BOX_H, COLUMN, LEFT = 168, 62, 200, 40
# logical id in the template -> (column, row, columns wide, the service, what it is there for)
PLACES: dict[str, tuple[float, int, float, str, str]] = {
    "RawBucket": (0, 0, 1, "S3", "raw zone: upload CSV here"),
    "UploadRule": (1, 0, 1, "EventBridge", "an object was created"),
    "UploadQueue": (2, 0, 1, "SQS", "many uploads, one run"),
    "UploadPipe": (3, 0, 1, "EventBridge Pipe", "starts an execution"),
    "Sweep": (4, 0, 1, "Scheduler", "a net: looks once an hour"),
    "OptimizeSchedule": (5, 0, 1, "Scheduler", "weekly, then vacuum"),
    "DeadLetterQueue": (2, 1, 1, "SQS", "events that failed"),
    "StateMachine": (0, 2, 6, "Step Functions", "find, load, archive, crawl, check, report"),
    "ArchiveFunction": (0, 3, 1, "Lambda", "moves what was read"),
    "GlueJob": (1, 3, 1, "Glue job", "CSV to Delta, one writer"),
    "ReportFunction": (2, 3, 1, "Lambda", "a page about the run"),
    "Crawler": (3, 3, 1, "Glue crawler", "only when it is needed"),
    "WorkGroup": (4, 3, 1, "Athena", "checks, and your queries"),
    "Topic": (5, 3, 1, "SNS", "the run in numbers"),
    "ArchiveBucket": (0, 4, 1, "S3", "archived files by run"),
    "LakeBucket": (1, 4, 2, "S3", "Delta tables, rejected rows, run records"),
    "Database": (3, 4, 1, "Glue catalog", "the tables"),
    "AthenaResultsBucket": (4, 4, 1, "S3", "query results"),
    "EmailSubscription": (5, 4, 1, "SNS", "e-mail to the operators"),
}
# (from, to, what goes there)
FLOWS = [
    ("RawBucket", "UploadRule"),
    ("UploadRule", "UploadQueue"),
    ("UploadQueue", "UploadPipe"),
    ("UploadQueue", "DeadLetterQueue"),
    ("UploadPipe", "StateMachine"),
    ("Sweep", "StateMachine"),
    ("OptimizeSchedule", "StateMachine"),
    ("StateMachine", "ArchiveFunction"),
    ("StateMachine", "GlueJob"),
    ("StateMachine", "ReportFunction"),
    ("StateMachine", "Crawler"),
    ("StateMachine", "WorkGroup"),
    ("StateMachine", "Topic"),
    ("ArchiveFunction", "ArchiveBucket"),
    ("GlueJob", "LakeBucket"),
    ("ReportFunction", "LakeBucket"),
    ("Crawler", "Database"),
    ("WorkGroup", "AthenaResultsBucket"),
    ("Topic", "EmailSubscription"),
    ("Database", "LakeBucket"),
]
ROWS = [118, 218, 318, 424, 530]
ARCHITECTURE_STYLE = """
.s{font-size:11px;fill:var(--soft)}.n{font-size:13px;font-weight:700}.w{font-size:11px;fill:var(--soft)}
.S3{--c:#3f8624}.Lambda{--c:#c9660c}.SQS,.SNS,.EventBridge,.Scheduler,.Step{--c:#c7256b}.Glue,.Athena{--c:#7a3fd1}
.k{fill:var(--c)}.c{fill:var(--box);stroke:var(--c);stroke-width:1.4}
"""


def architecture_svg(template: Template) -> str:
    """What the template deploys, and the way of a file through it.

    An unknown resource name is an error.
    """
    places = {i: p for i, p in PLACES.items() if i in template.document["Resources"]}
    missing = sorted(set(PLACES) - set(places))
    if missing:
        raise ValueError(
            f"template.yaml has no resource {', '.join(missing)}: mend PLACES in tools/pictures.py"
        )
    alarms = sorted(
        i for i, alarm in template.of_type("AWS::CloudWatch::Alarm") if "AlarmActions" in alarm
    )
    roles = len(list(template.of_type("AWS::IAM::Role")))
    boxes = "".join(_resource(i, _name(template, i), *place) for i, place in places.items())
    arrows = "".join(_arrow(*flow) for flow in FLOWS)
    width, height = 2 * LEFT + 5 * COLUMN + BOX_W, 690
    foot = (
        f'<text class="w" x="{LEFT}" y="640">Alarms, which mail through the same topic: '
        f"{escape(', '.join(alarms))}</text>"
        f'<text class="w" x="{LEFT}" y="660">{roles} roles with the least rights, one key, log '
        "groups with an end; "
        f"{len(template.document['Resources'])} resources in all. Drawn from template.yaml.</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="g" viewBox="0 0 {width} {height}" '
        f'width="{width}" '
        f'height="{height}" role="img" aria-label="Architecture of the lakehouse">\n'
        f"<style>{graph.STYLE}{_scoped(ARCHITECTURE_STYLE)}</style>\n"
        f'<rect class="bg" width="100%" height="100%" rx="10"/>\n'
        f'<text class="head" x="{LEFT}" y="46">The lakehouse on AWS</text>\n'
        f'<text class="lead" x="{LEFT}" y="70">'
        f"Upload a CSV file: the rest of the way to Athena happens by itself</text>\n"
        f"{arrows}{boxes}{foot}</svg>\n"
    )


def _scoped(css: str) -> str:
    return css.replace("\n.", "\n.g .").replace("}.", "}.g .").replace(",.", ",.g .")


def _name(template: Template, logical_id: str) -> str:
    """The name under which the operators know the resource; what CloudFormation would make up stays
    its logical id."""
    properties = template.properties(logical_id)
    for key in ("Name", "FunctionName", "TopicName", "QueueName", "StateMachineName", "BucketName"):
        if isinstance(properties.get(key), str):
            return properties[key]
    database = properties.get("DatabaseInput")
    return database["Name"] if database else logical_id


def _rect(logical_id: str) -> tuple[float, float, float]:
    """Left edge, top and width of a resource's box."""
    column, row, wide, _, _ = PLACES[logical_id]
    return LEFT + column * COLUMN, ROWS[row], BOX_W + (wide - 1) * COLUMN


def _resource(
    logical_id: str, name: str, _c: float, _r: int, _w: float, service: str, purpose: str
) -> str:
    x, y, width = _rect(logical_id)
    shown = name if len(name) <= (width - 24) / 7.4 and ACCOUNT not in name else logical_id
    return (
        f'<g class="{service.split()[0]}"><title>{escape(logical_id)}: {escape(name)}</title>'
        f'<rect class="c" x="{x}" y="{y}" width="{width}" height="{BOX_H}" rx="8"/>'
        f'<rect class="k" x="{x}" y="{y}" width="6" height="{BOX_H}" rx="3"/>'
        f'<text class="s" x="{x + 16}" y="{y + 18}">{escape(service)}</text>'
        f'<text class="n" x="{x + 16}" y="{y + 36}">{escape(shown)}</text>'
        f'<text class="w" x="{x + 16}" y="{y + 53}">{escape(purpose)}</text></g>\n'
    )


def _arrow(source: str, target: str) -> str:
    """A straight arrow: along a row, or down at the middle of the narrower box."""
    (ax, ay, aw), (bx, by, bw) = _rect(source), _rect(target)
    if ay == by:
        forth = bx > ax
        x1, x2, y = (ax + aw, bx, ay + BOX_H / 2) if forth else (ax, bx + bw, ay + BOX_H / 2)
        turn = 1 if forth else -1
        tip = f"M{x2} {y}l{-8 * turn} -4.5v9z"
        return f'<path class="edge" d="M{x1} {y}H{x2 - 7 * turn}"/><path class="tip" d="{tip}"/>\n'
    x = ax + aw / 2 if aw <= bw else bx + bw / 2
    tip = f"M{x} {by}l-4.5 -8h9z"
    return f'<path class="edge" d="M{x} {ay + BOX_H}V{by - 7}"/><path class="tip" d="{tip}"/>\n'


# --------------------------------------------------------------------------------------------------
# Queries
# --------------------------------------------------------------------------------------------------
QUERIES = {
    "Revenue and orders by day": """\
SELECT date, count(*) AS orders, round(sum(total_amount), 2) AS revenue,
       round(avg(total_amount), 2) AS average_amount
FROM clean_orders GROUP BY date ORDER BY date LIMIT 7""",
    "What is bought again?": """\
SELECT p.department, count(*) AS items, count_if(i.reordered) AS again,
       round(100.0 * count_if(i.reordered) / count(*), 1) AS percent
FROM clean_orders_items i JOIN clean_products p ON p.product_id = i.product_id
GROUP BY p.department ORDER BY items DESC LIMIT 6""",
    "Why were rows rejected?": """\
SELECT reason, count(*) AS rows,
       min_by(file_path || ':' || cast(line AS varchar), line) AS for_example
FROM rejected_records CROSS JOIN UNNEST(reasons) AS t(reason)
WHERE status = 'rejected' GROUP BY reason ORDER BY rows DESC, reason LIMIT 6""",
}
QUERIES_CSS = """
body{margin:0;padding:28px;background:#eef1f4;color:#16202c;
font:14px/1.45 "Liberation Sans",Arial,sans-serif;width:984px}
section{background:#fff;border:1px solid #d5dbe1;border-radius:10px;margin-bottom:18px;
overflow:hidden}
h2{font-size:15px;margin:0;padding:12px 18px 8px}
pre{margin:0 18px 10px;background:#f4f6f8;border-radius:6px;padding:10px 12px;
font:12.5px/1.5 "DejaVu Sans Mono",monospace}.ok{color:#1d8102;font-weight:700}
p{margin:0;padding:4px 18px 8px;font-size:12.5px;color:#566575}
table{border-collapse:collapse;width:100%}
th{background:#fafbfc;text-align:left;font-size:12.5px}
th,td{padding:5px 18px;border-top:1px solid #e6eaee}
td{font-variant-numeric:tabular-nums}th small{color:#7b8794;font-weight:400}
"""


class Answer(Protocol):
    """What a query engine answers, as `local.athena.Result` does."""

    @property
    def names(self) -> list[str]: ...
    @property
    def types(self) -> list[str]: ...
    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def seconds(self) -> float: ...

    def text_rows(self) -> list[list[str | None]]: ...


def queries_html(results: Sequence[tuple[str, str, Answer]]) -> str:
    """Queries with their answers, as a page."""
    out = ""
    for title, sql, result in results:
        head = "".join(
            f"<th>{escape(n)} <small>{escape(t)}</small></th>"
            for n, t in zip(result.names, result.types, strict=True)
        )
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(v) if v is not None else ''}</td>" for v in row)
            + "</tr>"
            for row in result.text_rows()
        )
        out += (
            f"<section><h2>{escape(title)}</h2><pre>{escape(sql)}</pre>"
            f"<p><span class=ok>✓ Completed</span> · {result.seconds:.2f} s · "
            f"{len(result.rows)} rows</p>"
            f"<table><tr>{head}</tr>{rows}</table></section>"
        )
    return f'<!DOCTYPE html><meta charset="utf-8"><style>{QUERIES_CSS}</style><body>{out}</body>'


def queries_png(ask: Callable[[str], Answer], target: Path) -> None:
    """Run the queries, and take a picture of the answers with Chromium."""
    results = [(title, sql, ask(sql)) for title, sql in QUERIES.items()]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "queries.html"
        page.write_text(queries_html(results), "utf-8")
        screenshot(page, target, 1040, measure(page, "document.body.scrollHeight", 1040))


# --------------------------------------------------------------------------------------------------
# All of them
# --------------------------------------------------------------------------------------------------
def drawings(asl: Mapping[str, Any]) -> dict[str, str]:
    """The pictures that need no run: file name -> SVG."""
    return {
        "architecture.svg": architecture_svg(Template.load()),
        "delta-lake-steps.svg": steps_svg(asl),
    }


def out_of_date(folder: Path, asl: Mapping[str, Any]) -> list[str]:
    """Pictures that do not show the state machine and the template as they are now."""
    old = [
        name
        for name, svg in drawings(asl).items()
        if not (folder / name).exists() or (folder / name).read_text("utf-8") != svg
    ]
    executed = folder / "executed.svg"
    return old + (
        []
        if executed.exists() and not stale(executed.read_text("utf-8"), asl)
        else ["executed.svg"]
    )
