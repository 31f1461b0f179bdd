"""What the book adds to Sphinx."""

from types import SimpleNamespace

from book.extension import number_by_chapter


def test_figures_equations_and_exercises_have_the_chapters_number():
    numbers = {
        "notebooks/04_wkv": {"figure": {"fig-b": (12,), "fig-a": (9,)}, "exercise": {"ex": (20,)}},
        "book/quiz_operator": {"figure": {"fig-q": (13,)}},
    }
    number_by_chapter(None, SimpleNamespace(toc_fignumbers=numbers))
    assert numbers["notebooks/04_wkv"] == {"figure": {"fig-b": (4, 2), "fig-a": (4, 1)}, "exercise": {"ex": (4, 1)}}
    assert numbers["book/quiz_operator"] == {"figure": {"fig-q": (13,)}}
