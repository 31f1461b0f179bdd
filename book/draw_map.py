"""Draws the architecture map of the welcome page and the book's icon into book/_static: every chapter has its place on
the map, and every box leads to its chapter.

Run it again after a change: python -m book map (a test compares).
"""

from html import escape
from pathlib import Path

from rwkvlib.files import write_file

STATIC = Path(__file__).parent / "_static"
WIDTH, HEIGHT = 760, 690
FILL = {"encoder": "#cfe3f3", "attention": "#9cc7ea", "mix": "#f6dcc0", "decoder": "#cdebdc", "plain": "#ffffff"}
CHAPTERS = {
    "ten": "00_ten_minutes",
    "scoring": "01_scoring",
    "u": "02_unet",
    "linear": "03_attention_to_wkv",
    "operator": "04_wkv",
    "fast": "05_fast_bi_wkv",
    "audit": "06_audit",
    "mix": "07_q_shift_spatial_mix",
    "glsp": "08_glsp",
    "encoder": "09_encoder",
    "unet": "10_unet",
    "data": "11_data",
    "training": "12_training",
    "reproduction": "13_reproduction",
    "ablations": "14_ablations",
    "seeing": "15_seeing",
    "home": "16_at_home",
    "starts": "17_pretraining",
    "kernel": "18_cuda_kernel",
}


def shape(x: float, y: float, w: float, h: float, lines: list[str], fill: str) -> str:
    """A rectangle with centred lines of text, the first in bold."""
    bold = ' style="font-weight:bold"'
    text = "".join(
        f'<text x="{x + w / 2:g}" y="{y + h / 2 + 6 + 19 * (i - (len(lines) - 1) / 2):g}"'
        f"{bold if i == 0 else ''}>{escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="7" fill="{FILL[fill]}"/>{text}'


def link(chapter: str, name: str, *shapes: str) -> str:
    """Shapes that lead to one chapter, together: one link, whose name is read aloud."""
    page = CHAPTERS[chapter]
    label = f'aria-label="{escape(name)}: chapter {int(page[:2])}"'
    return f'<a href="../notebooks/{page}.html" {label}>{"".join(shapes)}</a>'


def box(x: float, y: float, w: float, h: float, lines: list[str], fill: str, chapter: str) -> str:
    """A rectangle that leads to a chapter."""
    return link(chapter, " ".join(lines), shape(x, y, w, h, lines, fill))


def arrow(*points: tuple[float, float]) -> str:
    """A polyline with an arrow head at its end."""
    return f'<polyline points="{" ".join(f"{x:g},{y:g}" for x, y in points)}" marker-end="url(#head)"/>'


def draw() -> str:
    """The whole picture as SVG text."""
    parts = []
    rows = [88, 158, 228, 298, 368]  # top of the encoder's boxes: stem and stages
    names = [
        ("Stem", "24 channels, full size"),
        ("Stage 1", "1/2 size"),
        ("Stage 2", "1/4 size"),
        ("Stage 3 + Bi-WKV", "1/8 size"),
        ("Stage 4 + Bi-WKV", "1/16 size"),
    ]
    stages = zip(rows, names, strict=True)
    encoder = [shape(30, y, 190, 50, lines, "attention" if y > 250 else "encoder") for y, lines in stages]
    parts.append(link("encoder", "Encoder: stem and four stages", *encoder))
    parts += [arrow((125, y + 50), (125, y + 67)) for y in rows[:-1]]
    parts.append(box(30, 14, 190, 50, ["Data", "image (B, 3, H, W)"], "plain", "data"))
    parts.append(arrow((125, 64), (125, 85)))
    parts.append(box(285, 14, 180, 110, ["The U", "deep maps see far,", "skips keep the detail"], "plain", "u"))
    mix = shape(300, 158, 150, 190, ["Cross-channel", "mix (CCM)", "skips meet", "before they go on"], "mix")
    blocks = [(298, "Decoder 1"), (228, "Decoder 2"), (158, "Decoder 3"), (88, "Decoder 4")]
    decoder = [shape(530, y, 200, 50, [name, "9x9 depthwise, x2"], "decoder") for y, name in blocks]
    parts.append(link("unet", "Cross-channel mix and decoder", mix, *decoder))
    parts += [arrow((630, y), (630, y - 17)) for y, _ in blocks[:-1]]
    for y in (183, 253, 323):
        parts.append(arrow((220, y), (297, y)))
    # The mixed skips enter below the decoder block that they are concatenated for.
    for y_from, y_to in ((323, 288), (253, 218), (183, 148)):
        parts.append(arrow((450, y_from), (490, y_from), (490, y_to), (622, y_to)))
    parts.append(arrow((220, 393), (630, 393), (630, 351)))
    parts.append(box(530, 14, 200, 50, ["Scoring", "mask (B, classes, H, W)"], "plain", "scoring"))
    parts.append(arrow((630, 88), (630, 67)))

    parts.append('<rect x="14" y="436" width="732" height="178" rx="10" class="inset"/>')
    parts.append(
        '<text x="30" y="460" class="plain left">Every stage is a row of GLSP blocks. In one with Spatial Mix:</text>'
    )
    y = 474
    glsp = [shape(30, y, 110, 58, ["GLSP", "norm, 1x1"], "encoder")]
    glsp += [shape(460, y, 130, 58, ["Depthwise", "5x5, local"], "encoder")]
    glsp += [shape(620, y, 110, 58, ["1x1", "+ residual"], "encoder")]
    parts.append(link("glsp", "GLSP block", *glsp))
    parts.append(box(170, y, 260, 58, ["Spatial Mix", "Q-Shift, k, v, r, gate"], "attention", "mix"))
    for a, b in ((140, 170), (430, 460), (590, 620)):
        parts.append(arrow((a, y + 29), (b - 3, y + 29)))
    parts.append(box(30, 552, 170, 50, ["Attention", "and how it got linear"], "attention", "linear"))
    parts.append(box(216, 552, 114, 50, ["Bi-WKV", "definition"], "attention", "operator"))
    parts.append(box(346, 552, 114, 50, ["Fast", "and stable"], "attention", "fast"))
    parts.append(box(476, 552, 124, 50, ["CUDA kernel", "line by line"], "attention", "kernel"))
    parts.append(box(616, 552, 114, 50, ["Audit", "as published"], "mix", "audit"))
    parts.append(arrow((273, 552), (273, y + 61)))
    last = [
        (["Ten minutes", "start to end"], "ten"),
        (["Starts", "pretrained"], "starts"),
        (["Training", "loss to mask"], "training"),
        (["Evidence", "how sure"], "reproduction"),
        (["Ablations", "part by part"], "ablations"),
        (["Seeing", "when trained"], "seeing"),
        (["At home", "your images"], "home"),
    ]
    parts += [box(14 + 106 * i, 628, 96, 50, lines, "plain", chapter) for i, (lines, chapter) in enumerate(last)]
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


def draw_icon() -> str:
    """The book's icon: the U of the network, its middle bar the skip connection."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        '<rect width="32" height="32" rx="6" fill="#0072b2"/>'
        '<path d="M8 6v12a8 8 0 0 0 16 0V6" fill="none" stroke="#fff" stroke-width="5"/>'
        '<path d="M11 10h9" stroke="#e69f00" stroke-width="3"/></svg>\n'
    )


FILES = {STATIC / "architecture.svg": draw, STATIC / "favicon.svg": draw_icon}


def main() -> int:
    """Writes both files; returns the exit code."""
    for path, make in FILES.items():
        write_file(path, make())
    return 0
