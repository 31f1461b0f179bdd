"""From a raw tree to the project's layout: ``images/``, ``masks/``, ``items.csv``, ``dataset.json``."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
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
    raw = expand(raw)
    check_new(out)
    if not raw.exists():
        raise FileNotFoundError(f"raw: expected a folder, laid out as {entry.layout}; got {str(raw)!r}")
    cases = list(_project_layout(raw) if _is_project_layout(raw) else entry.cases(raw))
    if not cases:
        raise FileNotFoundError(f"raw: expected {entry.layout}; found nothing like it in {str(raw)!r}")

    def finish(items: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        items, unknown, absent = _join_splits(entry, items)
        bad = [(name, "is not in the committed split") for name in unknown]
        return items, bad + [(key, "is in the committed split, but not among the good items") for key in absent]

    return write_set(
        cases,
        out,
        finish,
        lambda *found: _card(entry, size, *found),
        argument="raw",
        skip_bad=skip_bad,
        size=size,
        report=expand(out).with_name(f"{expand(out).name}.bad_items.csv"),
    )


def check_new(out: str | Path) -> Path:
    """The folder to create. Raises FileExistsError where there is one."""
    if expand(out).exists():
        raise FileExistsError(f"out: {str(out)!r} exists; remove it, or choose another folder")
    return expand(out)


def write_set(
    cases: Iterable[Case],
    out: str | Path,
    finish: Callable[[pd.DataFrame], tuple[pd.DataFrame, list[tuple[str, str]]]],
    card: Callable[[pd.DataFrame, int], dict],
    *,
    argument: str,
    bad: Iterable[tuple[str, str]] = (),
    skip_bad: bool = False,
    size: int | None = None,
    report: Path | None = None,
) -> Path:
    """Writes cases as a data set in the project's layout, all of it or nothing.

    Args:
        finish: from the good items, a row each, to those that stay, with all their columns, and further bad ones.
        card: from the items and the number of bad ones to the content of ``dataset.json``.
        argument: what messages begin with.
        bad: what is known as bad before: names and problems.
        report: CSV file for bad items where they stop the run; None: the message has all of up to forty.

    Raises: ValueError for bad items without `skip_bad`, or no good one.
    """
    out = expand(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        written, bad_ones = _write(cases, partial, size)
        items, more = finish(written) if len(written) else (written, [])
        for name in set(written.get("name", ())) - set(items.get("name", ())):
            _remove(partial, name)
        table = pd.DataFrame([*bad, *bad_ones, *more], columns=["item", "problem"])
        if len(table) and skip_bad:
            write_file(partial / "bad_items.csv", table.to_csv(index=False))
        elif len(table):
            if report:
                write_file(report, table.to_csv(index=False))
            lines = [f"{row.item}: {row.problem}" for row in table.head(3 if report else 40).itertuples()]
            if len(lines) < len(table):
                lines.append(f"and {len(table) - len(lines)} more")
            listed = f", listed in {str(report)!r}" if report else ""
            raise ValueError(
                f"{argument}: {len(table)} bad items beside {len(items)} good ones{listed}; repair them, or leave them "
                "out with --skip-bad:\n  " + "\n  ".join(lines)
            )
        if not len(items):
            raise ValueError(
                f"{argument}: no good item; the first: {table.iloc[0]['item']}: {table.iloc[0]['problem']}"
            )
        items.to_csv(partial / "items.csv", index=False)
        content = json.dumps(card(items, len(table)), indent=1, ensure_ascii=False)
        (partial / "dataset.json").write_text(content + "\n", encoding="utf8")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write(cases: Iterable[Case], folder: Path, size: int | None) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
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


def _card(entry: Entry, size: int | None, items: pd.DataFrame, bad: int) -> dict:
    return dict(
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
