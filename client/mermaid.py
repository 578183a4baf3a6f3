"""The state machine, or an execution of it, as Mermaid text: the console draws it, GitHub draws it
in the docs, and `tests/pictures.py` draws it in Chromium.

An error that many states catch is drawn once. Of an execution the path taken comes first, without
the states that only decide or prepare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from facts import CAUGHT, FAILED, RUNNING, SUCCEEDED, StateRun, seconds_text

State = Mapping[str, Any]
Runs = Mapping[str, StateRun]
MANY = 4  # catches that lead to one state are drawn as one
CLASSES = {SUCCEEDED: "done", RUNNING: "running", FAILED: "failed", CAUGHT: "failed"}
SKIPPED = "skipped"
FOLDED = ("Choice", "Pass")
# Fills with their own text colors, and lines that are seen on white and on black
THEME = """\
%%{init: {"theme": "base", "htmlLabels": false, "flowchart": {"wrappingWidth": 400},
"themeVariables": {"lineColor": "#7f8ea0",
"primaryColor": "#eef2f6", "primaryTextColor": "#16202c", "primaryBorderColor": "#8798a9",
"clusterBkg": "transparent", "clusterBorder": "#8798a9", "titleColor": "#7f8ea0"}}}%%
flowchart TB"""
STYLES = """\
classDef done fill:#d8f0dd,stroke:#1d8a3c,color:#12301a
classDef running fill:#d9eafb,stroke:#0b6bcb,color:#0c2a48
classDef failed fill:#fbdcd5,stroke:#c9341c,color:#43140b
classDef skipped fill:#eceff3,stroke:#9aa7b4,color:#4a5663,stroke-dasharray:4 3"""
SHAPES = {"Choice": ("{{", "}}"), "Succeed": ("([", "])"), "Fail": ("([", "])"), "Pass": ("(", ")")}


def subtitle(state: State) -> str:
    """Return what a state does in a few letters: `glue:startJobRun`, or its type."""
    if state["Type"] == "Task":
        tail = state["Resource"].rpartition("states:::")[2].replace("aws-sdk:", "")
        return tail.replace(".sync", "")
    if state["Type"] == "Wait" and "Seconds" in state:
        return f"Wait {state['Seconds']} s"
    return str(state["Type"])


def scopes(machine: State) -> Iterator[State]:
    """Yield the machine and each of its branches."""
    yield machine
    for state in machine["States"].values():
        yield from state.get("Branches", [])


def whole(machine: State, runs: Runs | None = None) -> str:
    """Return all states; with `runs`, what became of each, or that it was not reached."""
    numbers = _numbers(machine)
    lines = _states(machine, numbers, runs)
    catches = Counter(b for scope in scopes(machine) for _, b in _edges(scope, caught=True))
    for scope in scopes(machine):
        lines += [f"{numbers[a]} --> {numbers[b]}" for a, b in _edges(scope, caught=False)]
        few = [(a, b) for a, b in _edges(scope, caught=True) if catches[b] < MANY]
        lines += [f"{numbers[a]} -.-> {numbers[b]}" for a, b in few]
    for name, count in catches.items():
        if count >= MANY:
            lines.append(f'e{numbers[name]}("an error in one of {count} states"):::skipped')
            lines.append(f"e{numbers[name]} -.-> {numbers[name]}")
    return drawing("The state machine", [STYLES, *lines])


def path_taken(machine: State, runs: Runs) -> str:
    """Return the states in which an execution did something or ended; what only decides or
    prepares, and what was not reached, is one box."""
    every = {name: state for scope in scopes(machine) for name, state in scope["States"].items()}
    numbers = {
        name: number
        for name, number in _numbers(machine).items()
        if name in runs and (every[name]["Type"] not in FOLDED or runs[name].error)
    }
    inside = {(name, inner) for name, state in every.items() for inner in _inner(state)}
    lines = _states(machine, numbers, runs)
    for name in numbers:
        steps = {(name, then) for then in _next(name, runs, numbers)} - inside
        lines += [f"{numbers[name]} --> {numbers[then]}" for _, then in sorted(steps)]
    deciding = len(runs.keys() & every.keys() - numbers.keys())
    unreached = len(every.keys() - runs.keys())
    folded = f"Not drawn\ndeciding or preparing: {deciding}\nnot reached: {unreached}"
    lines.append(f'rest("{_escaped(folded)}"):::{SKIPPED}')
    return drawing("The path of an execution", [STYLES, *lines])


def drawing(title: str, lines: Iterable[str]) -> str:
    """Return lines of a flowchart with a title for those who do not see it."""
    return "\n".join([THEME, f"accTitle: {title}", *lines, ""])


def _next(name: str, runs: Runs, shown: Mapping[str, str]) -> set[str]:
    """Return the states that followed one, past those that are not shown."""
    next_states, seen, todo = set(), {name}, list(runs[name].then)
    while todo:
        then = todo.pop()
        if then in shown:
            next_states.add(then)
        elif then in runs and then not in seen:
            seen.add(then)
            todo += runs[then].then
    return next_states


def _inner(state: State) -> Iterator[str]:
    for branch in state.get("Branches", []):
        yield from branch["States"]


def _numbers(machine: State) -> dict[str, str]:
    """Return an id for each state: Mermaid allows few characters in them."""
    names = [name for scope in scopes(machine) for name in scope["States"]]
    return {name: f"s{number}" for number, name in enumerate(names)}


def _states(scope: State, numbers: Mapping[str, str], runs: Runs | None) -> list[str]:
    """Return a line for each state that has a number; branches become a frame."""
    lines = []
    for name, state in scope["States"].items():
        if name not in numbers:
            continue
        look = (
            "" if runs is None else f":::{CLASSES[runs[name].status] if name in runs else SKIPPED}"
        )
        if "Branches" not in state:
            before, after = SHAPES.get(state["Type"], ("[", "]"))
            text = _escaped(f"{name}\n{_below(state, (runs or {}).get(name))}")
            lines.append(f'{numbers[name]}{before}"{text}"{after}{look}')
            continue
        lines.append(f'subgraph {numbers[name]}["{_escaped(name)}"]')
        for branch in state["Branches"]:
            lines += _states(branch, numbers, runs)
        lines.append("end")
    return lines


def _below(state: State, run: StateRun | None) -> str:
    if run is None:
        return subtitle(state)
    times = f", {run.entered} times" if run.entered > 1 else ""
    return f"{subtitle(state)}, {seconds_text(run.seconds)}{times}"


def _escaped(text: str) -> str:
    """Return a label: whatever is not plain becomes a character code."""
    plain = re.sub(r"[^\w .,:()\n-]", lambda match: f"#{ord(match[0])};", text)
    return plain.replace("\n", "<br/>")


def _edges(scope: State, caught: bool) -> Iterator[tuple[str, str]]:
    """Yield where each state may go to, without doubles: usually, or by a catch."""
    for name, state in scope["States"].items():
        usual = [rule["Next"] for rule in state.get("Choices", [])]
        usual += [state[key] for key in ("Next", "Default") if key in state]
        catches = [rule["Next"] for rule in state.get("Catch", [])]
        targets = [target for target in catches if target not in usual] if caught else usual
        yield from ((name, other) for other in dict.fromkeys(targets))
