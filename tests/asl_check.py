"""Checks a JSONPath state machine for what a deployment accepts and a bad night does not.

    python -m tests.asl_check stepfunctions/delta-lake.json

Per scope (the machine and each branch): every state is reachable and leads somewhere, every target
exists, every Choice has a Default, every loop has a counter that leads out of it, every Task has
TimeoutSeconds, bounded Retry with back-off, cap and jitter, and under the
name that a throttled call has, and a Catch for the rest that keeps the
state's input. And no JSONPath is read that may be missing: on AWS that is a States.Runtime, which
no Catch sees. What is present is followed from state to state; a path below a value that came from
outside (a file, a service) counts as present only behind an IsPresent, or behind the schema_version
of a contract: `summary.schema.json` beside the machine, a JSON Schema of which `required`,
`properties`, `const`, `$defs` and one `if` with `then` are understood; a `not` in that `if` is left
to the machine's own rules.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

State = dict[str, Any]
Paths = frozenset[str]

PATH = re.compile(r"\$\$?(?:\.[A-Za-z_][\w]*|\[[^\]]*\])*")
BRANCH = re.compile(r"\$\[(\d+)\]")
LITERAL = re.compile(r"'(?:\\.|[^'\\])*'")
PATH_FIELDS = (
    "InputPath",
    "OutputPath",
    "SecondsPath",
    "TimeoutSecondsPath",
    "CausePath",
    "ErrorPath",
)
EQUALITIES = ("StringEquals", "NumericEquals", "BooleanEquals")
CONTRACT = "summary.schema.json"
TERMINAL = ("Succeed", "Fail")
# The names under which "Rate exceeded" arrives: those of the SDK's base exception, since Glue and
# Athena declare no throttling.
THROTTLED = {
    ":::glue:": "Glue.AWSGlueException",
    ":::athena:": "Athena.AmazonAthenaException",
    ":::aws-sdk:glue:": "Glue.GlueException",
}
RETRIER_FIELDS = (
    "IntervalSeconds",
    "BackoffRate",
    "MaxAttempts",
    "MaxDelaySeconds",
    "JitterStrategy",
)


def problems(machine: State, contract: State | None = None) -> list[str]:
    """Every finding as a sentence; none is the aim.

    `contract` is the schema of a file that the machine reads.
    """
    findings = []
    names: list[str] = []
    for scope, where in _scopes(machine):
        names += scope["States"]
        findings += [f"{where}{finding}" for finding in _scope_problems(scope)]
    findings += [
        f"{name}: the name is used twice"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if "TimeoutSeconds" not in machine:
        findings.append("the machine has no TimeoutSeconds")
    return findings + _path_problems(machine, frozenset({"$"}), contract or {})


def check(file: Path) -> list[str]:
    """The findings of a file, by the contract that lies beside it."""
    contract = file.with_name(CONTRACT)
    return problems(
        json.loads(file.read_text("utf-8")),
        json.loads(contract.read_text("utf-8")) if contract.exists() else None,
    )


def targets(state: State) -> list[str]:
    """The names of all states that may follow."""
    following = [state[field] for field in ("Next", "Default") if field in state]
    following += [rule["Next"] for rule in state.get("Choices", [])]
    return following + [catcher["Next"] for catcher in state.get("Catch", [])]


def _scopes(scope: State, where: str = "") -> Iterator[tuple[State, str]]:
    yield scope, where
    for name, state in scope["States"].items():
        for inner in [
            *state.get("Branches", []),
            *[state[k] for k in ("ItemProcessor", "Iterator") if k in state],
        ]:
            yield from _scopes(inner, f"{where}{name} > ")


def _scope_problems(scope: State) -> Iterator[str]:
    states = scope["States"]
    if scope.get("StartAt") not in states:
        yield f"StartAt {scope.get('StartAt')!r} does not exist"
        return
    for name, state in states.items():
        for target in targets(state):
            if target not in states:
                yield f"{name}: {target!r} does not exist"
        yield from (f"{name}: {finding}" for finding in _state_problems(state))
    for name in sorted(set(states) - _reachable(states, [scope["StartAt"]])):
        yield f"{name}: cannot be reached"
    for loop in _loops(states):
        if not _has_way_out(loop, states):
            yield f"{', '.join(sorted(loop))}: the loop has no counter that leads out of it"


def _state_problems(state: State) -> Iterator[str]:
    kind = state["Type"]
    if kind == "Choice" and "Default" not in state:
        yield "no Default"
    if kind not in ("Choice", *TERMINAL) and "Next" not in state and not state.get("End"):
        yield "neither Next nor End"
    if kind in ("Task", "Parallel", "Map"):
        yield from _catch_problems(state)
    if kind == "Task":
        if "TimeoutSeconds" not in state and "TimeoutSecondsPath" not in state:
            yield "no TimeoutSeconds"
        if not state.get("Retry"):
            yield "no Retry"
        yield from _throttling_problems(state)
    for retrier in state.get("Retry", []):
        for field in RETRIER_FIELDS:
            if field not in retrier:
                yield f"Retry for {', '.join(retrier['ErrorEquals'])} has no {field}"


def _throttling_problems(state: State) -> Iterator[str]:
    repeated = {error for retrier in state.get("Retry", []) for error in retrier["ErrorEquals"]}
    for service, name in THROTTLED.items():
        if service in state["Resource"] and not repeated & {name, "States.TaskFailed"}:
            yield f"no Retry for {name}, which is what a throttled call is called"


def _catch_problems(state: State) -> Iterator[str]:
    catchers = state.get("Catch", [])
    if not catchers or catchers[-1]["ErrorEquals"] != ["States.ALL"]:
        yield "no Catch for States.ALL at the end"
    for catcher in catchers:
        if catcher.get("ResultPath", "$") == "$":
            yield f"Catch to {catcher['Next']} replaces the state's input"


def _reachable(states: dict[str, State], start: list[str]) -> set[str]:
    seen: set[str] = set()
    todo = list(start)
    while todo:
        name = todo.pop()
        if name in states and name not in seen:
            seen.add(name)
            todo += targets(states[name])
    return seen


def _loops(states: dict[str, State]) -> list[frozenset[str]]:
    """The groups of states that can follow one another again and again."""
    after = {name: _reachable(states, targets(state)) for name, state in states.items()}
    return list(
        {
            frozenset(other for other in after[name] if name in after.get(other, ()))
            for name in states
            if name in after[name]
        }
    )


def _has_way_out(loop: frozenset[str], states: dict[str, State]) -> bool:
    """A counter's rule in each way round: a loop that is left without the states that hold one has
    a counter of its own, which may lead to another part of this loop."""
    unguarded = {name: states[name] for name in loop if not _counts(states[name], loop)}
    return len(unguarded) < len(loop) and all(
        _has_way_out(inner, unguarded) for inner in _loops(unguarded)
    )


def _counts(state: State, loop: frozenset[str]) -> bool:
    ways_out = [rule for rule in state.get("Choices", []) if rule["Next"] not in loop]
    return any("NumericGreaterThan" in json.dumps(rule) for rule in ways_out)


# JSONPaths ----------------------------------------------------------------------------------------


def _path_problems(scope: State, start: Paths, contract: State) -> list[str]:
    """Follows what is surely present through the states of a scope, and reports reads of anything
    else."""
    states = scope["States"]
    present: dict[str, Paths] = {scope["StartAt"]: start}
    todo = [scope["StartAt"]]
    while todo:
        name = todo.pop()
        for target, paths in _flow(states[name], present[name]):
            paths = _with_promised(paths, contract)
            if target not in states:
                continue
            merged = paths if target not in present else paths & present[target]
            if merged != present.get(target):
                present[target] = merged
                todo.append(target)
    findings = []
    for name, paths in present.items():
        findings += [
            f"{name}: {path} may be missing"
            for path in sorted(_missing(states[name], paths, contract))
        ]
        inner_start = (
            _produced("$", states[name]["Parameters"]) if "Parameters" in states[name] else paths
        )
        for branch in states[name].get("Branches", []):
            findings += _path_problems(branch, inner_start | {"$"}, contract)
    return findings


def _flow(state: State, paths: Paths) -> Iterator[tuple[str, Paths]]:
    """The states that may follow, each with what is then present."""
    for rule in state.get("Choices", []):
        yield rule["Next"], paths | _shown(rule)
        paths |= _shown_when_false(rule)  # the next rule is looked at only if this one did not hold
    if "Default" in state:
        yield state["Default"], paths
    for catcher in state.get("Catch", []):
        yield catcher["Next"], _with_result(paths, catcher.get("ResultPath", "$"), {"Error": ""})
    if "Next" in state:
        yield state["Next"], _after(state, paths)


def _after(state: State, paths: Paths) -> Paths:
    if state["Type"] not in ("Task", "Pass", "Parallel", "Map"):
        return paths
    # What a service answers is known only where a ResultSelector names it.
    passes = state["Type"] == "Pass"
    result = (
        state.get("Result", state.get("Parameters", {}))
        if passes
        else state.get("ResultSelector", {})
    )
    outputs = [_branch_output(branch) for branch in state.get("Branches", [])]
    where = state.get("ResultPath", "$")
    template = state.get("Parameters", {}) if passes else {}
    return _with_result(paths, where, result, outputs) | _copied(where, template, paths)


def _copied(where: str, template: State, paths: Paths) -> Paths:
    """What is known below the paths that a template takes over whole."""
    taken = {
        f"{where}.{key.removesuffix('.$')}": source
        for key, source in template.items()
        if key.endswith(".$") and isinstance(source, str) and source.startswith("$.")
    }
    return frozenset(
        target + path.removeprefix(source)
        for target, source in taken.items()
        for path in paths
        if path.startswith((f"{source}.", f"{source} ="))
    )


def _branch_output(branch: State) -> dict[str, None]:
    """The fields that a branch yields, whichever of its states ends it."""
    ends = [state for state in branch["States"].values() if state.get("End")]
    fields = [{key.removesuffix(".$") for key in _result_of(state)} for state in ends]
    return dict.fromkeys(set.intersection(*fields) if fields else ())


def _result_of(state: State) -> State:
    result: State = {}
    if state["Type"] == "Pass":
        result = state["Result"] if "Result" in state else state.get("Parameters", {})
    elif state.get("ResultPath", "$") == "$":
        result = state.get("ResultSelector", {})
    return result


def _with_result(
    paths: Paths, where: str | None, result: Any, branches: Sequence[Any] = ()
) -> Paths:
    if where is None:
        return paths
    replaced = (f"{where}.", f"{where} =")
    unaffected = frozenset(
        path for path in paths if path != where and not path.startswith(replaced)
    )
    return unaffected | _produced(where, result, branches) | {"$"}


def _produced(where: str, value: Any, branches: Sequence[Any] = ()) -> Paths:
    """The paths of a payload template; `$[1]` in it is the output of the second branch."""
    produced = {where}
    for key, inner in value.items() if isinstance(value, dict) else []:
        if key.endswith(".$"):
            number = BRANCH.fullmatch(inner)
            inner = branches[int(number[1])] if number and int(number[1]) < len(branches) else None
        produced |= _produced(f"{where}.{key.removesuffix('.$')}", inner, branches)
    return frozenset(produced)


def _missing(state: State, paths: Paths, contract: State) -> set[str]:
    reads = [state[field] for field in PATH_FIELDS if field in state]
    reads += list(_dynamic(state.get("Parameters", {})))
    missing = {
        path
        for text in reads
        if isinstance(text, str)
        for path in _paths(text)
        if path not in paths
    }
    for rule in state.get("Choices", []):
        missing |= _missing_in_rule(rule, paths, contract)[0]
        paths |= _shown_when_false(rule)
    return missing


def _missing_in_rule(rule: State, paths: Paths, contract: State) -> tuple[set[str], Paths]:
    """What a rule reads without knowing it to be there; And and Or are judged from left to right,
    and stop early."""
    missing: set[str] = set()
    if "And" in rule or "Or" in rule:
        for part in rule.get("And", []) + rule.get("Or", []):
            missing |= _missing_in_rule(part, paths, contract)[0]
            # The next part is looked at only if this one held (And), or did not (Or).
            paths |= _shown(part) if "And" in rule else _shown_when_false(part)
            paths = _with_promised(paths, contract)
        return missing, paths
    if "Not" in rule:
        return _missing_in_rule(rule["Not"], paths, contract)
    reads = [] if "IsPresent" in rule else [rule["Variable"]]
    reads += [
        value for key, value in rule.items() if key.endswith("Path") and isinstance(value, str)
    ]
    return {path for text in reads for path in _paths(text) if path not in paths}, paths


def _shown(rule: State) -> Paths:
    """The paths that are present where a rule holds."""
    if "And" in rule:
        return frozenset().union(*map(_shown, rule["And"]))
    if "Or" in rule:
        return frozenset.intersection(*map(_shown, rule["Or"]))
    if "Not" in rule:
        return _shown_when_false(rule["Not"])
    if rule.get("IsPresent") is False:
        return frozenset()
    variable = _plain(rule["Variable"])
    equal = [_equality(variable, rule[test]) for test in EQUALITIES if test in rule]
    return frozenset([*_parents(variable), *equal])


def _equality(path: str, value: Any) -> str:
    """A value that is known, kept among the paths."""
    return f"{path} = {value!r}"


def _shown_when_false(rule: State) -> Paths:
    if "Not" in rule:
        return _shown(rule["Not"])
    if rule.get("IsPresent") is False:
        return frozenset(_parents(_plain(rule["Variable"])))
    return frozenset()


def _with_promised(paths: Paths, contract: State) -> Paths:
    """Also what the contract promises where a rule has shown its schema_version."""
    if not contract:
        return paths
    version = _equality(".schema_version", contract["properties"]["schema_version"]["const"])
    promised = set(paths)
    for where in (path.removesuffix(version) for path in paths if path.endswith(version)):
        promised.update(_required(contract, where, contract["$defs"]))
        conditions = contract.get("if", {}).get("properties", {})
        if all(
            _equality(f"{where}.{key}", condition["const"]) in paths
            for key, condition in conditions.items()
        ):
            promised.update(_required(contract.get("then", {}), where, contract["$defs"]))
    return frozenset(promised)


def _required(schema: State, where: str, definitions: State) -> Iterator[str]:
    """The paths that a schema requires below `where`."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for name in schema.get("required", []):
        yield f"{where}.{name}"
        yield from _required(
            schema.get("properties", {}).get(name, {}), f"{where}.{name}", definitions
        )


def _dynamic(value: Any) -> Iterator[str]:
    """The texts of all fields that end in .$"""
    for key, inner in value.items() if isinstance(value, dict) else []:
        if key.endswith(".$"):
            yield inner
        else:
            yield from _dynamic(inner)


def _paths(text: str) -> list[str]:
    """The paths in a field or in the arguments of its intrinsic functions, context object aside."""
    paths = PATH.findall(LITERAL.sub("", text))
    return [_plain(path) for path in paths if not path.startswith("$$")]


def _plain(path: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", path)


def _parents(path: str) -> Iterator[str]:
    parts = path.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def main(argv: list[str]) -> int:
    """Prints the findings of each file; exit code 1 where there is one."""
    findings = [f"{file}: {finding}" for file in argv for finding in check(Path(file))]
    print("\n".join(findings) or "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
