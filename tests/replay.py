"""A plugin for nbval that executes no notebook twice: `pytest -p tests.replay --nbval-lax notebooks/...`.

Where `python -m book execute` has executed a notebook against today's library, nbval gets its outputs from there and
compares them as it compares a kernel's; any other notebook has a kernel as ever.
"""

from __future__ import annotations

from collections import deque
from itertools import count

import nbformat
import pytest
from jupyter_cache import get_cache
from nbval.plugin import IPyNbFile

from book.executing import cache_folder


class ReplayedKernel:
    """What nbval asks of a kernel, answered from the cells of an executed notebook."""

    def __init__(self, notebook: nbformat.NotebookNode):
        self.cells = (cell for cell in notebook.cells if cell.cell_type == "code")
        self.messages: deque[dict] = deque()
        self.numbers = count()

    def is_alive(self) -> bool:
        return True

    def execute_cell_input(self, source: str, allow_stdin: bool | None = None) -> int:
        """Goes on to the cell with this source; nbval leaves out those that it is told to skip."""
        number = next(self.numbers)
        cell = next((cell for cell in self.cells if cell.source == source), None)
        if cell is None:
            raise RuntimeError(f"the executed notebook has no such cell from here on: {source!r}")
        answers = [(output.output_type, output) for output in cell.outputs]
        for kind, content in [*answers, ("status", {"execution_state": "idle"})]:
            self.messages.append({"msg_type": kind, "content": content, "parent_header": {"msg_id": number}})
        return number

    def await_reply(self, number: int, timeout: float | None = None) -> None:
        pass

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        return self.messages.popleft()

    def await_idle(self, number: int, timeout: float) -> None:
        self.messages.clear()

    def stop(self) -> None:
        pass


def pytest_configure(config: pytest.Config) -> None:
    """Puts the replay before nbval's own start of a kernel."""
    folder, start_kernel = cache_folder(), IPyNbFile.setup
    if not folder.is_dir():
        return
    cache = get_cache(folder)

    def setup(notebook: IPyNbFile) -> None:
        try:
            record = cache.match_cache_notebook(notebook.nb)
        except KeyError:
            start_kernel(notebook)
            return
        notebook.kernel = ReplayedKernel(cache.get_cache_bundle(record.pk).nb)
        notebook.setup_sanitize_files()

    IPyNbFile.setup = setup
