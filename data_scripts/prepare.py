"""From a raw tree to the project's layout: ``images/``, ``masks/``, ``items.csv``, ``dataset.json``."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from rwkvlib.data.dataset import iter_items
from rwkvlib.files import expand, write_file

from .entry import BadItem, Case, Entry, Item
from .similarity import fingerprint
from .splits import load_splits, match_fingerprints


def prepare(entry: Entry, raw: str | Path, out: str | Path, *, skip_bad: bool = False, size: int | None = None) -> Path:
    """Writes a data set in the project's layout, all of it or nothing.

    Args:
        raw: folder of the official download, unpacked, in the layout that the entry describes; or a folder or zip
            that is in the project's layout already and gets the committed splits.
        out: folder to create.
        skip_bad: leave bad items out, and list them in ``bad_items.csv`` of the data set. Without it they stop the run,
            and are listed in ``OUT.bad_items.csv``.
        size: height and width in pixels to resize to (images antialiased, masks nearest); None keeps them.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: `raw` is not there or has not the layout.
        ValueError: there are bad items: no mask, another size, a file that does not decode, an empty mask where none
            may be, unknown labels, a name twice, an item that the committed split does not know, or lacks.
    """
    raw, out = expand(raw), expand(out)
    if out.exists():
        raise FileExistsError(f"out: {str(out)!r} exists; remove it, or choose another folder")
    if not raw.exists():
        raise FileNotFoundError(f"raw: expected a folder, laid out as {entry.layout}; got {str(raw)!r}")
    cases = list(_project_layout(raw) if _is_project_layout(raw) else entry.cases(raw))
    if not cases:
        raise FileNotFoundError(f"raw: expected {entry.layout}; found nothing like it in {str(raw)!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        items, bad = _write(cases, partial, size)
        items, unknown, absent = _join_splits(entry, items) if len(items) else (items, [], [])
        for name in unknown:
            _remove(partial, name)
        bad += [(name, "is not in the committed split") for name in unknown]
        bad += [(key, "is in the committed split, but not among the good items") for key in absent]
        bad = pd.DataFrame(bad, columns=["item", "problem"])
        report = partial / "bad_items.csv" if skip_bad else out.with_name(f"{out.name}.bad_items.csv")
        if len(bad):
            write_file(report, bad.to_csv(index=False))
            if not skip_bad:
                first = "; ".join(f"{row.item}: {row.problem}" for row in bad.head(3).itertuples())
                raise ValueError(
                    f"raw: {len(bad)} bad items beside {len(items)} good ones, listed in {str(report)!r}: {first}"
                    f"{'; ...' if len(bad) > 3 else ''}. Repair them, or leave them out with --skip-bad"
                )
        if not len(items):
            raise ValueError(f"raw: no good item in {str(raw)!r}; the first: {bad.iloc[0]['problem']}")
        items.to_csv(partial / "items.csv", index=False)
        _write_card(entry, partial, items, len(bad), size)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write(cases: list[Case], folder: Path, size: int | None) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows, bad, names = [], [], set()
    for case in tqdm(cases, unit="case", disable=None):
        done = []
        try:
            for item in case.load():
                if item.name in names:
                    raise BadItem(f"a second item is called {item.name}")
                done.append(_write_item(item, folder, size))
                names.add(item.name)
        except BadItem as error:  # of a volume, all or nothing
            bad.append((case.name, str(error)))
            for row in done:
                names.discard(row["name"])
                _remove(folder, row["name"])
        else:
            rows += done
    return pd.DataFrame(rows), bad


def _remove(folder: Path, name: str) -> None:
    for file in (f"images/{name}.jpg", f"images/{name}.png", f"masks/{name}.png"):
        (folder / file).unlink(missing_ok=True)


def _write_item(item: Item, folder: Path, size: int | None) -> dict:
    image, mask = Image.fromarray(item.image), Image.fromarray(item.mask)
    if size is not None:
        image, mask = image.resize((size, size), Image.BILINEAR), mask.resize((size, size), Image.NEAREST)
    elif item.source is not None:
        shutil.copyfile(item.source, folder / "images" / f"{item.name}.jpg")
    if size is not None or item.source is None:
        image.save(folder / "images" / f"{item.name}.png")
    mask.save(folder / "masks" / f"{item.name}.png")
    return {"name": item.name, **item.columns, "fingerprint": fingerprint(image)}


def _join_splits(entry: Entry, items: pd.DataFrame) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The items with the committed split's columns, the names that it does not know, and what it knows beside them."""
    splits = load_splits(entry.name)
    key = splits.columns[0]
    if key == "fingerprint":
        found = match_fingerprints(dict(zip(items["name"], items["fingerprint"], strict=True)), list(splits[key]))
        items["fingerprint"] = items["name"].map(found).astype(object)  # without any: of the type of numbers
    else:
        items = items.drop(columns="fingerprint")
    items = items.rename(columns={"split": "own_split"})  # of an official part that the committed table leaves out
    clash = [c for c in splits if c in items and c != key]
    joined = items.drop(columns=clash).merge(splits, on=key, how="left", validate="many_to_one")
    if "own_split" in joined:
        joined["split"] = joined["split"].fillna(joined.pop("own_split"))
    known = joined["split"].notna()
    if not known.any():
        raise ValueError(
            f"raw: none of the {len(items)} items is in the committed split of {entry.title} (the first is "
            f"{items['name'].iloc[0]!r}). Images of your own need no preparation: they are read from a folder with "
            "images/, masks/ and an items.csv with the columns name and split"
        )
    absent = splits.loc[~splits[key].isin(joined[key]), key]
    found = joined[known].drop(columns="fingerprint", errors="ignore")
    return found, list(joined.loc[~known, "name"]), [f"{key} {value}" for value in absent]


def _write_card(entry: Entry, folder: Path, items: pd.DataFrame, bad: int, size: int | None) -> None:
    card = dict(
        name=entry.name,
        title=entry.title,
        modality=entry.modality,
        classes=["background", *entry.classes],
        licence=entry.licence,
        citation=entry.citation,
        page=entry.page,
        items=len(items),
        bad_items_left_out=bad,
        size=size,
        splits=items["split"].value_counts(sort=False).to_dict(),
        how_split=entry.splits,
    )
    (folder / "dataset.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def _is_project_layout(raw: Path) -> bool:
    return raw.is_file() or (raw / "items.csv").is_file()


def _project_layout(raw: Path) -> Iterator[Case]:
    for row, read in iter_items(raw):

        def load(row=row, read=read) -> Iterator[Item]:
            try:
                image, mask = read()
            except (ValueError, FileNotFoundError) as error:
                raise BadItem(str(error)) from error
            columns = {k: v for k, v in row.items() if k != "name" and not k.startswith("split")}
            yield Item(row["name"], np.asarray(image), np.asarray(mask, dtype=np.uint8), columns)

        yield Case(row["name"], load)
