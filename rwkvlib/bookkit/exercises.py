"""Exercises whose answer is a function that the reader writes."""

from __future__ import annotations

from collections.abc import Callable


def attempt(function: Callable, test: Callable[[Callable], None]) -> None:
    """Runs an exercise's test on the function that a reader wrote, and prints that it passes, or where it does not.

    ``test`` takes the function and raises an error, of any kind, at the first thing that it gets wrong.
    """
    try:
        test(function)
    except Exception as error:
        lines = str(error).strip().splitlines()
        print(f"{function.__name__}: not yet. {type(error).__name__}" + (f": {lines[0]}" if lines else ""))
    else:
        print(f"{function.__name__}: all checks pass")
