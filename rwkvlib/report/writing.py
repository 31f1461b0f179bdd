"""``python -m rwkvlib report --out report``: every table and figure of the report, as files."""

from __future__ import annotations

from pathlib import Path

from ..bookkit.style import use_style
from ..files import replacing, write_file
from .figures import FIGURES
from .tables import TABLES


def write_report(out: str | Path) -> list[Path]:
    """Writes every table as CSV and every figure as SVG into the folder `out`; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    use_style()
    plt.rcParams["svg.hashsalt"] = "rwkvlib"  # or each drawing has other names inside
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in TABLES.items():
        written.append(out / f"{name}.csv")
        write_file(written[-1], make().to_csv(index=False, float_format="%.5g"))
    for name, make in FIGURES.items():
        written.append(out / f"{name}.svg")
        figure = make()
        with replacing(written[-1]) as file:
            figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
    return written
