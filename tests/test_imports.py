"""Who imports whom in rwkvlib: floors of folders, no circle, and public names that exist and are listed."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rwkvlib

ROOT = Path(rwkvlib.__file__).resolve().parent


def module_name(path: Path) -> str:
    """Returns rwkvlib/layers/glsp.py as rwkvlib.layers.glsp, a package's __init__.py as the package."""
    parts = ("rwkvlib", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def does_not_count(node: ast.AST) -> bool:
    """Tells whether this is ``if TYPE_CHECKING:``, whose imports never run, or the alias of names that have moved."""
    for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    return for_types or (isinstance(node, ast.FunctionDef) and node.name == "__getattr__")


def imported(name: str) -> set[str]:
    """Returns the modules of rwkvlib that a module imports, at its top or later, itself and its packages left out."""
    path = FILES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found, todo = set(), [ast.parse(path.read_text(encoding="utf8"))]
    while todo:
        node = todo.pop()
        if does_not_count(node):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names}
    return {m for m in found if m in FILES and m != name and not name.startswith(f"{m}.")}


def floor(name: str) -> str:
    """Returns the folder, or file, directly below rwkvlib that a module belongs to."""
    return name.split(".")[1] if "." in name else "rwkvlib"


def test_no_circle_among_modules():
    try:
        TopologicalSorter({name: imported(name) for name in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(reversed(error.args[1]))}")


def test_no_circle_among_folders():
    graph: dict[str, set[str]] = {}
    for name in FILES:
        above = graph.setdefault(floor(name), set())
        if floor(name) != "rwkvlib":
            above |= {floor(m) for m in imported(name)} - {floor(name), "rwkvlib"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"folders import each other: {' -> '.join(reversed(error.args[1]))}")


PACKAGES = ["rwkvlib", *sorted(m.name for m in pkgutil.walk_packages([str(ROOT)], "rwkvlib.") if m.ispkg)]


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_offers_is_there(name):
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", [])
    assert len(offered) == len(set(offered))
    assert not [public for public in offered if not hasattr(module, public)]


NAMES = Path(__file__).with_name("public_names.json")


def public_names() -> dict[str, list[str]]:
    """Returns for each module its functions and classes without an underscore, and for a package what it offers."""
    found = {}
    for name, path in FILES.items():
        body = ast.parse(path.read_text(encoding="utf8")).body
        names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names |= set(ast.literal_eval(node.value))
        found[name] = sorted(n for n in names if not n.startswith("_"))
    return {name: names for name, names in found.items() if names}


def test_public_names_are_those_that_are_written_down():
    """Users build on them: one that goes or moves leaves an alias where it was, and a line in the changelog."""
    written, found = json.loads(NAMES.read_text(encoding="utf8")), public_names()
    gone = [f"{m}.{n}" for m, names in written.items() for n in names if n not in found.get(m, []) and not alias(m, n)]
    assert not gone
    new = [f"{m}.{n}" for m, names in found.items() for n in names if n not in written.get(m, [])]
    assert not new, "run: python -m tests.test_imports"


def alias(module: str, name: str) -> bool:
    """Tells whether a name is still to be had from a module that no longer defines it."""
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


if __name__ == "__main__":
    NAMES.write_text(json.dumps(public_names(), indent=1) + "\n", encoding="utf8")
