"""Who may import whom: what is deployed below all, then client; deployer and console apart from the
stand-in for AWS; no circle anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import glue_etl
from client import DEPLOYED, ROOT

PACKAGES = ("rules", "client", "samples", "deploy", "local", "console", "tests")
# What each may import besides itself and what is not ours
ALLOWED = {
    "src": (),
    "lambda": (),
    "rules": (),
    "client": ("src", "lambda", "rules"),
    "samples": (),
    "deploy": ("src", "lambda", "client", "samples"),
    "local": ("src", "lambda", "rules", "client", "samples"),
    "console": ("src", "lambda", "rules", "client"),
    "tests": ("src", "lambda", "rules", "client", "samples", "local", "console", "deploy"),
}
# What starts a process or is light to import in one: without moto, which takes a second to load
LIGHT = ("local.aws.worker", "local.aws.readers", "local.aws.job")


def files(root: Path) -> dict[str, Path]:
    """Name -> file of each module below the packages and of what is deployed, where both a name
    from its own folder and one from the folder above may be imported."""
    by_name = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            by_name[name.removesuffix(".__init__")] = path
    for folder in DEPLOYED:
        for path in (root / folder).rglob("*.py"):
            name = ".".join(path.relative_to(root / folder).with_suffix("").parts)
            by_name[name] = path
    return by_name


def modules(root: Path) -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in files(root).items()}


def absolute(name: str, node: ast.ImportFrom, own_modules: Mapping[str, ast.Module]) -> str:
    """The module that an import names; one dot is the package of the module that imports."""
    if node.level == 0:
        return str(node.module)
    assert node.level == 1, f"{name}: no imports from above the package"
    is_package = any(other.startswith(f"{name}.") for other in own_modules)
    package = name if is_package else name.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def imports_of(name: str, tree: ast.Module, own_modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """The modules of the project that a module imports, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = absolute(name, node, own_modules)
            inner = [f"{module}.{alias.name}" for alias in node.names]
            targets = [target if target in own_modules else module for target in inner]
        else:
            continue
        yield from (target for target in targets if target in own_modules)


def graph_of(root: Path) -> dict[str, set[str]]:
    own_modules = modules(root)
    return {name: set(imports_of(name, tree, own_modules)) for name, tree in own_modules.items()}


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for following in graph[todo.pop()] - seen:
            seen.add(following)
            todo.append(following)
    return seen


def forbidden(root: Path) -> list[str]:
    """Imports that go up: from what is deployed into anything, from client into more than that,
    from the deployer or the console, which is a client of AWS alone, into the stand-in."""
    homes = {name: path.relative_to(root).parts[0] for name, path in files(root).items()}
    return sorted(
        f"{name} imports {target}"
        for name, targets in graph_of(root).items()
        for target in targets
        if homes[target] not in (homes[name], *ALLOWED[homes[name]])
    )


def write(root: Path, **sources: str) -> Path:
    for package in PACKAGES:
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    for folder in DEPLOYED:
        (root / folder).mkdir()
    for name, source in sources.items():
        (root / f"{name.replace('__', '/')}.py").write_text(source)
    return root


def test_no_module_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(graph_of(ROOT)).prepare()


def test_tools_and_deployer_know_nothing_of_the_stand_in() -> None:
    assert forbidden(ROOT) == []


def test_what_runs_in_processes_of_its_own_does_not_load_the_server() -> None:
    graph = graph_of(ROOT)
    heavy = {"local.aws.server", "local.aws.stepfunctions"}
    assert {name: reachable(graph, name) & heavy for name in LIGHT} == {
        name: set() for name in LIGHT
    }


def test_a_reader_does_not_load_spark() -> None:
    """It starts in a second, and there are two for each local AWS."""
    assert "glue_etl" not in reachable(graph_of(ROOT), "local.aws.readers")


def test_a_circle_is_found_though_one_of_its_imports_is_inside_a_function(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        local__a="from local import b\n",
        local__b="def late():\n    from local.a import x\n",
    )
    with pytest.raises(CycleError):
        TopologicalSorter(graph_of(root)).prepare()


def test_an_import_of_the_stand_in_is_found(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        deploy__up="import local.aws\n",
        local__aws="import client.x\n",
        client__x="from local.aws import y\n",
    )
    assert forbidden(root) == [
        "client.x imports local.aws",
        "deploy.up imports local.aws",
    ]


def test_the_job_may_be_imported_and_imports_nothing_of_ours(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        console__data="import glue_etl\nimport facts\n",
        deploy__up="import glue_etl\n",
        lambda__run_report__facts="import glue_etl\n",
        src__glue_etl="from client import ROOT\n",
        src__glue_operations="import glue_etl\n",
        tests__test_job="import glue_operations\n",
    )
    assert forbidden(root) == [
        "facts imports glue_etl",
        "glue_etl imports client",
        "run_report.facts imports glue_etl",
    ]


def test_the_job_names_what_its_second_script_uses_of_it() -> None:
    tree = ast.parse((ROOT / "src" / "glue_operations.py").read_text("utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "etl"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "glue_etl":
            used |= {name.name for name in node.names}
    assert sorted(glue_etl.__all__) == sorted({*used, "main"})
