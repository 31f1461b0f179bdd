"""Abdominal-CT-like volumes with the eight organs of the Synapse (BTCV) benchmark."""

import math
from collections.abc import Sequence

import numpy as np

from .noise import smooth_volume

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")  # 1 to 8

# Of contrast-enhanced CT in the portal venous phase, Hounsfield units: mean, and standard deviation over patients.
HU = {
    "aorta": (170, 8),
    "gallbladder": (12, 4),
    "kidney": (175, 12),
    "liver": (110, 8),
    "pancreas": (92, 6),
    "spleen": (124, 8),
    "stomach": (25, 6),
    "vein": (140, 10),
    "muscle": (58, 4),
    "fat": (-102, 5),
}


class _Body:
    """Coordinates of a volume, and shapes in them: u to the image's right, v to the back, both 1 at the skin; t from
    0 at the lowest slice to 1 at the highest. They bend a little, so that no two bodies have organs of one shape."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int], aspect: float, field: float):
        depth, height, width = shape
        self.aspect = aspect  # the body's depth (front to back) as a share of its width
        t = ((np.arange(depth, dtype=np.float32) + 0.5) / depth)[:, None, None]
        v = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.5)[:, None] * (2 * field / aspect)
        u = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * (2 * field)
        self.plain = t, v, u
        self.t, self.v, self.u = (c + 0.025 * smooth_volume(rng, shape, 3) for c in self.plain)

    def _square(self, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0):
        """The box of voxels that may be within two radii, bends included, and the squared distances in it."""
        # Python's floats, as NumPy's would make float64 of the volume.
        (u0, v0, t0), (a0, b0, c0) = (map(float, x) for x in (centre, radii))
        b0 *= self.aspect
        reach = c0, max(a0, b0) / self.aspect, max(a0, b0)
        slices = []
        for along, middle, r in zip(self.plain, (t0, v0, u0), reach, strict=True):
            slices.append(slice(*np.searchsorted(along.ravel(), [middle - 2 * r - 0.15, middle + 2 * r + 0.15])))
        box = tuple(slices)
        t, v, u = self.t[box] - t0, (self.v[box] - v0) * self.aspect, self.u[box] - u0
        if turn:
            c, s = math.cos(turn), math.sin(turn)
            u, v = c * u + s * v, c * v - s * u
        return box, (u / a0) ** 2 + (v / b0) ** 2 + (t / c0) ** 2

    def ball(self, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> np.ndarray:
        """The distance from the centre (u, v, t) in radii, infinite far away; turned in the slice's plane."""
        return self.tube([centre], [radii], turn)

    def tube(
        self, points: Sequence[Sequence[float]], radii: Sequence[Sequence[float]], turn: float = 0.0
    ) -> np.ndarray:
        """The distance from a line through the points, each with its radii, in these."""
        nodes, square = range(len(points)), np.full(self.t.shape, np.inf, dtype=np.float32)
        for place in np.linspace(0, len(points) - 1, 5 * len(points)) if len(points) > 1 else [0]:
            centre, size = ([np.interp(place, nodes, c) for c in zip(*x, strict=True)] for x in (points, radii))
            box, near = self._square(centre, size, turn)
            np.minimum(square[box], near, out=square[box])
        return np.sqrt(square, out=square)


def synthetic_abdomen(
    seed: int, size: int = 128, depth: int = 32
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """One volume, its labels and its spacing; the same seed, size and depth always give the same.

    A body lies on a table, its front at the top and its right side at the image's left, as radiologists look at it.
    The slices go from the lower kidneys (the first) to the domes of the lungs (the last), so that organs appear and
    vanish. Beside the organs there are what they are mistaken for: the inferior vena cava next to the aorta, bowel
    with gas and fluid, vessels in the liver, muscles.

    Args: ``seed`` >= 0; ``size`` height and width in pixels, at least 48; ``depth`` slices, at least 16.

    Returns:
        volume: (depth, size, size) float32, Hounsfield units.
        labels: (depth, size, size) uint8, 0 for background, 1 to 8 in Synapse's order (`ORGANS`); none is missing.
        spacing: (z, y, x), mm.

    Raises:
        ValueError: a volume too small for its organs.
    """
    for name, value, least in (("size", size, 48), ("depth", depth, 16)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    rng = np.random.default_rng(seed)
    shape = (depth, size, size)
    half_width, tall = rng.uniform(150, 190), rng.uniform(225, 265)  # mm
    aspect, field = rng.uniform(0.64, 0.74), 1.12
    spacing = (tall / depth, 2 * half_width * field / size, 2 * half_width * field / size)
    hu = {name: rng.normal(*level) for name, level in HU.items()}
    body = _Body(rng, shape, aspect, field)

    def round_ones(*values: float) -> list[tuple[float, float, float]]:
        """Radii in u, v and t that are one length in mm."""
        return [(r, r / aspect, r * half_width / tall) for r in values]

    def near(*values: float, by: float = 0.025) -> tuple[float, ...]:
        return tuple(rng.normal(values, by).tolist())

    def about(*values: float) -> tuple[float, ...]:
        return tuple((np.array(values) * rng.normal(1, 0.06, len(values))).tolist())

    # Table, skin, fat, muscle; then the cavity, in which fat lies between the organs.
    t, v, u = body.plain
    wave = 0.02 * smooth_volume(rng, shape, 3)
    skin = (np.abs(u) ** 2.4 + np.abs(v) ** 2.4) ** (1 / 2.4) + wave * (1 - 0.5 * t)
    volume = np.full(shape, -1000, dtype=np.float32)
    volume[np.broadcast_to((v > 1.08) & (v < 1.13) & (np.abs(u) < 0.8), shape)] = -250
    inside = skin < 1
    volume[inside] = hu["fat"]
    volume[inside & (skin > 0.975)] = 20
    wall = rng.uniform(0.80, 0.90)
    cavity_edge = wall - 0.075
    muscle = (skin < wall) & (skin > cavity_edge)
    volume[muscle] = hu["muscle"]
    cavity = skin < cavity_edge
    turn = np.arctan2(v, u)
    rib = muscle & (np.cos(9 * turn + 14 * t * np.sign(u)) > 0.75) & (v > -0.45) & (t > 0.3)
    volume[rib & (skin > cavity_edge + 0.015)] = 420

    labels = np.zeros(shape, dtype=np.uint8)
    taken = np.zeros(shape, dtype=bool)

    def put(where: np.ndarray, level: float | np.ndarray, organ: str | None = None, margin: np.ndarray | None = None):
        """Fills what is still free; `margin` keeps a little fat around it free too."""
        where = where & ~taken
        volume[where] = level[where] if isinstance(level, np.ndarray) else level
        if organ:
            labels[where] = ORGANS.index(organ) + 1
        np.logical_or(taken, where if margin is None else margin, out=taken)

    # The back: vertebrae with discs between them, the canal, the muscles along the spine.
    texture = smooth_volume(rng, shape, 24)
    vertebra = body.ball((0, 0.53, 0.5), (0.135, 0.155, 99))
    beat = np.cos(2 * np.pi * (t * rng.uniform(6, 8) + rng.uniform(0, 1)))
    bone = np.where(vertebra > 0.85, 480, 210 + 30 * texture).astype(np.float32)
    put(vertebra < 1, np.where(beat > -0.75, bone, 90).astype(np.float32))
    put(body.ball((0, 0.745, 0.5), (0.055, 0.065, 99)) < 1, 35)
    arch = body.ball((0, 0.755, 0.5), (0.09, 0.11, 99)) < 1
    spinous = (np.abs(body.u) < 0.025) & (body.v > 0.8) & (body.v < 0.93) & (beat > -0.2)
    put((arch | spinous) & (skin < 0.97), 380)
    for side in (-1, 1):
        put((body.ball((0.2 * side, 0.77, 0.5), (0.16, 0.15, 99)) < 1) & (skin < wall), hu["muscle"] + 4 * texture)
        psoas = body.ball((0.215 * side, 0.5, 0), (0.09, 0.13, 0.55))
        put(psoas < 1, hu["muscle"], margin=psoas < 1.08)
        crus = body.ball((0.10 * side, 0.36, 0.8), (0.035, 0.10, 0.3))
        put(crus < 1, hu["muscle"])

    # Vessels run through all slices; the vena cava is no label.
    u0, v0 = near(0.06, 0.27, by=0.015)
    radius = rng.uniform(0.058, 0.072)
    aorta = body.ball((u0, v0, 0.5), (radius, radius / aspect, 99))
    put(aorta < 1, hu["aorta"], "aorta", margin=aorta < 1.15)
    vein = body.ball((u0 - rng.uniform(0.19, 0.22), v0 - 0.02, 0.5), about(0.072, 0.085, 99))
    put(vein < 1, hu["vein"], margin=vein < 1.1)

    # The lungs come down along the wall; between them, under the domes, the upper organs.
    off = np.abs(np.abs(u) / cavity_edge - 0.45)
    lowest = 0.97 + rng.uniform(-0.02, 0.03) - 0.9 * np.clip(skin / cavity_edge - 0.55, 0, None) ** 1.5 - 0.25 * off**2
    lowest = np.where(u > 0, lowest + 0.02, lowest + 0.05) + np.where(v > 0, 0, 0.08)  # the liver's dome is the higher
    lung = cavity & (t > lowest) & (np.abs(u) > 0.10)
    put(lung, -840 + 40 * texture, margin=lung)
    heart = body.ball((0.12, -0.32, 1.08), (0.33, 0.3, 0.16))
    put(cavity & (heart < 1), hu["vein"] - 10, margin=cavity & (heart < 1.05))

    # Kidneys, with bright cortex and the fat of the sinus on their inner side, which is no label.
    for name, sign, height in (("right kidney", -1, 0.33), ("left kidney", 1, 0.40)):
        u0, v0, t0 = near(0.42 * sign, 0.47, height)
        r = body.ball((u0, v0, t0), about(0.145, 0.19, 0.21), turn=0.35 * sign) - 0.03 * smooth_volume(rng, shape, 6)
        sinus = body.ball((u0 - 0.075 * sign, v0 - 0.02, t0), (0.075, 0.06, 0.10))
        put((sinus < 1) & (r < 1.1) & cavity, hu["fat"] + 60)
        cortex = np.where(r > 0.72, hu["kidney"] + 20, hu["kidney"] - 15 + 6 * texture).astype(np.float32)
        put((r < 1) & cavity, cortex, name, margin=r < 1.08)

    room = skin < cavity_edge - 0.012
    spleen = body.ball(near(0.66, 0.22, 0.68), about(0.19, 0.36, 0.19), turn=0.45) - 0.05 * smooth_volume(rng, shape, 5)
    put((spleen < 1) & room, hu["spleen"] + 3 * texture, "spleen", margin=spleen < 1.07)
    u0, v0, t0 = near(-0.34, -0.33, 0.45)
    gallbladder = body.tube([(u0, v0, t0 - 0.05), (u0 + 0.06, v0 + 0.12, t0 + 0.06)], round_ones(*about(0.088), 0.05))
    put((gallbladder < 1) & room, hu["gallbladder"], "gallbladder", margin=gallbladder < 1.12)

    # The pancreas: from its head beside the duodenum across the aorta to the spleen.
    line = [
        near(*p, by=0.018)
        for p in (
            (-0.19, 0.02, 0.40),
            (-0.10, -0.06, 0.47),
            (0.10, -0.03, 0.53),
            (0.30, 0.08, 0.58),
            (0.46, 0.14, 0.62),
        )
    ]
    lobes = 0.10 * smooth_volume(rng, shape, 14)
    pancreas = body.tube(line, round_ones(*about(0.095, 0.07, 0.058, 0.06, 0.048))) - lobes
    put((pancreas < 1) & room, hu["pancreas"] + 8 * texture, "pancreas", margin=pancreas < 1.1)
    head = body.ball((line[0][0] - 0.13, line[0][1] + 0.03, line[0][2] - 0.02), (0.06, 0.09, 0.12))
    put((head < 1) & room, 45, margin=head < 1.08)  # the duodenum

    # The stomach: fluid below, gas above, as the patient lies on the back; the wall belongs to it.
    line = [near(*p) for p in ((0.44, 0.02, 0.82), (0.46, -0.22, 0.70), (0.30, -0.40, 0.57), (0.04, -0.38, 0.50))]
    stomach = body.tube(line, round_ones(*about(0.21, 0.18, 0.14, 0.08))) - 0.04 * smooth_volume(rng, shape, 5)
    content = np.where(body.v < rng.uniform(-0.52, -0.40), -900, hu["stomach"] + 10 * texture)
    content = np.where(stomach > 0.86, 75, content).astype(np.float32)
    put((stomach < 1) & room, content, "stomach", margin=stomach < 1.06)

    # The liver fills what is left on its side, with brighter vessels.
    right = body.ball(near(-0.48, -0.02, 0.70), about(0.43, 0.68, 0.36)) - 0.05 * smooth_volume(rng, shape, 5)
    left = body.ball(near(-0.02, -0.40, 0.74), about(0.42, 0.27, 0.16), turn=-0.15)
    vessels = np.exp(-((smooth_volume(rng, shape, 7) / 0.07) ** 2)) * (np.minimum(right, left) < 0.85)
    liver = np.minimum(right, left)
    put((liver < 1) & room, hu["liver"] + 2 * texture + 32 * vessels, "liver", margin=liver < 1.04)

    # Bowel: the colon upright at both sides, loops in front.
    for sign in (-1, 1):
        u0 = 0.60 * sign
        line = [(u0, 0.12, 0.0), near(u0, 0.08, 0.22), (u0 * 0.93, -0.05, 0.5)]
        colon = body.tube(line, round_ones(*about(0.10, 0.12, 0.09))) - 0.10 * smooth_volume(rng, shape, 7)
        stool = np.where(colon > 0.85, 50, np.where(texture > rng.uniform(0.1, 0.6), -600, 15)).astype(np.float32)
        put((colon < 1) & room, stool, margin=colon < 1.06)
    for _ in range(26):
        centre = rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.2), rng.uniform(-0.05, 0.48)
        r = body.ball(
            centre, (rng.uniform(0.06, 0.13), rng.uniform(0.07, 0.13), rng.uniform(0.05, 0.12)), rng.uniform(0, 3)
        )
        gas = -850 if rng.random() < 0.2 else rng.uniform(5, 35)
        filled = np.where(r > 0.75, 70, np.where(body.v < centre[1], gas, rng.uniform(5, 35))).astype(np.float32)
        put((r < 1) & room, filled, margin=r < 1.06)
    strands = (np.abs(smooth_volume(rng, shape, 16)) < 0.05) & cavity & ~taken
    volume[strands] = hu["fat"] + 70

    # The scanner: voxels average over their neighbours in the slice, and the noise of the reconstruction is coarse.
    for axis in (1, 2):
        volume = 0.7 * volume + 0.15 * (np.roll(volume, 1, axis) + np.roll(volume, -1, axis))
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)
    volume += noise * np.float32(rng.uniform(7, 11) / np.sqrt(3))
    return np.clip(volume, -1024, 3071), labels, spacing
