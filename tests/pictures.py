"""The pictures of the docs, drawn from the files and the runs that they show.

    docs/architecture.md    Mermaid text of the resources in template.yaml, which GitHub draws
    docs/state-machine.md   the same of the states in stepfunctions/delta-lake.json
    executed.svg            an execution, drawn by Mermaid in Chromium: with --run one on this
                            machine, or with --history FILE any other

The picture of an execution carries a fingerprint of the state machine, so that a test can tell when
it is out of date.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any

from client import ROOT, SetupError, mermaid
from client.template import ACCOUNT, Template
from facts import runs_of
from tests.browser import open_page

IMAGES = ROOT / "images"
PAGE = """\
<!DOCTYPE html><meta charset="utf-8"><div id="text" hidden>%s</div><pre id="answer"></pre>
<script type="module">
import { mermaid } from "%s";
mermaid.initialize({ startOnLoad: false });
const text = document.getElementById("text").textContent;
const draw = async () => {
  const { svg } = await mermaid.render("drawing", text);
  const drawn = new DOMParser().parseFromString(svg, "text/html").querySelector("svg");
  return new XMLSerializer().serializeToString(drawn);
};
document.getElementById("answer").textContent = await draw().catch((error) => `error: ${error}`);
</script>"""
# Milliseconds of the browser's virtual clock. On a busy machine it may run out before the drawing
PATIENCE, ATTEMPTS = 10_000_000, 5


# --------------------------------------------------------------------------------------------------
# An execution
# --------------------------------------------------------------------------------------------------
def fingerprint(asl: Mapping[str, Any]) -> str:
    """Changes when the states or their connections change; parameters and comments do not count."""
    return hashlib.sha256(mermaid.whole(asl).encode()).hexdigest()[:16]


def executed_svg(asl: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Return one execution: each state's result and seconds."""
    drawn = svg(mermaid.path_taken(asl, runs_of(history)))
    return drawn.replace("<svg ", f'<svg data-asl="{fingerprint(asl)}" ', 1)


def svg(text: str) -> str:
    """Return a drawing of Mermaid text, made with the Mermaid that NiceGUI brings.

    Raises SetupError without Chromium or NiceGUI."""
    spec = importlib.util.find_spec("nicegui")
    if spec is None or spec.origin is None:
        raise SetupError("Drawings need NiceGUI: pip install -r requirements-console.txt")
    library = Path(spec.origin).parent / "elements" / "mermaid" / "dist" / "index.js"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "drawing.html"
        safe = text.replace("&", "&amp;").replace("<", "&lt;")
        page.write_text(PAGE % (safe, library.as_uri()), "utf-8")
        flags = ["--allow-file-access-from-files", f"--virtual-time-budget={PATIENCE}"]
        pages = (open_page(page, [*flags, "--dump-dom"]) for _ in range(ATTEMPTS))
        answers = (re.search(r'<pre id="answer">(.+?)</pre>', shown, re.S) for shown in pages)
        answer = next(filter(None, answers), None)
    drawn = unescape(answer[1]) if answer else "error: the browser was too slow"
    if drawn.startswith("error: "):
        raise ValueError(f"Mermaid could not draw this ({drawn}):\n{text}")
    return drawn + "\n"


# --------------------------------------------------------------------------------------------------
# The architecture
# --------------------------------------------------------------------------------------------------
# logical id in the template -> the service, what it is there for
PLACES = {
    "RawBucket": ("S3", "raw zone: upload CSV here"),
    "UploadRule": ("EventBridge", "an object was created"),
    "UploadQueue": ("SQS", "many uploads, one run"),
    "UploadPipe": ("EventBridge Pipe", "starts an execution"),
    "Sweep": ("Scheduler", "a net: looks once an hour"),
    "OptimizeSchedule": ("Scheduler", "weekly, then vacuum"),
    "DeadLetterQueue": ("SQS", "events that failed"),
    "StateMachine": ("Step Functions", "find, load, archive, crawl, check, report"),
    "ArchiveFunction": ("Lambda", "moves what was read"),
    "GlueJob": ("Glue job", "CSV to Delta, one writer"),
    "ReportFunction": ("Lambda", "a page about the run"),
    "Crawler": ("Glue crawler", "only when it is needed"),
    "WorkGroup": ("Athena", "checks, and your queries"),
    "Topic": ("SNS", "the run in numbers"),
    "ArchiveBucket": ("S3", "archived files by run"),
    "LakeBucket": ("S3", "Delta tables, rejected rows, run records"),
    "Database": ("Glue catalog", "the tables"),
    "AthenaResultsBucket": ("S3", "query results"),
    "EmailSubscription": ("SNS", "e-mail to the operators"),
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


def architecture(template: Template) -> str:
    """Return what the template deploys, and the way of a file through it, as Mermaid text.

    An unknown resource name is an error.
    """
    missing = sorted(PLACES.keys() - template.document["Resources"].keys())
    if missing:
        raise ValueError(
            f"template.yaml has no resource {', '.join(missing)}: fix PLACES in tests/pictures.py"
        )
    boxes = [
        f'{logical_id}["{service}<br/>{_name(template, logical_id)}<br/>{purpose}"]'
        for logical_id, (service, purpose) in PLACES.items()
    ]
    return mermaid.drawing("Architecture", [*boxes, *(f"{a} --> {b}" for a, b in FLOWS)])


def _name(template: Template, logical_id: str) -> str:
    """Return the name by which the operators know the resource; what CloudFormation would make up,
    or holds the account, stays the logical id."""
    properties = template.properties(logical_id)
    for key in ("Name", "FunctionName", "TopicName", "QueueName", "StateMachineName", "BucketName"):
        if isinstance(properties.get(key), str) and ACCOUNT not in properties[key]:
            return properties[key]
    database = properties.get("DatabaseInput")
    return database["Name"] if database else logical_id


# --------------------------------------------------------------------------------------------------
# All of them
# --------------------------------------------------------------------------------------------------
def documents(root: Path, asl: Mapping[str, Any]) -> dict[Path, str]:
    """Return each page that holds a drawing as it should be: file -> text."""
    drawings = {
        root / "docs" / "architecture.md": architecture(Template.load()),
        root / "docs" / "state-machine.md": mermaid.whole(asl),
    }
    return {path: with_drawing(path.read_text("utf-8"), text) for path, text in drawings.items()}


def with_drawing(page: str, drawing: str) -> str:
    """Return a page with its Mermaid block replaced."""
    before, fence, after = page.partition("<!-- make images -->\n```mermaid\n")
    return before + fence + drawing + after[after.index("```") :]


def out_of_date(root: Path, folder: Path, asl: Mapping[str, Any]) -> list[str]:
    """Return the pages and pictures that do not show state machine and template as they are."""
    pages = documents(root, asl)
    old = [path.name for path, text in pages.items() if path.read_text("utf-8") != text]
    executed = folder / "executed.svg"
    sign = f'data-asl="{fingerprint(asl)}"'
    drawn = executed.exists() and sign in executed.read_text("utf-8")
    return old if drawn else [*old, executed.name]
