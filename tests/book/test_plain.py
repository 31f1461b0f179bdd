"""The plain edition is the chapters' code with text that needs no MyST, and is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from book import plain

ROOT = Path(__file__).resolve().parent.parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
MYST = re.compile(r"\{[a-z:]+\}`|^(`{3,}|:{3,})\{|^:{3,}|\{\{|^\(\S+\)=$", re.MULTILINE)


@pytest.fixture(scope="module")
def book():
    """The titles and labels of the chapters."""
    return plain.read_book(ROOT)


def edition(path: Path) -> nbformat.NotebookNode:
    """Returns the committed plain edition of a chapter."""
    return nbformat.read(path.parent / "plain" / path.name, as_version=4)


def test_committed_files_are_up_to_date():
    assert plain.write(check=True) == 0, "run: make plain"


@each_chapter
def test_code_is_the_same(path):
    chapter = nbformat.read(path, as_version=4)
    code = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    cells = [cell for cell in edition(path).cells if cell.cell_type == "code"]
    assert [cell.source for cell in cells] == code
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@each_chapter
def test_text_is_plain_and_its_links_lead_somewhere(path):
    notebook = edition(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", cell.source, flags=re.MULTILINE | re.DOTALL)
        assert not MYST.search(text), cell.source
        assert text.count("<details>") == text.count("</details>")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.endswith(".ipynb") and "://" not in target:
                assert (path.parent / "plain" / target).is_file(), target


def converted(book, text: str) -> str:
    """Converts one cell of chapter 4."""
    return plain.Converter(book, "04_wkv").convert(text)


def test_roles_become_text_and_links(book):
    assert converted(book, "See {doc}`01_scoring`.").endswith("](01_scoring.ipynb).")
    assert "/book/notation.html)" in converted(book, "{doc}`Notation <../book/notation>`")
    assert converted(book, "{cite}`vaswani2017attention`") == "(Vaswani et al., 2017)"
    assert converted(book, "{cite:t}`vaswani2017attention`") == "Vaswani et al. (2017)"
    assert converted(book, "by {eq}`eq-wkv`, {index}`decay`") == "by (4.1), decay"
    assert converted(book, "{ref}`ex-04-row`") == "exercise 4.2"
    assert "Figure 1.1 of [" in converted(book, "{numref}`fig-01-answers`")
    assert re.match(r"About \d+ minutes", converted(book, "{{ time_04 }}"))


def test_directives_become_markdown(book):
    assert converted(book, "```{math}\n:label: eq-wkv\n\ny = x\n```") == "$$\ny = x \\tag{4.1}\n$$"
    note = converted(book, ":::{admonition} Predict first\n:class: tip\nWhat {eq}`eq-wkv`?\n:::")
    folded = converted(book, "```{admonition} Answer\n:class: dropdown\nYes.\n```")
    assert folded == "<details><summary>Answer</summary>\n\nYes.\n\n</details>"
    assert note == "> **Predict first**\n>\n> What (4.1)?"
    solution = converted(book, "````{solution} ex-04-pencil\n:class: dropdown\n\nYes.\n````")
    assert solution == "<details><summary>Solution to exercise 4.1</summary>\n\nYes.\n\n</details>"
    shown = converted(book, "```{literalinclude} ../rwkvlib/wkv/oracle.py\n:pyobject: bi_wkv_oracle\n```")
    assert "```python\ndef bi_wkv_oracle(" in shown


@pytest.mark.parametrize(
    "text, what",
    [
        ("{nonsense}`x`", "unknown role 'nonsense'"),
        ("```{nonsense}\nx\n```", "unknown directive 'nonsense'"),
        ("{{ nonsense }}", "no number 'nonsense'"),
        ("{eq}`nonsense`", "no label 'nonsense'"),
        ("{cite}`nonsense`", "no entry in references.bib: ['nonsense']"),
        ("```{admonition} Endless\nx", "no end of"),
    ],
)
def test_what_is_not_known_is_an_error_that_names_the_place(book, text, what):
    with pytest.raises(ValueError, match=re.escape(what)) as error:
        converted(book, text)
    assert str(error.value).startswith("04_wkv, cell")


def test_the_setup_cell_names_what_is_released():
    setup = (ROOT / "book/setup_cell.py").read_text()
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "rwkvlib/__init__.py").read_text())[1]
    assert f'@v{version}"' in setup
    places = [path for path in (ROOT / "notebooks/plain").glob("*.ipynb") if f"@v{version}" not in path.read_text()]
    assert not places
    assert json.loads(CHAPTERS[0].read_text())["cells"]
