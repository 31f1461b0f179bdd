"""What the chapters share: the style of figures, live elements, exercises, and tables of stored results.

Nothing else in the library imports this package, but `rwkvlib.report`.
"""

from .exercises import attempt
from .live import live
from .results import read_result, reference_file, table
from .style import PALETTE, use_style

__all__ = ["PALETTE", "attempt", "live", "read_result", "reference_file", "table", "use_style"]
