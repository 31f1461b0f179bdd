"""A reader's function is told what it gets wrong, and nothing stops the page."""

from rwkvlib.bookkit import attempt


def check_double(double):
    assert double(2) == 4, "double(2) is 4"


def test_a_right_function_passes(capsys):
    attempt(lambda x: 2 * x, check_double)
    assert capsys.readouterr().out.endswith(": all checks pass\n")


def test_a_wrong_or_missing_one_is_told_what_is_wrong(capsys):
    def double(x):
        return x * x + 1

    def missing(x):
        raise NotImplementedError

    def failing(x):
        return x["two"]

    for function in (double, missing, failing):
        attempt(function, check_double)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("double: not yet. AssertionError: double(2) is 4")
    assert second == "missing: not yet. NotImplementedError"
    assert third.startswith("failing: not yet. TypeError: ")
