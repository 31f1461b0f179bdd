"""The files around the code say the same thing, and the notebooks are committed as readers should find them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from book import draw_map, folding
from book.executing import sources_hash

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETUP = (ROOT / "book/setup_cell.py").read_text().strip()

EXTRAS = ("cpu", "train", "data", "teacher", "weights", "export", "book-plots", "book", "dev", "cuda")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def requirements(extras: tuple[str, ...]) -> set[str]:
    """Returns the requirements of the base and of `extras`, in one spelling."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {str(Requirement(line)) for line in lines if Requirement(line).name != "rwkvlib"}


def committed_text() -> list[tuple[str, str]]:
    """Returns the path and text of every tracked text file."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        pytest.skip("not a git checkout")
    files = []
    for name in filter(None, result.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in content:
            files.append((name, content.decode("utf8", errors="replace")))
    return files


def cells(path: Path, kind: str = "code") -> list[dict]:
    """Returns a notebook's non-empty cells of one kind, sources joined."""
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == kind and cell["source"].strip():
            found.append(cell)
    return found


def test_conda_environment_names_what_pyproject_names():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = next(item["pip"] for item in dependencies if isinstance(item, dict))
    assert listed[-1] == "-e ."
    assert {str(Requirement(line)) for line in listed[:-1]} == requirements(EXTRAS)


def test_lock_holds_exact_versions_that_pyproject_allows():
    locked = {}
    ranges = {line for line in LOCK if line.startswith(("cuda-", "nvidia-"))}
    assert {str(Requirement(line)) for line in ranges} <= requirements(EXTRAS)
    for line in (line for line in LOCK if line not in ranges):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"not name==version without a build tag: {line}"
        name, version = line.split("==")
        locked[name.lower().replace("_", "-")] = version
    for line in requirements(EXTRAS) - {str(Requirement(line)) for line in ranges}:
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[wanted.name]), f"{line} is locked at {locked[wanted.name]}"
    assert locked["torch"] == "2.13.0"


def test_nothing_asks_for_torchvision_or_timm():
    asked = "\n".join([*LOCK, *requirements(tuple(PROJECT["optional-dependencies"]))])
    assert not re.search(r"^(torchvision|timm)\b", asked, re.MULTILINE)


def test_npm_lock_is_complete_and_names_no_registry():
    lock = json.loads((ROOT / "book/assets/package-lock.json").read_text())["packages"]
    wanted = json.loads((ROOT / "book/assets/package.json").read_text())["dependencies"]
    assert lock[""]["dependencies"] == wanted
    for name, package in lock.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_one_address_of_the_repository():
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    assert f"git+{address}" in SETUP
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address


def test_citation_and_package_have_one_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert f'__version__ = "{PROJECT["version"]}"' in (ROOT / "rwkvlib/__init__.py").read_text()


def test_contents_name_files_that_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    missing = [name for name in files if not any((ROOT / f"{name}{end}").is_file() for end in (".md", ".ipynb", ""))]
    assert not missing
    listed = {name for name in files if name.startswith("notebooks/")}
    assert listed == {f"notebooks/{path.stem}" for path in NOTEBOOKS}, (
        "each notebook is a page, and each page a notebook"
    )


def test_each_word_of_the_glossary_links_to_the_place_that_explains_it():
    text = (ROOT / "book/glossary.md").read_text(encoding="utf8").split("```{glossary}\n")[1].split("```")[0]
    entries = [entry for entry in text.strip().split("\n\n") if entry]
    words = [entry.splitlines()[0] for entry in entries]
    assert len(words) > 20 and words == sorted(words, key=str.lower)
    assert not [entry for entry in entries if not re.search(r"\{(doc|eq)\}`[^`]+`$", entry)]


def test_no_path_of_a_machine_is_committed():
    pattern = re.compile(r"(?<![\w.~/])/(?:home|Users|root|mnt|work|tmp)/[A-Za-z0-9_.-]+")
    allowed = {"tests/test_project.py"}
    found = [
        f"{name}: {match.group()}"
        for name, text in committed_text()
        if name not in allowed
        for match in pattern.finditer(text)
    ]
    assert not found


def test_no_build_product_is_committed():
    products = re.compile(
        r"(^|/)(__pycache__|_build|node_modules|\.venv|\.ipynb_checkpoints|[^/]+\.egg-info)/|\.(pyc|whl)$"
    )
    result = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if result.returncode:
        pytest.skip("not a git checkout")
    names = result.stdout.splitlines()
    assert not [name for name in names if products.search(name)]
    files = [ROOT / name for name in names if (ROOT / name).is_file()]
    assert not [path.name for path in files if path.stat().st_size > 8 * 2**20], "weights and data stay below 8 MiB"


def test_no_test_is_skipped_in_silence_where_ci_runs():
    """`require_tool` and `require_package` fail under RWKVLIB_STRICT; pytest's own way does not."""
    own = "import" + "orskip"
    assert [path.name for path in (ROOT / "tests").rglob("*.py") if own in path.read_text(encoding="utf8")] == []


def test_docstrings_speak_in_one_voice():
    """A function "Returns ...", it is not told to "Return ...": the third person, or a noun."""
    told = {"Return", "Read", "Write", "Make", "Build", "Run", "Execute", "Compile", "Count", "Draw", "Tell"}
    found = []
    for path, text in committed_text():
        for node in ast.walk(ast.parse(text)) if path.endswith(".py") else ():
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_"):
                words = (ast.get_docstring(node) or "").split()
                if words and words[0].rstrip(",.") in told:
                    found.append(f"{path}: {node.name}: {' '.join(words[:4])}")
    assert not found


@each_notebook
def test_notebook_starts_with_the_standard_setup(path):
    first = cells(path)[0]
    assert first["source"].strip() == SETUP, "the first code cell differs from book/setup_cell.py"
    assert {"setup", "hide-input"} <= set(first["metadata"].get("tags", []))


@each_notebook
def test_notebook_is_committed_executed(path):
    assert path.stat().st_size < 1_000_000
    counts = [cell["execution_count"] for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run: make notebooks"
    for cell in cells(path):
        if "raises-exception" not in cell["metadata"].get("tags", []):
            errors = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
            assert not errors, cell["source"]


@each_notebook
def test_notebook_has_the_outputs_of_its_code(path):
    """A cell that is edited afterwards shows what it no longer computes, and nbval compares the checked ones alone."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.get("executed") == sources_hash(notebook), f"run: make notebooks NB=notebooks/{path.name}"


@each_notebook
def test_notebook_code_fits_the_page(path):
    wide = [line for cell in cells(path) for line in cell["source"].splitlines() if len(line) > 76]
    assert not wide, "a line of more than 76 columns wraps in the page"
    for cell in cells(path):
        lines = cell["source"].count("\n") + 1
        assert lines <= (20 if folding.visible(cell) else 25), cell["source"]


def test_readers_see_ideas_and_not_plumbing():
    """What only draws or lays out a table is folded (tag hide-input): below a tenth of the lines that are seen."""
    counts = {path.stem: folding.counts(json.loads(path.read_text())["cells"]) for path in NOTEBOOKS}
    lines, drawn = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    assert drawn < 0.1 * lines, counts
    assert not [name for name, (lines, drawn) in counts.items() if drawn > 0.15 * lines]


@each_notebook
def test_notebook_links_to_the_reference(path):
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    assert re.search(r"\{doc\}`[^`]*\.\./book/api/", text), "no link to a page of the library's reference"


@each_notebook
def test_notebook_figures_have_alternative_text(path):
    for cell in cells(path):
        kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        if kinds & {"image/png", "image/svg+xml", "image/jpeg"}:
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 20, f"no mystnb image alt text that says what is seen: {cell['source'][:200]}"


@each_notebook
def test_notebook_metadata_is_normal(path):
    notebook = json.loads(path.read_text())
    known = {"kernelspec", "language_info", "widgets", "mystnb", "title", "authors", "executed"}
    assert set(notebook["metadata"]) <= known
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags", "mystnb"}, cell["metadata"]


def test_architecture_map_is_up_to_date():
    for path, make in draw_map.FILES.items():
        assert path.read_text(encoding="utf8") == make(), "run: python -m book map"
    pages = re.findall(r'href="../notebooks/(\w+)\.html"', draw_map.draw())
    assert sorted(pages) == [path.stem for path in NOTEBOOKS], "each chapter has one place on the map"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_make_bench_runs_every_script_without_arguments(path):
    """What needs data or a choice is an experiment."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            needed = [k for k in call.keywords if k.arg == "required" and getattr(k.value, "value", True)]
            optional = ast.literal_eval(call.args[0]).startswith("-") or any(k.arg == "nargs" for k in call.keywords)
            assert not needed and optional, f"line {call.lineno}: an argument that must be given"
