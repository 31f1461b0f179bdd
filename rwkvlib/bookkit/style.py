"""One style for every figure of the book."""

from __future__ import annotations

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness, the dark ones first:
# yellow is too pale for a line on white.
PALETTE = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "black": "#1A1A1A",
    "grey": "#7F7F7F",
}


def use_style() -> None:
    """Sets matplotlib to the book's style for the rest of the session.

    Figures are PNG at twice the resolution of the page, on white even where the page is dark: a transparent figure's
    black text would vanish there.
    """
    import matplotlib as mpl
    from matplotlib.rcsetup import cycler

    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]})
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 90,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 180,
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=list(PALETTE.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "image.cmap": "viridis",
            "image.interpolation": "nearest",
        }
    )
    try:
        shell = get_ipython()  # type: ignore[name-defined]
    except NameError:  # a script, not a notebook
        return
    if not hasattr(shell, "kernel"):
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("retina")
