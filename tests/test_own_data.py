"""From two folders to masks of new images, by the command line alone."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_polyps
from rwkvlib.engine.config import load_config
from tests.conftest import TINY


@pytest.fixture
def ph2(tmp_path):
    """24 images as PH2 has them: a folder for each, BMP, masks of one bit called NAME_lesion, one of RGB, two sizes; a
    table in which pairs of images are of one patient."""
    rows = []
    for i in range(24):
        pixels, mask = synthetic_polyps(i, 48)
        height = 48 if i % 3 else 40
        name = f"IMD{i:03d}"
        for kind, picture in (("", Image.fromarray(pixels)), ("_lesion", Image.fromarray(mask.astype(bool)))):
            file = tmp_path / f"PH2/{name}/{name}{kind or '_Dermoscopic_Image'}/{name}{kind}.bmp"
            file.parent.mkdir(parents=True)
            picture = picture.crop((0, 0, 48, height))
            (picture.convert("RGB") if i == 5 else picture).save(file)
        rows.append(dict(name=name, patient=f"P{i // 2}", label="melanoma" if i // 2 % 3 == 0 else "nevus"))
    (tmp_path / "PH2/.DS_Store").write_bytes(b"\0")
    pd.DataFrame(rows).to_csv(tmp_path / "meta.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_from_two_folders_to_masks_of_new_images(ph2, monkeypatch, capsys):
    monkeypatch.chdir(ph2)
    main("import --images PH2 --masks PH2 --mask-suffix _lesion --out mine --classes lesion --columns meta.csv".split())
    assert json.loads((ph2 / "mine/dataset.json").read_text())["classes"] == ["background", "lesion"]
    assert np.array_equal(np.asarray(Image.open("mine/masks/IMD005.png")), synthetic_polyps(5, 48)[1])
    main("split mine --shares 4:1:1 --group patient --stratify label --seed 1".split())
    items = pd.read_csv("mine/items.csv")
    assert items["split"].value_counts().to_dict() == {"train": 16, "validation": 4, "test": 4}
    assert (items.groupby("patient")["split"].nunique() == 1).all()
    main("audit mine --strict".split())
    capsys.readouterr()
    main("init mine".split())
    text = capsys.readouterr().out
    (ph2 / "mine.yaml").write_text(text)
    config = load_config("mine.yaml")
    assert (config.num_classes, config.size, config.batch_size, config.validation) == (1, 48, 4, "validation")
    tiny = [f"overrides={yaml.safe_dump(TINY, default_flow_style=True, width=1000).strip()}", "pretrained=null"]
    main(["train", "mine.yaml", "out=run", "epochs=2", "size=32", *tiny])
    main("evaluate run mine --out scores".split())
    assert len(pd.read_csv("scores/cases.csv")) == 4
    main("predict run PH2/IMD000/IMD000_Dermoscopic_Image --out masks".split())
    assert Image.open("masks/IMD000.png").size == (48, 40)


def test_the_recipe_trains_as_it_is(ph2, monkeypatch, capsys):
    """Its network and start, of full size, for one step."""
    monkeypatch.chdir(ph2)
    main("import --images PH2 --masks PH2 --mask-suffix _lesion --out mine".split())
    main("split mine --shares 5:0:1".split())
    capsys.readouterr()
    main(["init", "mine"])
    (ph2 / "mine.yaml").write_text(capsys.readouterr().out)
    config = load_config("mine.yaml")
    assert config.validation is None and config.choose == "last" and config.pretrained == "teacher"
    main("train mine.yaml out=run epochs=1 batch_size=20 size=32".split())
    assert (ph2 / "run/model.safetensors").exists()
