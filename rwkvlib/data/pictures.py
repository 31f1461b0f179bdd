"""Pictures without labels, drawn without end from several sources."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..files import expand, walk
from .dataset import train_images
from .files import IMAGES, open_picture, picture_pixels
from .synthetic.sets import find_synthetic

LARGEST = 512  # pixels of a picture's longer side in memory; crops are smaller
LEAST_SHARE = 0.2  # of a picture's area that a crop takes


class PictureStream(Dataset):
    """`count` crops of pictures; item i depends on the seed and i alone. An item is a dict of ``image`` (3, size, size)
    in [0, 1], ``number`` i, and ``name``, the source's.

    Args:
        sources: how often each is taken, in proportion. A source is the name of a synthetic set, whose images are
            generated as they are asked for; a data set (see `load_data`), of which the split ``train`` is taken where
            it has a column ``split``, and masks are not read; or any other folder of pictures.
        size: height and width in pixels of the crops: a fifth of a picture's area at least, of sides 3:4 to 4:3.

    Raises: ValueError, FileNotFoundError: a source that is none, or without pictures; a picture that does not decode.
    """

    def __init__(self, sources: dict[str, float], count: int, size: int, seed: int = 0):
        self.count, self.size, self.seed = count, size, seed
        if not sources or any(not share > 0 for share in sources.values()):
            raise ValueError(f"data: expected sources with shares above 0, got {sources}")
        self.names = list(sources)
        self.shares = np.array(list(sources.values())) / sum(sources.values())
        self._draw: list[Callable[[np.random.Generator], Image.Image]] = []
        digest = hashlib.sha256(f"{self.shares.tolist()}".encode())
        for source in self.names:
            draw, about = self._open(source)
            self._draw.append(draw)
            digest.update(about)
        self._digest = digest.hexdigest()

    def _open(self, source: str) -> tuple[Callable[[np.random.Generator], Image.Image], bytes]:
        """What draws a picture of a source, and what its hash is made of."""
        if wanted := find_synthetic(source):
            if wanted.row.volumes or wanted.row.distance:
                raise ValueError(f"data: expected a synthetic set of single pictures, got {source!r}")

            def generate(rng: np.random.Generator) -> Image.Image:
                return Image.fromarray(wanted.row.make(source, int(rng.integers(2**31)), self.size).images[0])

            return generate, source.encode()
        pictures = [_small(image) for image in _read(source)]
        if not pictures:
            raise ValueError(f"data: no pictures ({', '.join(IMAGES)}) in {source!r}")
        about = b"".join(hashlib.sha256(p.tobytes()).digest() for p in pictures)

        def draw(rng: np.random.Generator) -> Image.Image:
            picture = pictures[rng.integers(len(pictures))]
            area = picture.width * picture.height * rng.uniform(LEAST_SHARE, 1)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = min((area * ratio) ** 0.5, picture.width), min((area / ratio) ** 0.5, picture.height)
            left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
            box = (left, top, left + width, top + height)
            return picture.resize((self.size, self.size), Image.BILINEAR, box=box)

        return draw, about

    def __len__(self) -> int:
        return self.count

    def sha256(self) -> str:
        """Of the shares, the pictures and the names of generators."""
        return self._digest

    def __getitem__(self, i: int) -> dict[str, Tensor | int | str]:
        rng = np.random.default_rng([self.seed, i])
        source = rng.choice(len(self.names), p=self.shares)
        pixels = np.array(self._draw[source](rng))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return {"image": image, "number": i, "name": Path(self.names[source]).name}


def _read(source: str) -> list[Image.Image]:
    path = expand(source)
    if path.is_dir() and not (path / "items.csv").is_file():
        found = []
        for file in sorted(p for p in walk(path) if p.name.lower().endswith(IMAGES)):
            try:
                with open_picture(file) as picture:
                    found.append(Image.fromarray(picture_pixels(picture)))
            except Exception as error:  # Pillow has many
                raise ValueError(f"data: {str(file)!r} does not decode: {error}") from error
        return found
    return train_images(source)


def _small(picture: Image.Image) -> Image.Image:
    picture.thumbnail((LARGEST, LARGEST), Image.BILINEAR)
    return picture
