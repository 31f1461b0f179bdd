"""Which lines of a chapter's code draw or lay out a table, and which of them a reader sees unfolded."""

from __future__ import annotations

import ast
from collections.abc import Iterable

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
# What a name or a method belongs to that does nothing but show: matplotlib, seaborn, and the chapters' own helpers.
DRAWERS = {"plt", "sns", "fig", "figure", "ax", "axes", "axis", "subfigure", "grid", "cell", "bar", "image", "line"}
DRAWERS |= {"table", "live", "use_style", "display", "GridSpec", "Rectangle", "Circle", "FancyArrowPatch", "Slider"}
METHODS = {"subplots", "add_subplot", "imshow", "plot", "scatter", "bar", "barh", "hist", "fill_between", "errorbar"}
METHODS |= {"axhline", "axvline", "annotate", "text", "legend", "set", "set_title", "set_xlabel", "set_ylabel"}
METHODS |= {"set_xticks", "set_yticks", "set_xlim", "set_ylim", "add_patch", "tick_params", "suptitle", "colorbar"}
METHODS |= {"tight_layout", "set_axis_off", "set_visible", "loglog", "semilogy", "semilogx", "step", "style"}
METHODS |= {"heatmap", "contour", "contourf"}


def _shows(node: ast.AST) -> bool:
    """Whether an expression or a simple statement is there for a picture or a table."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            where = call.func
            if isinstance(where, ast.Attribute) and where.attr in METHODS:
                return True
            while isinstance(where, ast.Attribute | ast.Subscript | ast.Call):
                where = where.func if isinstance(where, ast.Call) else where.value
            if isinstance(where, ast.Name) and where.id in DRAWERS:
                return True
    return False


def drawing_lines(statements: Iterable[ast.stmt]) -> int:
    """Counts the lines of statements that draw; the head of a loop or a function counts where all of its body does."""
    count = 0
    for node in statements:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        body = [part for name in ("body", "orelse", "finalbody") for part in getattr(node, name, [])]
        if not body:
            count += lines * _shows(node)
            continue
        inner = sum((part.end_lineno or part.lineno) - part.lineno + 1 for part in body)
        drawn = drawing_lines(body)
        count += drawn + (lines - inner) * (drawn == inner)
    return count


def visible(cell: dict) -> bool:
    """Whether the code of a cell is seen without a click."""
    return not FOLDED & set(cell["metadata"].get("tags", []))


def counts(cells: Iterable[dict]) -> tuple[int, int]:
    """Returns the visible lines of code of some cells, without blank ones, and how many of them only draw."""
    lines = drawn = 0
    for cell in cells:
        if cell["cell_type"] == "code" and visible(cell):
            source = "".join(cell["source"])
            lines += sum(bool(line.strip()) for line in source.splitlines())
            drawn += 0 if source.startswith("%%") else drawing_lines(ast.parse(source).body)
    return lines, drawn
