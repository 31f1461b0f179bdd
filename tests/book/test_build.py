"""The build never passes a failed or stale book off as a good one, and does no work twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book import executing, inputs, rendering

ROOT = Path(__file__).resolve().parent.parent.parent


def write_notebook(path: Path, *sources: str) -> None:
    """Writes an unexecuted notebook with a title and one code cell for each of `sources`."""
    cells = [nbformat.v4.new_markdown_cell("# A chapter")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def book(tmp_path):
    """A tiny book: one page, one notebook that imports a library of one line."""
    (tmp_path / "_config.yml").write_text(
        "title: Tiny\nonly_build_toc_files: true\nexecute: {execute_notebooks: cache}\n"
        "exclude_patterns: [_build]\nlatex: {use_jupyterbook_latex: false}\n"
    )
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n- file: notebooks/one\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/index.md").write_text("# Tiny\n\nA page.\n")
    (tmp_path / "rwkvlib").mkdir()
    (tmp_path / "rwkvlib/__init__.py").write_text("ANSWER = 'forty-two'\n")
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    write_notebook(
        tmp_path / "notebooks/one.ipynb",
        "import sys; sys.path.insert(0, '..'); import rwkvlib",
        "open('../runs.txt', 'a').write('x')\nprint(rwkvlib.ANSWER)",
    )
    return tmp_path


def run(book: Path) -> subprocess.CompletedProcess:
    """Builds `book` in its own process, as make does."""
    command = [sys.executable, "-m", "book", "html", "--root", str(book), "--no-assets"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)


def executions(book: Path) -> int:
    """Counts how often the notebook has been executed."""
    path = book / "runs.txt"
    return len(path.read_text()) if path.exists() else 0


def page(book: Path) -> str:
    """Returns the notebook's page."""
    return (book / "_build/html/notebooks/one.html").read_text()


@pytest.mark.slow
def test_a_failed_build_fails_until_it_is_mended_and_only_the_library_executes_notebooks_again(book):
    (book / "book/index.md").write_text("# Tiny\n\nA link to {ref}`nowhere`.\n")
    for _ in range(2):
        failed = run(book)
        assert failed.returncode != 0 and "nowhere" in failed.stderr + failed.stdout

    (book / "book/index.md").write_text("# Tiny\n\nA page.\n")
    mended = run(book)
    assert mended.returncode == 0, mended.stderr
    assert (book / "_build/html/index.html").as_uri() in mended.stdout
    assert executions(book) == 1, "mending a page does not execute the notebook again"
    assert "forty-two" in page(book)

    again = run(book)
    assert again.returncode == 0 and "up to date" in again.stdout
    assert executions(book) == 1

    (book / "rwkvlib/__init__.py").write_text("ANSWER = 'forty-three'\n")
    assert run(book).returncode == 0
    assert executions(book) == 2 and "forty-three" in page(book) and "forty-two" not in page(book)


@pytest.mark.slow
def test_failing_cell_fails_the_build_every_time(book):
    write_notebook(book / "notebooks/one.ipynb", "assert 1 + 1 == 3")
    assert run(book).returncode != 0
    assert run(book).returncode != 0


def test_the_key_of_executed_notebooks_follows_what_they_run_against(book, monkeypatch):
    monkeypatch.delenv("RWKVLIB_PROFILE", raising=False)
    key = inputs.execution_key(book)
    write_notebook(book / "notebooks/one.ipynb", "1 + 1")
    (book / "rwkvlib/__pycache__").mkdir()
    (book / "rwkvlib/__pycache__/x.cpython-311.pyc").write_bytes(b"compiled")
    assert inputs.execution_key(book) == key, "notebooks and caches do not count"

    seen = {key}
    (book / "rwkvlib/__init__.py").write_text("ANSWER = 0\n")
    seen.add(inputs.execution_key(book))
    (book / "results").mkdir()
    (book / "results/a.json").write_text("{}")
    seen.add(inputs.execution_key(book))
    (book / "requirements.lock").write_text("torch==2.12.0\n")
    seen.add(inputs.execution_key(book))
    (book / "rwkvlib/__init__.py").rename(book / "rwkvlib/other.py")
    seen.add(inputs.execution_key(book))
    monkeypatch.setenv("RWKVLIB_PROFILE", "full")
    seen.add(inputs.execution_key(book))
    assert len(seen) == 6, "each of the five changes gives a new key"


def test_executing_in_place_stores_outputs_that_repeat(tmp_path):
    path = tmp_path / "one.ipynb"
    write_notebook(
        path,
        "import ipywidgets\na, b = ipywidgets.IntSlider(3), ipywidgets.IntText(3)",
        "link = ipywidgets.jslink((a, 'value'), (b, 'value'))",
        "ipywidgets.VBox([a, b])",
        "",
        "1 + 1",
    )
    executing.execute_notebook(path)
    first = path.read_text()
    executing.execute_notebook(path)
    assert path.read_text() == first, "widget names, counts and metadata repeat"

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert code[3].outputs[0].data["text/plain"] == "2"
    shown = code[2].outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert shown in notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]


def test_a_failing_notebook_is_left_as_it_was_and_reported(tmp_path, capsys):
    good, bad = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    write_notebook(good, "2 + 2")
    write_notebook(bad, "1 / 0")
    before = bad.read_text()
    assert executing.execute_notebooks([bad, good, tmp_path / "none.ipynb"]) == 1
    assert bad.read_text() == before and not list(tmp_path.glob("*.tmp"))
    assert '"text/plain": [' in good.read_text(), "the others are executed all the same"
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "none.ipynb" in said


def test_serving_without_a_book_says_what_to_do(tmp_path, capsys):
    assert rendering.serve(tmp_path) == 1
    assert "make book" in capsys.readouterr().err


@pytest.fixture
def extended(book):
    """The tiny book with the book's own directives."""
    for name in ("extension.py", "setup_cell.py"):
        (book / "book" / name).write_text((ROOT / "book" / name).read_text())
    config = (book / "_config.yml").read_text()
    (book / "_config.yml").write_text(config + "sphinx: {extra_extensions: [sphinx_exercise, book.extension]}\n")
    return book


@pytest.fixture
def exercises(extended):
    """The tiny book with an exercise, a solution that holds a code cell, and a quiz."""
    book = extended
    path = book / "notebooks/one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    parts = ["```{exercise} Two per cent (easy)\n:label: ex\n\nWhy?\n```\n\n```{solution-start} ex\n```\n\nBecause."]
    notebook.cells += [
        nbformat.v4.new_markdown_cell(parts[0], id="ask"),
        nbformat.v4.new_code_cell("print('the ' + 'secret')", id="solve"),
        nbformat.v4.new_markdown_cell("```{solution-end}\n```", id="end"),
    ]
    nbformat.write(notebook, path)
    return book


@pytest.mark.slow
def test_one_switch_leaves_the_solutions_out(exercises, monkeypatch):
    quiz = "# Tiny\n\n```{quiz} q\nWhich?\n\n- ( ) This.\n\n  No.\n- (x) That.\n\n  Yes, $x$.\n```\n"
    (exercises / "book/index.md").write_text(quiz)
    shown = run(exercises)
    assert shown.returncode == 0, shown.stderr
    assert "Because." in page(exercises) and "the secret" in page(exercises)
    assert "(Two per cent, easy)" in page(exercises), "no brackets within brackets"
    index = (exercises / "_build/html/book/index.html").read_text()
    assert index.count('type="radio"') == 2 and index.count("rwkv-right") == 1

    monkeypatch.setenv("RWKVLIB_SOLUTIONS", "0")
    hidden = run(exercises)
    assert hidden.returncode == 0, hidden.stderr
    assert "Why?" in page(exercises) and "Because." not in page(exercises) and "secret" not in page(exercises)
    assert executions(exercises) == 1, "the switch executes nothing again"
    assert not list((exercises / "_build/html/_sources").rglob("*.ipynb")), "nor do the sources hold them"

    monkeypatch.setenv("RWKVLIB_SOLUTIONS", "no")
    assert "expected 0 or 1, got 'no'" in run(exercises).stderr


@pytest.mark.slow
def test_quizzes_without_an_answer_fail_the_build(extended):
    quizzes = {"none": "- ( ) This.\n\n  No.\n- ( ) That.\n\n  No.\n", "silent": "- (x) This.\n\n  Yes.\n- ( ) That.\n"}
    text = "".join(f"```{{quiz}} {name}\nWhich?\n\n{options}```\n\n" for name, options in quizzes.items())
    (extended / "book/index.md").write_text(f"# Tiny\n\n{text}")
    (extended / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (extended / "notebooks/one.ipynb").unlink()
    failed = run(extended)
    assert failed.returncode != 0
    for said in ("quiz none: expected a question", "one with (x)", "quiz silent: option 2 says nothing"):
        assert said in failed.stderr + failed.stdout
