"""In a checkout: the folder ``data_scripts`` beside this package, which is this one where the library is installed."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "data_scripts")]
