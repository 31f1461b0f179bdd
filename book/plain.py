"""Write the plain edition of the chapters, for Colab and Jupyter, which show MyST as source.

    python -m book plain          write notebooks/plain/
    python -m book plain --check  fail when a committed file differs

The code cells are the chapters' own, without outputs. In the text, roles become text and links, directives become
plain Markdown, and figures get their captions from the metadata of their cells.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from pybtex.richtext import Text

from rwkvlib.files import write_file

from .inputs import ROOT
from .measured import numbers

FENCE = re.compile(r"^(`{3,}|:{3,})(?:\{([a-z-]+)\})? ?(.*)$")
ROLE = re.compile(r"\{([a-z:]+)\}`([^`]+)`")
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)


@dataclass
class Label:
    """What a label stands for: an equation, a figure, an exercise or a section, by its number, such as 4.2."""

    kind: str
    notebook: str
    number: str
    title: str = ""


@dataclass
class Book:
    """What the conversion of one notebook must know of the others."""

    root: Path
    site: str
    titles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)

    @functools.cached_property
    def numbers(self) -> dict[str, str]:
        """The measured numbers by name."""
        return numbers(self.root)

    @functools.cached_property
    def references(self):
        """The entries of references.bib by key."""
        return parse_file(str(self.root / "references.bib")).entries


def numbered(notebook: str, count: int) -> str:
    """Returns the number of the figure, equation or exercise that is the `count`-th of a chapter, NN_name."""
    return f"{int(notebook[:2])}.{count}"


def read_book(root: Path = ROOT) -> Book:
    """Reads the titles and labels of all chapters."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    book = Book(root, config["sphinx"]["config"]["html_baseurl"].rstrip("/"))
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        count = dict.fromkeys(("eq", "fig", "exercise"), 0)
        for cell in nbformat.read(path, as_version=4).cells:
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if figure:
                count["fig"] += 1
                if "name" in figure:
                    book.labels[figure["name"]] = Label("fig", path.stem, numbered(path.stem, count["fig"]))
            if cell.cell_type != "markdown":
                continue
            if path.stem not in book.titles:
                book.titles[path.stem] = cell.source.splitlines()[0].removeprefix("# ")
            for name, title, label in re.findall(r"^`{3,}\{(math|exercise)\} ?(.*)\n:label: (\S+)", cell.source, re.M):
                kind = {"math": "eq"}.get(name, name)
                count[kind] += 1
                book.labels[label] = Label(kind, path.stem, numbered(path.stem, count[kind]), title)
            for found in TARGET.finditer(cell.source):
                heading = re.search(r"^#+ (.*)$", cell.source[found.end() :], re.MULTILINE)[1]
                book.labels[found[1]] = Label("section", path.stem, "", heading)
    return book


# Looked up once: pybtex would read the entry points of all installed packages for each text.
TEXT = find_plugin("pybtex.backends", "text")()


@functools.cache
def plain_latex(text: str) -> str:
    """Returns a BibTeX field as text."""
    return Text.from_latex(text).render(TEXT)


def people(entry) -> list[str]:
    """Returns the last names of an entry's authors."""
    return [plain_latex(" ".join(p.prelast_names + p.last_names)) for p in entry.persons["author"]]


def short(entry) -> str:
    """Returns the authors of an entry as a citation names them."""
    names = people(entry)
    return names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."


def reference(entry) -> str:
    """Returns an entry's line in the list of references."""
    get = entry.fields.get
    venue = get("journal") or get("booktitle") or get("publisher") or get("howpublished") or ""
    text = f"{', '.join(people(entry))} ({get('year')}). *{plain_latex(get('title'))}*."
    if venue and "\\url" not in venue:
        text += f" {plain_latex(venue)}."
    if get("doi"):
        text += f" [doi:{get('doi')}](https://doi.org/{get('doi')})"
    elif get("eprint"):
        text += f" [arXiv:{get('eprint')}](https://arxiv.org/abs/{get('eprint')})"
    elif get("url"):
        text += f" <{get('url')}>"
    return text


def included(path: Path, options: dict[str, str]) -> str:
    """Returns the part of a file that a literalinclude with these options shows."""
    lines = path.read_text(encoding="utf8").splitlines()
    if name := options.get("pyobject"):
        tree = ast.parse("\n".join(lines))
        for part in name.split("."):
            tree = next(node for node in tree.body if getattr(node, "name", None) == part)
        first = min([tree.lineno, *(decorator.lineno for decorator in tree.decorator_list)])
        lines = lines[first - 1 : tree.end_lineno]
    if start := options.get("start-at"):
        lines = lines[next(i for i, line in enumerate(lines) if start in line) :]
    if end := options.get("end-before"):
        lines = lines[: next(i for i, line in enumerate(lines) if i and end in line)]
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines).strip("\n")


class Converter:
    """Converts the text of one notebook, cell by cell; remembers what it cited and whether a solution is open."""

    def __init__(self, book: Book, notebook: str):
        self.book, self.notebook = book, notebook
        self.cited: set[str] = set()
        self.solution: str | None = None
        self.cell = ""

    def fail(self, what: str) -> ValueError:
        """Returns the error for something that this module does not know."""
        return ValueError(f"{self.notebook}, cell {self.cell}: {what}")

    def label(self, name: str) -> tuple[Label, str]:
        """Returns what a label stands for, and " of <chapter>" where that is another one."""
        if name not in self.book.labels:
            raise self.fail(f"no label {name!r}")
        label = self.book.labels[name]
        there = "" if label.notebook == self.notebook else f" of {self.chapter(label.notebook)}"
        return label, there

    def chapter(self, name: str, text: str = "") -> str:
        """Returns a link to the plain edition of a chapter."""
        return f"[{text or self.book.titles[name]}]({name}.ipynb)"

    def role(self, match: re.Match) -> str:
        """Returns what stands for a role."""
        name, content = match.groups()
        named = re.fullmatch(r"(.*?)\s*<([^>]+)>", content, re.DOTALL)
        text, target = (named[1], named[2]) if named else ("", content)
        if name == "index":
            return text or content
        if name in ("cite", "cite:t", "cite:p"):
            keys = [key.strip() for key in content.split(",")]
            if unknown := [key for key in keys if key not in self.book.references]:
                raise self.fail(f"no entry in references.bib: {unknown}")
            self.cited.update(keys)
            entries = [self.book.references[key] for key in keys]
            if name == "cite:t":
                return ", ".join(f"{short(entry)} ({entry.fields['year']})" for entry in entries)
            return "(" + "; ".join(f"{short(entry)}, {entry.fields['year']}" for entry in entries) + ")"
        if name == "doc":
            page = (Path("notebooks") / target).as_posix()
            page = os.path.normpath(page).replace(os.sep, "/")
            if page.removeprefix("notebooks/") in self.book.titles:
                return self.chapter(page.removeprefix("notebooks/"), text)
            return f"[{text or page.removeprefix('book/')}]({self.book.site}/{page}.html)"
        if name in ("eq", "numref", "ref"):
            label, there = self.label(target)
            if label.kind == "section":
                return f"[{text or label.title}]({self.book.site}/notebooks/{label.notebook}.html#{target})"
            written = {"eq": f"({label.number})", "fig": f"Figure {label.number}"}
            return (text or written.get(label.kind, f"exercise {label.number}")) + there
        raise self.fail(f"unknown role {name!r}")

    def inline(self, text: str) -> str:
        """Resolves roles and substitutions."""

        def number(match: re.Match) -> str:
            if match[1] not in self.book.numbers:
                raise self.fail(f"no number {match[1]!r} in book/measured.py")
            return self.book.numbers[match[1]]

        return ROLE.sub(self.role, re.sub(r"\{\{ *(\w+) *\}\}", number, TARGET.sub("", text)))

    def directive(self, name: str, argument: str, body: list[str]) -> str:
        """Returns the Markdown that stands for a directive."""
        options = {}
        while body and (option := re.match(r"^:([a-z-]+):\s*(.*)$", body[0])):
            options[option[1]] = option[2].strip().strip('"')
            body = body[1:]
        content = "\n".join(body).strip("\n")
        if name == "math":
            tag = f" \\tag{{{self.book.labels[options['label']].number}}}" if "label" in options else ""
            return f"$$\n{content}{tag}\n$$"
        if name in ("admonition", "note", "tip", "warning", "important"):
            title = argument or name.capitalize()
            if "dropdown" in options.get("class", ""):
                return f"<details><summary>{title}</summary>\n\n{self.convert(content)}\n\n</details>"
            lines = [f"**{title}**", "", *self.convert(content).splitlines()]
            return "\n".join(f"> {line}".rstrip() for line in lines)
        if name == "exercise":
            number = self.label(options["label"])[0].number
            return f"### Exercise {number}: {argument}\n\n{self.convert(content)}"
        if name == "solution":
            return self.details(self.label(argument)[0].number, self.convert(content))
        if name == "literalinclude":
            path = (self.book.root / "notebooks" / argument).resolve()
            language = options.get("language", {".py": "python", ".yaml": "yaml"}.get(path.suffix, ""))
            language = "cpp" if language == "cuda" else language
            source = path.relative_to(self.book.root.resolve()).as_posix()
            return f"From `{source}`:\n\n```{language}\n{included(path, options)}\n```"
        if name == "network":
            return f"*A network runs in this chapter's page: <{self.book.site}/notebooks/{self.notebook}.html>*"
        raise self.fail(f"unknown directive {name!r}")

    @staticmethod
    def details(number: str, text: str) -> str:
        """Returns a solution that opens at a click."""
        return f"<details><summary>Solution to exercise {number}</summary>\n\n{text.strip()}\n\n</details>"

    def convert(self, text: str) -> str:
        """Converts a cell's text."""
        lines, position = text.splitlines(), 0
        done: list[str] = []  # what stands outside a solution, and finished solutions
        inside: list[str] = []  # what stands in the open one
        prose: list[str] = []

        def flush() -> None:
            if prose:
                (inside if self.solution else done).append(self.inline("\n".join(prose)))
                prose.clear()

        def close() -> None:
            content = "\n".join(inside).strip()
            if content:
                done.append(self.details(self.solution, content))
            inside.clear()

        while position < len(lines):
            fence = FENCE.match(lines[position])
            if not fence:
                prose.append(lines[position])
                position += 1
                continue
            end = next((i for i in range(position + 1, len(lines)) if lines[i].rstrip() == fence[1]), None)
            if end is None:
                raise self.fail(f"no end of {lines[position]!r}")
            body = lines[position + 1 : end]
            flush()
            if fence[2] == "solution-start":
                self.solution = self.label(fence[3].strip())[0].number
            elif fence[2] == "solution-end":
                close()
                self.solution = None
            elif fence[2]:
                part = self.directive(fence[2], fence[3].strip(), body)
                (inside if self.solution else done).append(part)
            else:
                (inside if self.solution else done).append("\n".join(lines[position : end + 1]))
            position = end + 1
        flush()
        if self.solution:
            close()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(done)).strip("\n")


def plain(path: Path, book: Book) -> nbformat.NotebookNode:
    """Returns the plain edition of the notebook at `path`."""
    notebook = nbformat.read(path, as_version=4)
    converter = Converter(book, path.stem)
    cells, figures = [], 0
    for cell in notebook.cells:
        converter.cell = cell.id
        if cell.cell_type == "markdown":
            text = converter.convert(cell.source)
            if not cells:
                title, _, rest = text.partition("\n")
                page = f"{book.site}/notebooks/{path.stem}.html"
                text = f"{title}\n\n*This chapter in the book, with its figures and live elements: <{page}>*\n{rest}"
            if converter.solution and text and not text.endswith("</details>"):
                text += f"\n\nSolution to exercise {converter.solution}, in code:"
            elif converter.solution:
                text += "\n\nIn code:" if text else f"Solution to exercise {converter.solution}, in code:"
            if text:
                cells.append(nbformat.v4.new_markdown_cell(text, id=cell.id))
            continue
        tags = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        cells.append(nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata=tags))
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if figure:
            figures += 1
            caption = converter.inline(figure["caption"])
            number = numbered(path.stem, figures)
            cells.append(nbformat.v4.new_markdown_cell(f"*Figure {number}.* {caption}", id=f"{cell.id}-caption"))
    if converter.cited:
        entries = sorted((book.references[key] for key in converter.cited), key=lambda e: (short(e), e.fields["year"]))
        text = "## References\n\n" + "\n".join(f"- {reference(entry)}" for entry in entries)
        cells.append(nbformat.v4.new_markdown_cell(text, id="references"))
    metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def editions(root: Path = ROOT) -> dict[str, str]:
    """Returns the text of every file of the plain edition by its name."""
    book = read_book(root)
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return {path.name: nbformat.writes(plain(path, book)) + "\n" for path in paths}


def write(check: bool = False) -> int:
    """Writes the files that differ, and removes those of no chapter; with `check` names them and returns 1."""
    folder = ROOT / "notebooks/plain"
    wanted = editions()
    present = {path.name: path.read_text(encoding="utf8") for path in folder.glob("*.ipynb")}
    changed = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if check:
        print("\n".join(f"notebooks/plain/{name} is not up to date" for name in changed), end="\n" if changed else "")
        return int(bool(changed))
    folder.mkdir(exist_ok=True)
    for name in changed:
        if name not in wanted:
            (folder / name).unlink()
            continue
        write_file(folder / name, wanted[name])
    print(f"{len(changed)} of {len(wanted)} files written to {folder}")
    return 0
