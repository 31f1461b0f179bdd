"""Draws the architecture map of the welcome page, book/_static/architecture.svg: every box leads to its chapter.

Run it again after a change: python book/draw_map.py (a test compares).
"""

from html import escape
from pathlib import Path

OUT = Path(__file__).parent / "_static" / "architecture.svg"
WIDTH, HEIGHT = 760, 640
FILL = {"encoder": "#cfe3f3", "attention": "#9cc7ea", "mix": "#f6dcc0", "decoder": "#cdebdc", "plain": "#ffffff"}
CHAPTERS = {
    "operator": "04_wkv",
    "fast": "05_fast_bi_wkv",
    "audit": "06_audit",
    "mix": "07_q_shift_spatial_mix",
    "glsp": "08_glsp",
    "encoder": "09_encoder",
    "unet": "10_unet",
    "training": "12_training",
    "seeing": "15_seeing",
}


def box(x: float, y: float, w: float, h: float, lines: list[str], fill: str, chapter: str) -> str:
    """A rectangle with centred lines of text, the first in bold, that links to a chapter."""
    page, bold = CHAPTERS[chapter], ' style="font-weight:bold"'
    number = int(page[:2])
    text = "".join(
        f'<text x="{x + w / 2:g}" y="{y + h / 2 + 6 + 19 * (i - (len(lines) - 1) / 2):g}"'
        f"{bold if i == 0 else ''}>{escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    return (
        f'<a href="../notebooks/{page}.html" aria-label="{escape(" ".join(lines))}: chapter {number}">'
        f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="7" fill="{FILL[fill]}"/>{text}</a>'
    )


def arrow(*points: tuple[float, float]) -> str:
    """A polyline with an arrow head at its end."""
    return f'<polyline points="{" ".join(f"{x:g},{y:g}" for x, y in points)}" marker-end="url(#head)"/>'


def draw() -> str:
    """The whole picture as SVG text."""
    parts = []
    rows = [78, 148, 218, 288, 358]  # top of the encoder's boxes: stem and stages
    names = [
        ("Stem", "24 channels, full size"),
        ("Stage 1", "1/2 size"),
        ("Stage 2", "1/4 size"),
        ("Stage 3 + Bi-WKV", "1/8 size"),
        ("Stage 4 + Bi-WKV", "1/16 size"),
    ]
    for i, (y, lines) in enumerate(zip(rows, names, strict=True)):
        parts.append(box(30, y, 190, 50, list(lines), "attention" if i > 2 else "encoder", "encoder"))
        if i:
            parts.append(arrow((125, rows[i - 1] + 50), (125, y - 3)))
    parts.append('<text x="125" y="40">image (B, 3, H, W)</text>')
    parts.append(arrow((125, 48), (125, 75)))
    parts.append(
        box(300, 148, 150, 190, ["Cross-channel", "mix (CCM)", "skips meet", "before they go on"], "mix", "unet")
    )
    blocks = [(288, "Decoder 1"), (218, "Decoder 2"), (148, "Decoder 3"), (78, "Decoder 4")]
    for i, (y, name) in enumerate(blocks):
        parts.append(box(530, y, 200, 50, [name, "9x9 depthwise, x2"], "decoder", "unet"))
        if i:
            parts.append(arrow((630, blocks[i - 1][0] - 0), (630, y + 53)))
    for y in (173, 243, 313):
        parts.append(arrow((220, y), (297, y)))
    # The mixed skips enter below the decoder block that they are concatenated for.
    for y_from, y_to in ((313, 278), (243, 208), (173, 138)):
        parts.append(arrow((450, y_from), (490, y_from), (490, y_to), (622, y_to)))
    parts.append(arrow((220, 383), (630, 383), (630, 341)))
    parts.append('<text x="630" y="40">mask (B, classes, H, W)</text>')
    parts.append(arrow((630, 78), (630, 50)))

    parts.append('<rect x="14" y="432" width="732" height="194" rx="10" class="inset"/>')
    parts.append(
        '<text x="30" y="456" class="plain left">Every stage is a row of GLSP blocks. In one with attention:</text>'
    )
    y = 472
    parts.append(box(30, y, 110, 62, ["GLSP", "norm, 1x1"], "encoder", "glsp"))
    parts.append(box(170, y, 260, 62, ["Spatial Mix", "Q-Shift, k, v, r, gate"], "attention", "mix"))
    parts.append(box(460, y, 130, 62, ["Depthwise", "5x5, local"], "encoder", "glsp"))
    parts.append(box(620, y, 110, 62, ["1x1", "+ residual"], "encoder", "glsp"))
    for a, b in ((140, 170), (430, 460), (590, 620)):
        parts.append(arrow((a, y + 31), (b - 3, y + 31)))
    parts.append(box(30, 564, 120, 50, ["Seeing", "when trained"], "plain", "seeing"))
    parts.append(box(170, 564, 120, 50, ["Bi-WKV", "definition"], "attention", "operator"))
    parts.append(box(310, 564, 120, 50, ["Fast", "and stable"], "attention", "fast"))
    parts.append(box(450, 564, 130, 50, ["Audit", "as published"], "mix", "audit"))
    parts.append(box(600, 564, 130, 50, ["Training", "loss to mask"], "plain", "training"))
    parts.append(arrow((230, 564), (230, y + 65)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" class="architecture-map" role="group" '
        'aria-label="Architecture map of RWKV-UNet: every box leads to its chapter">\n'
        "<style>.architecture-map text{font:15px sans-serif;text-anchor:middle;fill:#1a1a1a}"
        ".architecture-map text.left{text-anchor:start}.architecture-map rect{stroke:#33526b;stroke-width:1.3}"
        ".architecture-map rect.ground{fill:#fff;stroke:none}"
        ".architecture-map rect.inset{fill:none;stroke-dasharray:5 4}"
        ".architecture-map polyline{fill:none;stroke:#33526b;stroke-width:1.6}"
        ".architecture-map a:hover rect,.architecture-map a:focus rect{stroke-width:3}</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#33526b"/></marker></defs>\n'
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="10"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf8")
