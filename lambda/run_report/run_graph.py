"""A state machine, or one execution of it, as a picture: SVG from ASL, with a layered layout and no
library.

The layout is Sugiyama's: layers by longest path, edges cut at each layer, order by barycenters,
then positions by least squares under a minimal distance. All edges into one state share a lane:
twenty catches do not make twenty lines.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

ROW, GAP_X, GAP_Y, PAD = 46, 26, 34, 18
LANE = 8  # room that a passing edge takes in a layer
SUCCEEDED, FAILED, CAUGHT, RUNNING, NOT_RUN = "succeeded", "failed", "caught", "running", "not-run"

STYLE = """
.g{--bg:#ffffff;--box:#ffffff;--ink:#16202c;--soft:#5b6b7b;--line:#8798a9;--edge:#7d8c9b;--catch:#b9772d;
--frame:#f5f7f9;
--ok:#1d8102;--okbg:#eaf6e6;--bad:#d13212;--badbg:#fdeeea;--warn:#b25c00;--warnbg:#fdf3e3;--run:#0067b8;--runbg:#e8f2fb}
@media (prefers-color-scheme: dark){.g{--bg:#10161d;--box:#1a232d;--ink:#e8eef4;--soft:#9fb0c0;--line:#55677a;
--edge:#7e90a2;
--catch:#d79a50;--frame:#151d26;--ok:#6cc24a;--okbg:#16301a;--bad:#ff8a70;--badbg:#3a1a15;--warn:#f0b35a;
--warnbg:#36280f;
--run:#6db7ff;--runbg:#12293f}}
.g text{font-family:Inter,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif;fill:var(--ink)}
.g .bg{fill:var(--bg)}.g .name{font-size:12.5px;font-weight:600;text-anchor:middle}
.g .sub{font-size:10.5px;fill:var(--soft);text-anchor:middle}.g .key{font-size:11.5px;fill:var(--soft)}
.g .head{font-size:17px;font-weight:700}.g .lead{font-size:12.5px;fill:var(--soft)}
.g .box{fill:var(--box);stroke:var(--line);stroke-width:1.3}.g .frame{fill:var(--frame);stroke:var(--line);
stroke-width:1.2}
.g .edge{fill:none;stroke:var(--edge);stroke-width:1.4}.g .catch{stroke:var(--catch);stroke-dasharray:5 4}
.g .tip{fill:var(--edge)}.g .tip-catch{fill:var(--catch)}
.g .idle .box,.g .idle .frame{stroke-dasharray:4 4}.g .idle .name{fill:var(--soft);font-weight:500}
.g .idle-edge{opacity:.32}.g .took{stroke:var(--ok);stroke-width:2.4;stroke-dasharray:none}.g .tip-took{fill:var(--ok)}
.g .succeeded .box{stroke:var(--ok);fill:var(--okbg);stroke-width:1.8}.g .failed .box{stroke:var(--bad);
fill:var(--badbg);stroke-width:2}
.g .caught .box{stroke:var(--warn);fill:var(--warnbg);stroke-width:2}.g .running .box{stroke:var(--run);
fill:var(--runbg);stroke-width:2}
.g .succeeded>.frame{stroke:var(--ok);stroke-width:1.8}.g .failed>.frame{stroke:var(--bad);stroke-width:2}
.g .caught>.frame{stroke:var(--warn);stroke-width:2}
.g .succeeded .mark{fill:var(--ok)}.g .failed .mark{fill:var(--bad)}.g .caught .mark{fill:var(--warn)}
.g .running .mark{fill:var(--run)}
.g .sign{fill:none;stroke:var(--bg);stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round}
"""
SIGNS = {
    SUCCEEDED: "M-3.4 .2l2.3 2.4 4.6-4.9",
    FAILED: "M-2.7-2.7l5.4 5.4M2.7-2.7l-5.4 5.4",
    CAUGHT: "M0-3.8v4.2M0 3.2v.4",
    RUNNING: "M-3 0h.1M0 0h.1M3 0h.1",
}


@dataclass
class StateRun:
    """What an execution did in one state: how it ended, all its seconds, how often it was entered,
    its error, and the states that it went on to."""

    status: str
    seconds: float = 0.0
    entered: int = 1
    error: str | None = None
    then: set[str] = field(default_factory=set)


@dataclass
class Node:
    """A state, or one piece of a lane where `state` is None. x and y are the middle of its upper
    edge; `room` is the height
    of its layer."""

    name: str
    state: Mapping[str, Any] | None
    width: float = LANE
    height: float = ROW
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    room: float = ROW
    lane: tuple[Any, ...] | None = None
    branches: list[Layout] = field(default_factory=list)


@dataclass
class Layout:
    """Placed states and the edges between them. An edge: its path of nodes from top to bottom,
    whether it is a catch, and
    whether it runs upwards (a loop)."""

    nodes: dict[str, Node]
    edges: list[tuple[list[Node], bool, bool]]
    width: float
    height: float


# --------------------------------------------------------------------------------------------------
# Reading the ASL and the history
# --------------------------------------------------------------------------------------------------
def transitions(state: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Where a state can go: (name, by a catch), without doubles, the usual way first."""
    usual = [c["Next"] for c in state.get("Choices", [])] + [
        state.get("Next"),
        state.get("Default"),
    ]
    caught = [c["Next"] for c in state.get("Catch", [])]
    plain = list(dict.fromkeys(n for n in usual if n))
    return [(n, False) for n in plain] + [
        (n, True) for n in dict.fromkeys(caught) if n not in plain
    ]


def runs_of(history: Sequence[Mapping[str, Any]] | None) -> dict[str, StateRun]:
    """State name -> what happened in it, from the events of GetExecutionHistory (oldest first)."""
    runs: dict[str, StateRun] = {}
    owner: dict[int, str | None] = {}
    since: dict[str, Any] = {}
    for event in history or []:
        kind, number = str(event.get("type", "")), int(event.get("id", 0))
        entered, left = event.get("stateEnteredEventDetails"), event.get("stateExitedEventDetails")
        before = owner.get(int(event.get("previousEventId", 0)))
        name = (entered or left or {}).get("name") or before
        owner[number] = name
        if entered and name:
            run = runs.setdefault(name, StateRun(RUNNING, entered=0))
            run.status, run.error, run.entered = RUNNING, None, run.entered + 1
            if before in runs:
                runs[before].then.add(name)
            since[name] = event.get("timestamp")
        elif left and name in runs:
            run = runs[name]
            run.status = CAUGHT if run.error else SUCCEEDED
            run.seconds += _seconds(since.get(name), event.get("timestamp"))
        elif (
            name in runs
            and re.search("Failed$|TimedOut$|Aborted$", kind)
            and not kind.startswith("Execution")
        ):
            runs[name].error = _error(event) or kind
        elif name in runs and kind.endswith("Succeeded") and not kind.startswith("Execution"):
            runs[name].error = None  # a retry went well
        elif kind in ("ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted"):
            for run_name, run in runs.items():
                if run.status == RUNNING:
                    run.status, run.error = FAILED, _error(event) or run.error or kind
                    run.seconds += _seconds(since.get(run_name), event.get("timestamp"))
        elif kind == "ExecutionSucceeded":
            for run in runs.values():
                run.status = SUCCEEDED if run.status == RUNNING else run.status
    return runs


def _error(event: Mapping[str, Any]) -> str | None:
    for key, details in event.items():
        if (
            key.endswith("EventDetails")
            and isinstance(details, Mapping)
            and (details.get("error") or details.get("cause"))
        ):
            return ": ".join(str(details[k]) for k in ("error", "cause") if details.get(k))
    return None


def _seconds(start: Any, end: Any) -> float:
    start, end = _time(start), _time(end)
    return max((end - start).total_seconds(), 0.0) if start and end else 0.0


def _time(value: Any) -> dt.datetime | None:
    if isinstance(value, (int, float)):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return value


def subtitle(state: Mapping[str, Any]) -> str:
    """What a state does, in a few letters: `glue:startJobRun`, or its type."""
    if state["Type"] == "Task":
        tail = (
            state["Resource"]
            .rpartition("states:::")[2]
            .replace("aws-sdk:", "")
            .replace(".sync", "")
            .replace(".waitForTaskToken", "")
        )
        return tail if len(tail) < 34 else tail[:33] + "…"
    if state["Type"] == "Wait" and "Seconds" in state:
        return f"Wait {state['Seconds']} s"
    return str(state["Type"])


# --------------------------------------------------------------------------------------------------
# Layout
# --------------------------------------------------------------------------------------------------
def lay_out(machine: Mapping[str, Any]) -> Layout:
    """Place the states of a machine, or of one branch, from top to bottom."""
    nodes = {name: _node(name, state) for name, state in machine["States"].items()}
    loops = _loops(machine["StartAt"], machine["States"])
    forward = [
        (b, a, c, True) if (a, b) in loops else (a, b, c, False)
        for a, s in machine["States"].items()
        for b, c in transitions(s)
        if b in nodes and b != a
    ]
    _rank(nodes, [(a, b) for a, b, _, _ in forward])
    lanes, edges = _cut(nodes, forward)
    layers = _layers([*nodes.values(), *lanes])
    spine = _spine(machine["StartAt"], machine["States"], nodes)
    links = []
    for path, catch, _ in edges:
        weight = 40 if (path[0].name, path[-1].name) in spine else 1 if catch else 3
        links += [(path[i], path[i + 1], weight) for i in range(len(path) - 1)]
    _order(layers, links)
    _place(layers, links, {name for step in spine for name in step})
    return _finish(nodes, lanes, layers, edges)


def _node(name: str, state: Mapping[str, Any]) -> Node:
    width = max(7.3 * len(name) + 30, 5.9 * len(subtitle(state)) + 30, 104)
    if state["Type"] not in ("Parallel", "Map"):
        return Node(name, state, width)
    inner = [
        lay_out(b)
        for b in state.get("Branches") or [state.get("ItemProcessor") or state["Iterator"]]
    ]
    width = max(width, sum(b.width for b in inner) + GAP_X * (len(inner) - 1) + 2 * PAD)
    return Node(name, state, width, max(b.height for b in inner) + 46 + PAD, branches=inner)


def _loops(start: str, states: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The edges that lead back to a state on the way to their own start."""
    back: set[tuple[str, str]] = set()
    done: set[str] = set()

    def visit(name: str, way: frozenset[str]) -> None:
        done.add(name)
        for target, _ in transitions(states[name]):
            if target in way | {name}:
                back.add((name, target))
            elif target in states and target not in done:
                visit(target, way | {name})

    visit(start, frozenset())
    return back


def _rank(nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]) -> None:
    """Longest path from the top; then each state without predecessors near by moves down towards
    its successors."""
    for _ in nodes:
        for a, b in edges:
            nodes[b].layer = max(nodes[b].layer, nodes[a].layer + 1)
    after = defaultdict(list)
    before = defaultdict(list)
    for a, b in edges:
        after[a].append(nodes[b])
        before[b].append(nodes[a])
    for name, node in sorted(nodes.items(), key=lambda item: -item[1].layer):
        if after[name] and len(before[name]) > 1 and len(after[name]) == 1:
            node.layer = max(node.layer, min(n.layer for n in after[name]) - 1)


def _spine(
    start: str, states: Mapping[str, Any], nodes: Mapping[str, Node]
) -> set[tuple[str, str]]:
    """The edges of the longest way from the start to an end without an error: it is drawn as a
    straight line."""
    best: dict[str, list[str] | None] = {}

    def way(name: str) -> list[str] | None:
        if name not in best:
            state = states[name]
            onward = [
                n
                for n, catch in transitions(state)
                if not catch and nodes[n].layer > nodes[name].layer
            ]
            ends = state["Type"] == "Succeed" or state.get("End")
            found = [w for w in map(way, onward) if w] + ([[]] if ends else [])
            best[name] = [name, *max(found, key=len)] if found else None
        return best[name]

    steps = way(start) or [start]
    return set(zip(steps, steps[1:], strict=False))


def _cut(
    nodes: Mapping[str, Node], edges: Iterable[tuple[str, str, bool, bool]]
) -> tuple[list[Node], list[Any]]:
    """Lanes for the edges that pass layers.

    All edges into a state share its lane; a loop has its own.
    """
    lanes: dict[tuple[Any, ...], Node] = {}
    paths = []
    for a, b, catch, loop in edges:
        path = [nodes[a]]
        for layer in range(nodes[a].layer + 1, nodes[b].layer):
            lane = (a, b) if loop else (b, catch)
            path.append(lanes.setdefault((*lane, layer), Node("", None, layer=layer, lane=lane)))
        paths.append(([*path, nodes[b]], catch, loop))
    return list(lanes.values()), paths


def _layers(nodes: Sequence[Node]) -> list[list[Node]]:
    layers: list[list[Node]] = [[] for _ in range(max(n.layer for n in nodes) + 1)]
    for node in nodes:
        layers[node.layer].append(node)
    return layers


def _neighbours(
    links: Sequence[tuple[Node, Node, int]], down: bool
) -> dict[int, list[tuple[Node, int]]]:
    found: dict[int, list[tuple[Node, int]]] = defaultdict(list)
    for a, b, weight in links:
        here, there = (b, a) if down else (a, b)
        found[id(here)].append((there, weight))
    return found


def _order(layers: list[list[Node]], links: Sequence[tuple[Node, Node, int]]) -> None:
    """Barycenter sweeps; the order with the fewest crossings wins."""
    above, below = _neighbours(links, True), _neighbours(links, False)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, links)
    for sweep in range(24):
        down = sweep % 2 == 0
        for layer in layers if down else layers[::-1]:
            place = {id(n): i for row in layers for i, n in enumerate(row)}
            near = above if down else below
            center = {
                id(n): _mean([(place[id(o)], w) for o, w in near[id(n)]], place[id(n)])
                for n in layer
            }
            layer.sort(key=lambda n: center[id(n)])
        count = _crossings(layers, links)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    layers[:] = best


def _mean(values: Sequence[tuple[float, float]], default: float) -> float:
    total = sum(w for _, w in values)
    return sum(v * w for v, w in values) / total if total else default


def _crossings(layers: Sequence[Sequence[Node]], links: Sequence[tuple[Node, Node, int]]) -> int:
    place = {id(n): i for layer in layers for i, n in enumerate(layer)}
    by_layer: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for a, b, weight in {(id(a), id(b)): (a, b, w) for a, b, w in links}.values():
        by_layer[a.layer].append((place[id(a)], place[id(b)], weight))
    count = 0
    for pairs in by_layer.values():
        for i, (x, y, w) in enumerate(pairs):
            count += sum(w * v for c, d, v in pairs[slice(i + 1, None)] if (x - c) * (y - d) < 0)
    return count


def _place(
    layers: list[list[Node]], links: Sequence[tuple[Node, Node, int]], spine: set[str]
) -> None:
    """Positions: the spine at 0, other states near their neighbours, and in the end each lane as
    one straight line."""
    above, below = _neighbours(links, True), _neighbours(links, False)
    lanes: dict[tuple[Any, ...], list[Node]] = defaultdict(list)
    for layer in layers:
        _separate(layer, [(0.0, 1.0)] * len(layer))
        for node in layer:
            if node.lane:
                lanes[node.lane].append(node)
    for sweep in range(260):
        near = [above, below][sweep % 2]
        middle = {lane: sum(n.x for n in nodes) / len(nodes) for lane, nodes in lanes.items()}
        for layer in layers[:: 1 if sweep % 2 == 0 else -1]:
            wishes = []
            for node in layer:
                both = near[id(node)] if sweep < 60 else above[id(node)] + below[id(node)]
                weighed = [(o.x, w * (0.05 if o.lane else 1.0)) for o, w in both]
                wish = _mean([*weighed, (0.0, 0.6)], node.x)  # all are drawn a little to the middle
                if node.lane and sweep >= 60:
                    wish = middle[node.lane]
                wishes.append(
                    (0.0, 1e6) if node.name in spine else (wish, 3.0 if node.lane else 1.0)
                )
            _separate(layer, wishes)


def _separate(layer: list[Node], wishes: Sequence[tuple[float, float]]) -> None:
    """The positions nearest to the wishes (least squares) that keep order and distance: pool
    adjacent violators."""
    shift, blocks = 0.0, []
    shifts = []
    for i, node in enumerate(layer):
        if i:
            lanes = layer[i - 1].state is None and node.state is None
            shift += (layer[i - 1].width + node.width) / 2 + (GAP_X / 2 if lanes else GAP_X)
        shifts.append(shift)
        blocks.append([(wishes[i][0] - shift) * wishes[i][1], wishes[i][1], 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            value, weight, size = blocks.pop()
            blocks[-1] = [blocks[-1][0] + value, blocks[-1][1] + weight, blocks[-1][2] + size]
    flat = [value / weight for value, weight, size in blocks for _ in range(int(size))]
    for node, x, moved in zip(layer, flat, shifts, strict=False):
        node.x = x + moved


def _finish(
    nodes: dict[str, Node], lanes: list[Node], layers: list[list[Node]], edges: list[Any]
) -> Layout:
    """Heights of the layers, and all positions from 0."""
    y = 0.0
    for layer in layers:
        height = max(n.height for n in layer)
        for node in layer:
            node.y, node.room = y, height
            if node.state is None:
                node.height = height
        y += height + GAP_Y
    left = min(n.x - n.width / 2 for n in [*nodes.values(), *lanes])
    for node in [*nodes.values(), *lanes]:
        node.x -= left
    width = max(n.x + n.width / 2 for n in [*nodes.values(), *lanes])
    return Layout(nodes, edges, width, y - GAP_Y)


# --------------------------------------------------------------------------------------------------
# Drawing
# --------------------------------------------------------------------------------------------------
def draw(
    machine: Mapping[str, Any],
    runs: Mapping[str, StateRun] | None = None,
    title: str = "",
    lead: str = "",
) -> str:
    """The machine as SVG; with `runs`, each state's result and seconds, and what was not reached
    pale."""
    layout = lay_out(machine)
    top = PAD + 12 + (26 if title else 0) + (20 if lead else 0) + 34
    width = max(layout.width + 2 * PAD + 8, 640, 7.2 * len(lead) + 2 * PAD)
    height = top + layout.height + PAD + 8
    left = (width - layout.width) / 2
    text = (
        f'<text class="head" x="{PAD + 6}" y="{PAD + 22}">{escape(title)}</text>' if title else ""
    )
    text += f'<text class="lead" x="{PAD + 6}" y="{PAD + 44}">{escape(lead)}</text>' if lead else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="g" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" '
        f'height="{height:.0f}" role="img" '
        f'aria-label="{escape(title or "State machine")}">\n<style>{STYLE}</style>\n'
        '<rect class="bg" width="100%" height="100%" '
        f'rx="10"/>\n{text}{_legend(top - 26, runs is not None)}\n'
        f"{_body(layout, left, top, runs)}</svg>\n"
    )


def _legend(y: float, executed: bool) -> str:
    entries = [SUCCEEDED, FAILED, CAUGHT, NOT_RUN] if executed else ["way", "catch"]
    words = {
        SUCCEEDED: "succeeded",
        FAILED: "failed",
        CAUGHT: "error caught",
        NOT_RUN: "not reached",
        "way": "next",
        "catch": "on an error",
    }
    out, x = "", PAD + 6.0
    for entry in entries:
        if entry in ("way", "catch"):
            out += f'<path class="edge {entry}" d="M{x:.0f} {y - 4:.0f}h26"/>'
        else:
            kind = entry if entry != NOT_RUN else "idle"
            out += (
                f'<g class="{kind}"><rect class="box" x="{x:.0f}" y="{y - 11:.0f}" width="26" '
                'height="14" rx="4"/></g>'
            )
        out += f'<text class="key" x="{x + 33:.0f}" y="{y:.0f}">{words[entry]}</text>'
        x += 52 + 6.2 * len(words[entry])
    return out


def _body(layout: Layout, left: float, top: float, runs: Mapping[str, StateRun] | None) -> str:
    edges = sorted(layout.edges, key=lambda e: _taken(e, runs))
    return "".join(_edge(e, left, top, runs) for e in edges) + "".join(
        _box(n, left, top, runs) for n in layout.nodes.values()
    )


def _taken(edge: tuple[list[Node], bool, bool], runs: Mapping[str, StateRun] | None) -> bool:
    """Whether the execution went along this edge."""
    path, _, loop = edge
    source, target = (path[-1], path[0]) if loop else (path[0], path[-1])
    if not runs or source.name not in runs or target.name not in runs:
        return False
    return target.name in runs[source.name].then


def _edge(
    edge: tuple[list[Node], bool, bool],
    left: float,
    top: float,
    runs: Mapping[str, StateRun] | None,
) -> str:
    path, catch, loop = edge
    taken = _taken(edge, runs)
    kind = (
        "took"
        if taken
        else ("catch" if catch else "way") + (" idle-edge" if runs is not None else "")
    )
    x, y = left + path[0].x, top + path[0].y + path[0].height
    d = f"M{x:.1f} {y + 7 if loop else y:.1f}"
    if path[0].room > path[0].height:
        y = top + path[0].y + path[0].room
        d += f"L{x:.1f} {y:.1f}"
    for i, node in enumerate(path[1:], 1):
        nx, ny = left + node.x, top + node.y - (0 if loop or i < len(path) - 1 else 7)
        mid = (y + ny) / 2
        d += (
            f"L{nx:.1f} {ny:.1f}"
            if abs(nx - x) < 0.5
            else f"C{x:.1f} {mid:.1f} {nx:.1f} {mid:.1f} {nx:.1f} {ny:.1f}"
        )
        x, y = nx, top + node.y + node.height
        d += f"L{x:.1f} {y:.1f}" if i < len(path) - 1 else ""
    end = path[0] if loop else path[-1]
    tip_x, tip_y, turn = left + end.x, top + end.y + (end.height if loop else 0), -1 if loop else 1
    tip = f"M{tip_x:.1f} {tip_y:.1f}l-4.5 {-8 * turn}h9z"
    tip_kind = (
        "tip-took"
        if taken
        else ("tip-catch" if catch else "tip") + (" idle-edge" if runs is not None else "")
    )
    return f'<path class="edge {kind}" d="{d}"/><path class="{tip_kind}" d="{tip}"/>\n'


def _box(node: Node, left: float, top: float, runs: Mapping[str, StateRun] | None) -> str:
    state = node.state or {}
    run = (runs or {}).get(node.name)
    kind = run.status if run else ("idle" if runs is not None else "plain")
    x, y = left + node.x - node.width / 2, top + node.y
    hint = run.error if run and run.error else state.get("Comment", "")
    out = (
        f'<g class="{kind}"><title>{escape(node.name + (": " + str(hint) if hint else ""))}</title>'
    )
    round_end = ROW / 2 if state.get("Type") in ("Succeed", "Fail") else 8
    shape = "frame" if node.branches else "box"
    out += (
        f'<rect class="{shape}" x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" '
        f'height="{node.height:.1f}" '
    )
    out += f'rx="{round_end:.0f}"/>'
    middle = left + node.x
    out += f'<text class="name" x="{middle:.1f}" y="{y + 20:.1f}">{escape(node.name)}</text>'
    out += (
        f'<text class="sub" x="{middle:.1f}" y="{y + 35:.1f}">{escape(_below(state, run))}</text>'
    )
    if run and run.status in SIGNS:
        out += (
            f'<g transform="translate({x + node.width:.1f} {y:.1f})"><circle class="mark" r="8"/>'
        )
        out += f'<path class="sign" d="{SIGNS[run.status]}"/></g>'
    out += "</g>\n"
    across = (
        x
        + (node.width - sum(b.width for b in node.branches) - GAP_X * (len(node.branches) - 1)) / 2
    )
    for branch in node.branches:
        out += _body(branch, across, y + 46, runs)
        across += branch.width + GAP_X
    return out


def _below(state: Mapping[str, Any], run: StateRun | None) -> str:
    if run is None:
        return subtitle(state)
    times = f" · {run.entered}×" if run.entered > 1 else ""
    return f"{subtitle(state).split(':')[0]} · {seconds_text(run.seconds)}{times}"


def seconds_text(seconds: float) -> str:
    """0.04 s, 3.2 s, 1 min 20 s."""
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
