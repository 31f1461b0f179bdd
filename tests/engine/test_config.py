"""Recipes: what is read is what is meant, and nothing else passes."""

from pathlib import Path

import pytest

from rwkvlib.engine.config import MEANT, PretrainConfig, TrainConfig, load_config
from rwkvlib.engine.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
OTHERS = ("binary", "fast", "pretrain_formula", "pretrain_imagenet", "pretrain_teacher")
RECIPES = sorted(p.stem for p in CONFIGS.glob("*.yaml") if p.stem not in OTHERS)
SETS = ("synapse", "acdc", "busi", "cvc_clinicdb", "cvc_colondb", "kvasir_seg", "isic2017", "glas")


def test_every_set_has_a_recipe_and_a_fast_one():
    assert RECIPES == sorted(name + fast for name in SETS for fast in ("", "_fast"))


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("synapse", dict(size=224, batch_size=24, lr=1e-3, weight_decay=1e-3, epochs=30, num_classes=9, choose="last")),
        ("acdc", dict(size=224, batch_size=24, lr=1e-3, weight_decay=1.5e-4, epochs=30, num_classes=4, choose="best")),
        ("acdc", dict(validate_every=100)),
        ("busi", dict(size=256, num_classes=1)),
        ("glas_fast", dict(size=128, num_classes=1, model="rwkv_unet_t", pretrained="teacher", assumed=())),
        ("synapse_fast", dict(size=128, num_classes=9, choose="last")),
        ("pretrain_imagenet", dict(epochs=300, batch_size=1024, lr=3e-3, weight_decay=0.05, warmup_epochs=20)),
        ("pretrain_imagenet", dict(label_smoothing=0.1, ema=0.9998, clip=5.0)),
    ],
)
def test_recipes_state_what_is_published(name, facts):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert {key: getattr(config, key) for key in facts} == facts


def test_what_the_paper_does_not_publish_is_marked():
    described = load_config(CONFIGS / "busi.yaml").describe()
    for name in ("epochs", "batch_size", "lr", "weight_decay", "schedule", "augment"):
        line = next(line for line in described.splitlines() if line.startswith(f"  {name}:"))
        assert line.endswith("(assumed, not published)")
    assert "  loss: binary\n" in described + "\n", "the loss is published"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name, tmp_path, capsys):
    tiny = ["overrides.depths=[1, 1, 2, 2]", "overrides.dims=[8, 8, 16, 16]"]
    small = ["data=synthetic:4", "size=32", "epochs=1", "batch_size=4"]
    config = load_config(CONFIGS / f"{name}.yaml", small)
    if config.pretrained is None:
        config = load_config(CONFIGS / f"{name}.yaml", small + tiny)
    (row,) = train(config, tmp_path)  # with its progress, as that prints the recipe
    assert row["step"] == 1 and row["loss"] > 0 and ("dice" in row) == (config.validation is not None)
    said = capsys.readouterr().out
    assert ("(assumed, not published)" in said) == bool(config.assumed)
    assert ("pretrained=teacher: loaded 231 tensors" in said) == name.endswith("_fast")


def test_settings_win_over_the_file_and_take_the_fields_type(write_recipe):
    path = write_recipe(lr=0.1)
    config = load_config(path, ["lr=1e-4", "size=64", "compile=true", "validation=null", "choose=last", "data=my set"])
    assert config.lr == 1e-4 and config.size == 64 and config.compile is True and config.data == "my set"
    assert config.validation is None and config.overrides["depths"] == (1, 1, 2, 2)
    config = load_config(path, ["overrides.drop_path=0", "mixed_precision=no"])
    assert config.overrides["drop_path"] == 0.0 and isinstance(config.overrides["drop_path"], float)
    assert config.overrides["dims"] == (8, 8, 16, 16), "the others stay"
    assert config.mixed_precision == "no", "which YAML reads as false"


def test_a_file_extends_others(tmp_path):
    (tmp_path / "a.yaml").write_text("data: x\nlr: 0.1\nsize: 32\n")
    (tmp_path / "b.yaml").write_text("size: 64\nepochs: 2\n")
    (tmp_path / "c.yaml").write_text("extends: [a.yaml, b.yaml]\nepochs: 3\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.data, config.lr, config.size, config.epochs) == ("x", 0.1, 64, 3)


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("learning_rate=1", ValueError, "learning_rate: unknown name 'learning_rate'; near ones: lr"),
        ("image_size=64", ValueError, "image_size: unknown name 'image_size'; near ones: size"),
        ("n_classes=2", ValueError, "n_classes: unknown name 'n_classes'; near ones: num_classes"),
        ("bath_size=1", ValueError, "bath_size: unknown name 'bath_size'; near ones: batch_size"),
        ("overrides.drop_pth=0", ValueError, "overrides.drop_pth: unknown name 'drop_pth'; near ones: drop_path"),
        ("overrides.depths=[1, 2]", ValueError, "overrides.depths: expected 4 values, got 2"),
        ("overrides.ccm=1", TypeError, "overrides.ccm: expected bool, got 1"),
        ("size=3.5", TypeError, "size: expected int, got 3.5"),
        ("size=true", TypeError, "size: expected int, got True"),
        ("size=0", ValueError, "size: expected at least 1, got 0"),
        ("lr=fast", TypeError, "lr: expected float, got 'fast'"),
        ("lr=.nan", ValueError, "lr: expected a finite number, got nan"),
        ("clip=.inf", ValueError, "clip: expected a finite number, got inf"),
        ("overrides.drop_path=.nan", ValueError, "overrides.drop_path: expected a finite number, got nan"),
        (
            "overrides.in_channels=1",
            ValueError,
            "overrides.in_channels: expected 3, as the recipe's in_channels says, got 1; set in_channels=1",
        ),
        ("batchnorm_images=-1", ValueError, "batchnorm_images: expected at least 0, got -1"),
        ("clip=-1", ValueError, "clip: expected at least 0, got -1.0"),
        ("ema=1", ValueError, "ema: expected at least 0 and less than 1, got 1.0"),
        ("compile=sometimes", TypeError, "compile: expected bool, got 'sometimes'"),
        ("choose=first", ValueError, "choose: expected one of best, last, got 'first'"),
        ("validation=null", ValueError, "choose: expected 'last' where validation is null, got 'best'"),
        ("assumed=[lrr]", ValueError, "assumed: unknown name 'lrr'; near ones: lr"),
        ("task=detect", ValueError, "task: unknown name 'detect'; known: segment, classify"),
        ("lr", ValueError, "settings: expected key=value, got 'lr'"),
        ("lr.a=1", ValueError, "lr.a: lr has no parts"),
    ],
)
def test_what_is_wrong_is_named(setting, error, message, write_recipe):
    with pytest.raises(error) as caught:
        load_config(write_recipe(lr=0.1), [setting])
    assert str(caught.value).startswith(message)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config: no file"):
        load_config(tmp_path / "none.yaml")
    for text, message in (
        ("a: [", "is not YAML"),
        ("- a", "expected keys and values"),
        ("lr: 1", "data: expected a data"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_config(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("extends: none.yaml")
    with pytest.raises(FileNotFoundError, match=r"config: no file .*none\.yaml"):
        load_config(tmp_path / "bad.yaml")


def test_recipes_that_come_with_the_library_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("glas_fast") == load_config("glas_fast.yaml")
    (tmp_path / "mine.yaml").write_text("extends: fast.yaml\ndata: x\n")
    assert load_config("mine.yaml").budget_seconds == 240
    (tmp_path / "fast.yaml").write_text("epochs: 7\n")
    config = load_config("mine.yaml")
    assert (config.epochs, config.budget_seconds) == (7, 0), "the file beside it comes first"
    with pytest.raises(
        FileNotFoundError, match=r"config: no file 'slow\.yaml', and no recipe 'slow\.yaml' in '.*configs'"
    ):
        load_config("slow.yaml")


def test_every_name_that_is_meant_is_a_field():
    assert set(MEANT.values()) <= set(TrainConfig.__dataclass_fields__) and not set(MEANT) & set(
        TrainConfig.__dataclass_fields__
    )


def test_a_recipe_made_in_python_is_checked_as_well():
    assert TrainConfig(data="x", lr=1).lr == 1.0
    with pytest.raises(TypeError, match="batch_size: expected int, got '4'"):
        TrainConfig(data="x", batch_size="4")
    assert isinstance(load_config(CONFIGS / "pretrain_imagenet.yaml"), PretrainConfig)


def test_no_recipe_runs_code(tmp_path):
    (tmp_path / "bad.yaml").write_text("data: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="is not YAML"):
        load_config(tmp_path / "bad.yaml")


def test_the_old_name_of_the_published_protocol_is_read(write_recipe):
    assert load_config(write_recipe(protocol="paper")).protocol == "published"
    assert load_config(write_recipe(), ["protocol=published"]).protocol == "published"
