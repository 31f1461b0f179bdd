"""Images and masks of one's own, as they lie, to the project's layout."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from rwkvlib.data import stretch, window
from rwkvlib.data.files import ARRAYS, VOLUMES, read_labels, suffix_of
from rwkvlib.data.items import read_items
from rwkvlib.files import expand, walk

from . import volumes
from .entry import BadItem, Case, Item
from .prepare import check_new, write_set
from .raw import image_case, item_name, open_image, read_mask

MOST_CLASSES = 64  # where they are not named: more are taken for grey levels


def import_data(
    images: str | Path,
    masks: str | Path,
    out: str | Path,
    *,
    mask_suffix: str = "",
    threshold: float | None = None,
    mapping: Iterable[str] = (),
    classes: Sequence[str] = (),
    columns: str | Path | None = None,
    hu: tuple[float, float] | None = None,
    skip_bad: bool = False,
) -> Path:
    """Writes the images and volumes below a folder, with their masks, as a data set, all of it or nothing.

    A mask belongs to the image of the same relative path, without suffixes and `mask_suffix`, letter case aside; where
    there is none, to that of the same name, if only one is called so. An item is called as its file, or as its relative
    path with _ for / where several files are called alike.

    Args:
        images, masks: folders, which may be one where `mask_suffix` tells masks from images.
        out: folder to create.
        mask_suffix: what masks' names have at their end beside those of images.
        threshold: foreground is what is brighter.
        mapping: ``VALUE=CLASS`` or ``RRGGBB=CLASS`` (hexadecimal) each; 0 and black are the background unless named.
        classes: the names of the classes 1, 2, ...; default: class_1, ..., as many as masks have.
        columns: CSV file with further columns of ``items.csv`` for every ``name``, which is a volume's for its slices.
        hu: the window in Hounsfield units of volumes and of images with more than 8 bits; None: by their percentiles.
        skip_bad: leave bad items out, and list them in ``bad_items.csv`` of the data set.

    Raises:
        FileExistsError: `out` exists. FileNotFoundError: a folder or table is not there, or has no image.
        ValueError: arguments that contradict each other or the masks; without `skip_bad` bad items, all in one message:
            without a mask or a row of `columns`, masks and rows without an image, what cannot be read, sizes that
            differ, values of masks that are no class.
    """
    out, meaning = check_new(out), Meaning(threshold, mapping, classes)
    pairs, unused = pair_files(images, masks, mask_suffix)
    root = expand(images).resolve()
    stems = Counter(_stem(file) for file in pairs)
    names = {
        file: _stem(file)
        if stems[_stem(file)] == 1
        else _stem(Path(file.relative_to(root).as_posix().replace("/", "_")))
        for file in pairs
    }
    kinds = {suffix_of(file.name) in VOLUMES for file in pairs}
    if len(kinds) > 1:
        raise ValueError(f"images: expected images or volumes, found both in {str(images)!r}; import them one by one")
    bad = [(str(file), "is the mask of no image") for file in unused]
    table = None
    if columns is not None:
        table, more = _read_columns(columns, set(names.values()))
        bad += more
        bad += [(_shown(f, root), f"has no row in {str(columns)!r}") for f, n in names.items() if n not in table.index]
        names = {file: name for file, name in names.items() if name in table.index}
    cases = []
    for file, name in names.items():
        if kinds == {True}:
            load = partial(_slices, file, pairs[file], name, meaning, hu)
        else:
            load = image_case(file, pairs[file], name=name, read=meaning.read, hu=hu, may_be_empty=True).load
        cases.append(Case(_shown(file, root), load))

    def finish(items: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        items = items.drop(columns="fingerprint")
        if table is None:
            return items, []
        if clash := [c for c in table if c in items]:
            raise ValueError(f"columns: {', '.join(clash)} of {str(columns)!r} come from the files; take them out")
        return items.join(table, on="volume" if kinds == {True} else "name"), []

    def card(items: pd.DataFrame, left_out: int) -> dict:
        return dict(
            name=out.name,
            classes=["background", *meaning.names()],
            items=len(items),
            bad_items_left_out=left_out,
        )

    return write_set(cases, out, finish, card, argument="images", bad=bad, skip_bad=skip_bad)


def pair_files(
    images: str | Path, masks: str | Path, mask_suffix: str = ""
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """The masks of each image file, and those of none. Raises as `import_data`."""
    pictures, labels = _files(images, "images"), _files(masks, "masks")
    ending = _key(mask_suffix)
    named = {file: key[: len(key) - len(ending)] for file, key in labels.items() if key.endswith(ending)}
    pictures = {file: key for file, key in pictures.items() if file not in named}
    if not pictures:
        raise FileNotFoundError(
            f"images: no image in {str(images)!r} beside the masks; where both lie in one folder, say what the names "
            "of masks have at their end with --mask-suffix"
        )
    by_path, by_name = defaultdict(list), defaultdict(list)
    for file, key in named.items():
        by_path[key].append(file)
        by_name[key.rpartition("/")[2]].append(file)
    alike = Counter(key.rpartition("/")[2] for key in pictures.values())
    pairs = {}
    for file, key in pictures.items():
        name = key.rpartition("/")[2]
        pairs[file] = by_path.get(key) or (by_name.get(name, []) if alike[name] == 1 else [])
    if not any(pairs.values()):
        raise ValueError(
            f"masks: none of {len(labels)} in {str(masks)!r} is called as an image with {mask_suffix!r} at its end; "
            f"the first of each are {next(iter(pictures)).name} and {min(labels).name if labels else 'none'}: "
            "say what the names of masks have at their end with --mask-suffix"
        )
    used = {file for found in pairs.values() for file in found}
    return pairs, [file for file in labels if file not in used and file not in pictures]


def _files(folder: str | Path, argument: str) -> dict[Path, str]:
    """The files of a folder and those below it that can be read, and by what they are matched."""
    path = expand(folder).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"{argument}: expected a folder, got {str(folder)!r}")
    found = {file: suffix_of(file.name) for file in walk(path)}
    readable = {file: suffix for file, suffix in found.items() if suffix and suffix not in ARRAYS}
    return {f: _key(f.relative_to(path).as_posix()[: -len(suffix)]) for f, suffix in readable.items()}


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _stem(file: Path) -> str:
    return item_name(file.name[: len(file.name) - len(suffix_of(file.name) or "")])


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _read_columns(file: str | Path, names: set[str]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The rows of the items `names`, by name, and the bad ones."""
    path = expand(file)
    if not path.is_file():
        raise FileNotFoundError(f"columns: no file {str(file)!r}")
    table = read_items(path.read_bytes(), f"columns: {str(file)!r}")
    table.index = [_stem(Path(name)) for name in table.pop("name")]
    if twice := sorted(set(table.index[table.index.duplicated()])):
        raise ValueError(
            f"columns: expected one row for each name, {str(file)!r} has several of {', '.join(twice[:9])}"
        )
    known = table.index.isin(names)
    return table[known], [(name, f"a row of {str(file)!r}, is no image") for name in table.index[~known]]


def _slices(
    file: Path, masks: list[Path], name: str, meaning: "Meaning", hu: tuple[float, float] | None
) -> Iterator[Item]:
    if len(masks) != 1:
        found = f"several masks: {', '.join(m.name for m in masks)}" if masks else "no mask"
        raise BadItem(f"{file.name} has {found}")
    image, label, spacing = volumes.read_pair(file, masks[0])
    to_bytes = stretch if hu is None else partial(window, low=hu[0], high=hu[1])
    yield from volumes.slices(name, image, meaning.of(label, masks[0]), to_bytes, 254, spacing)


class Meaning:
    """From the values of masks to class indices; arguments and errors are those of `import_data`."""

    def __init__(self, threshold: float | None, mapping: Iterable[str], classes: Sequence[str]):
        self.threshold, self.classes, self.mapping, self.colours = threshold, list(classes), {}, False
        mapping = list(mapping)
        for pair in mapping:
            match = re.fullmatch(r"(?:#?([0-9a-fA-F]{6})|(\d{1,5}))=(\d{1,3})", pair)
            if not match or int(match[3]) > 254:
                raise ValueError(f"map: expected VALUE=CLASS or RRGGBB=CLASS with a class of 0 to 254, got {pair!r}")
            key = int(match[1], 16) if match[1] else int(match[2])
            if key in self.mapping or (self.mapping and self.colours != bool(match[1])):
                raise ValueError(f"map: expected values or colours, each once, got {' '.join(mapping)}")
            self.mapping[key], self.colours = int(match[3]), bool(match[1])
        if mapping and threshold is not None:
            raise ValueError("map: expected either --map or --threshold, got both")
        self.largest = max(1, *self.mapping.values()) if mapping else 1
        if classes and (self.largest > len(classes) or (threshold is not None and len(classes) > 1)):
            raise ValueError(f"classes: expected {self.largest} names, got {', '.join(classes)}")
        if mapping:
            self.mapping.setdefault(0, 0)
        self.white: list[str] = []  # masks of 0 and 255

    def read(self, file: Path) -> np.ndarray:
        """A mask file's class indices, (H, W) uint8. Raises BadItem."""
        if self.threshold is not None:
            return read_mask(file, lambda values: values > self.threshold)
        image = open_image(file)
        if self.colours:
            return self.of(np.asarray(image.convert("RGB"), dtype=np.int64) @ (1 << 16, 1 << 8, 1), file)
        try:
            values = read_labels(file, wide=bool(self.mapping))
        except ValueError as error:
            raise BadItem(
                f"{file.name} has {error}. Or say what each means: --map VALUE=CLASS or RRGGBB=CLASS"
            ) from error
        return self.of(values, file)

    def of(self, values: np.ndarray, file: Path) -> np.ndarray:
        """The class indices, uint8, of a mask's values of any shape. Raises BadItem that names the file."""
        if self.threshold is not None:
            return (values > self.threshold).astype(np.uint8)
        found = np.unique(values)
        if self.mapping:
            if len(unknown := found[~np.isin(found, list(self.mapping))]):
                raise BadItem(f"{file.name} has {self._listed(unknown)}, which --map does not name")
            out = np.zeros(values.shape, np.uint8)
            for value, number in self.mapping.items():
                out[values == value] = number
            return out
        if np.isin(found, (0, 255)).all():
            self.white += [file.name] if 255 in found else []
            return (values > 0).astype(np.uint8)
        most = len(self.classes) or MOST_CLASSES
        if found[0] < 0 or found[-1] > most:
            raise BadItem(
                f"{file.name} has {self._listed(found)}, expected 0 and 255 or classes 0 to {most}: say what each "
                "value means with --map VALUE=CLASS, or of grey levels what is foreground with --threshold 127"
            )
        self.largest = max(self.largest, int(found[-1]))
        return values.astype(np.uint8)

    def _listed(self, values: np.ndarray) -> str:
        shown = ", ".join(f"{v:06x}" if self.colours else str(v) for v in values[:6])
        return f"{'colours' if self.colours else 'values'} {shown}{', ...' if len(values) > 6 else ''}"

    def names(self) -> list[str]:
        """The names of the classes that the masks read so far have. Raises ValueError where 255 may be one of many."""
        names = self.classes or [f"class_{i}" for i in range(1, self.largest + 1)]
        if self.white and len(names) > 1:
            raise ValueError(
                f"map: {len(self.white)} masks hold 0 and 255 alone ({', '.join(self.white[:5])}), beside classes up "
                f"to {len(names)}: say which 255 is with --map 255=CLASS, and --map VALUE=CLASS for the others"
            )
        return names
