"""What this book adds to Sphinx: quizzes and a network that need no server, pages without solutions, numbers by
chapter, a sitemap, and links to the plain edition."""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.directive import ExerciseDirective

ROOT = Path(__file__).resolve().parent.parent


def raw(text: str) -> nodes.raw:
    """Returns HTML that is written as it is."""
    return nodes.raw("", text, format="html")


class Quiz(SphinxDirective):
    """A question with one right answer: `{quiz} id`, paragraphs, then a list of `( ) option` and one `(x) option`.

    What follows an option's first paragraph is shown once it is chosen. It is radio buttons and a rule of style, so it
    works without a script.
    """

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = nodes.make_id(self.arguments[0])
        parsed = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, parsed)
        options = [item for part in parsed.children if isinstance(part, nodes.bullet_list) for item in part.children]
        question = [part for part in parsed.children if not isinstance(part, nodes.bullet_list)]
        marks = [re.match(r"\(([ x])\)\s", item.astext()) for item in options]
        if not question or len(options) < 2 or not all(marks) or [mark[1] for mark in marks].count("x") != 1:
            raise self.error(
                f"quiz {name}: expected a question and a list of options, each beginning with ( ) and one with (x)"
            )
        result = [raw(f'<div class="rwkv-quiz" id="{name}"><div id="{name}-question">'), *question, raw("</div>")]
        result.append(raw(f'<div role="radiogroup" aria-labelledby="{name}-question">'))
        for number, (item, mark) in enumerate(zip(options, marks, strict=True)):
            first, *feedback = item.children
            if not feedback:
                raise self.error(f"quiz {name}: option {number + 1} says nothing when it is chosen")
            text = first.children[0]
            first.replace(text, nodes.Text(text.astext()[len(mark[0]) :]))
            field = html.escape(f"{name}-{number}")
            kind = "right" if mark[1] == "x" else "wrong"
            label = raw(f'<input type="radio" name="{name}" id="{field}"> <label for="{field}">')
            result += [
                raw('<div class="rwkv-option">'),
                nodes.paragraph("", "", label, *first.children, raw("</label>")),
                raw(f'<div class="rwkv-feedback rwkv-{kind}" role="status">'),
                *feedback,
                raw("</div></div>"),
            ]
        return [*result, raw("</div></div>")]


class Network(SphinxDirective):
    """A network that runs in the page once the reader asks (book/network.py, _static/network.js); until then, and where
    it cannot run, its masks on the pictures that it offers."""

    def run(self) -> list[nodes.Node]:
        static = "../" * self.env.docname.count("/") + "_static/network/stored.png"
        says = "Four generated pictures above; below, the same with what the smallest network marks on them."
        return [raw(f'<div class="rwkv-network"><img src="{static}" alt="{says}"></div>')]


class Exercise(ExerciseDirective):
    """An exercise whose title ends in its grade: the page puts the whole title in brackets, so the grade has none."""

    def run(self) -> list[nodes.Node]:
        self.arguments = [re.sub(r" \((easy|medium|hard)\)$", r", \1", title) for title in self.arguments]
        return super().run()


def remove_solutions(app: Sphinx, doctree: nodes.document) -> None:
    """Takes the solutions out of a page when the book is built without them; their cells have run all the same."""
    from sphinx_exercise.nodes import solution_node

    if not app.config.rwkv_solutions:
        for node in list(doctree.findall(solution_node)):
            node.parent.remove(node)


def number_by_chapter(app: Sphinx, env) -> list[str]:
    """Gives what is numbered in a chapter, notebooks/NN_name, the numbers NN.1, NN.2 and so on."""
    for page, kinds in env.toc_fignumbers.items():
        if chapter := re.match(r"notebooks/(\d\d)_", page):
            for numbers in kinds.values():
                for place, label in enumerate(sorted(numbers, key=numbers.get), 1):
                    numbers[label] = (int(chapter[1]), place)
    return []


def link_plain_edition(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Let the Colab button open the plain edition at the version that its setup cell installs."""
    setup = (ROOT / "book/setup_cell.py").read_text(encoding="utf8")
    tag = re.search(r"git\+\S+?@([^\"\s]+)", setup)[1]
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                page = pagename.removeprefix("notebooks/")
                root = re.match(r".*?/github/[^/]+/[^/]+/blob/", button["url"])[0]
                button["url"] = f"{root}{tag}/notebooks/plain/{page}.ipynb"
                button["tooltip"] = "Run this chapter on Colab"


def write_sitemap(app: Sphinx, error: Exception | None) -> None:
    """Writes sitemap.xml, the list of pages for search engines."""
    if error or app.builder.name != "html":
        return
    base = app.config.html_baseurl.rstrip("/")
    links = "".join(f"<url><loc>{base}/{name}.html</loc></url>\n" for name in sorted(app.env.found_docs))
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{links}'
    )
    Path(app.outdir, "sitemap.xml").write_text(text + "</urlset>\n", encoding="utf8")


def setup(app: Sphinx) -> dict:
    """Register everything above."""
    app.add_directive("quiz", Quiz)
    app.add_directive("network", Network)
    app.add_directive("exercise", Exercise, override=True)
    app.add_config_value("rwkv_solutions", True, "env", [bool])
    app.connect("doctree-read", remove_solutions)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered them through
    app.connect("html-page-context", link_plain_edition, priority=900)
    app.connect("build-finished", write_sitemap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
