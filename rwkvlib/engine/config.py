"""Recipes: typed fields, read from small YAML files; a misspelt key or a wrong type is an error that names it."""

import dataclasses
import difflib
import math
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ..data.pixels import Size, pair
from ..data.synthetic import HARMONICS
from ..files import expand
from ..models import ModelConfig, model_names
from ..models.registry import MODELS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What pretraining and segmentation have in common. Values are checked, and numbers turned into their types.

    Raises: ValueError for a value outside its range, TypeError for a wrong type; both begin with the field's name.
    """

    learns = "segmentation"  # what its networks are for, see `model_names`; not a field

    data: str | dict[str, float]  # a data set, or several and how often each is taken
    model: str = "rwkv_unet_t"  # a name of `create_model`
    overrides: dict = field(default_factory=dict)  # of the model
    num_classes: int = 1  # 1 for a binary mask, else the background counts as one; not where labels are overlapping
    # Of the images, as `rwkvlib.data.files` reads them. Three are normalised by ImageNet's means and deviations
    # (of values in [0, 1]), any other number by 0.5 and 0.25.
    in_channels: int = 3
    size: Size | None = 128  # pixels: [height, width], or one number for both
    epochs: int = 30
    steps: int = 0  # > 0: so many optimiser steps, in the place of epochs
    budget_seconds: float = 0  # > 0: also stop after so much wall-clock time, which the schedule then runs to
    batch_size: int = 16  # images of one optimiser step, over all processes and accumulated parts
    accumulate: int = 1  # parts that a process computes its batch in, one after the other
    lr: float = 1e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 0  # linear from 0, before the schedule
    schedule: str = "one_cycle"
    clip: float = 5.0  # largest norm of all gradients together; 0 for no limit
    augment: str = "default"  # a name of `rwkvlib.data.augment`
    choose: Literal["best", "last"] = "best"  # on validation, or the last step's
    keep: Literal["chosen", "all"] = "chosen"  # all: beside the chosen weights those of each validation, in float16
    validate_every: int = 0  # steps; 0: at each epoch's end
    save_every: int = 0  # steps from one checkpoint to the next; 0: at each epoch's end
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False  # torch.compile
    sync_batchnorm: bool = False  # statistics over all GPUs
    freeze_batchnorm: bool = False  # running statistics are used and kept, as in eval mode
    # At most so many training images, not augmented, give BatchNorm new statistics before each validation, for what is
    # validated and saved; fewer after fewer steps, so that it costs about a twentieth of a run at most. 0: none do.
    batchnorm_images: int = 128
    ema: float = 0  # decay of an average of the weights, which is then what is validated and kept; 0: none
    # Share of the run's length, of its time where that is bounded, else of its steps: it also stops where no validation
    # of so long a stretch has been better than the best before. 0: it does not.
    patience: float = 0
    seed: int = 0
    num_workers: int = 0
    # Where a set lies: on the device, as bytes, batches being cut there; in the host's memory; or in its files, which
    # num_workers read as they are needed. auto: on a GPU that it fits on; in memory if a split takes 4 GiB at most.
    data_on: Literal["auto", "device", "host", "files"] = "auto"
    assumed: tuple[str, ...] = ()  # the fields that no publication states

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _typed(f.name, getattr(self, f.name), hints[f.name]))
        if self.model not in model_names(self.learns):
            raise ValueError(f"model: expected one of {', '.join(model_names(self.learns))}, got {self.model!r}")
        if not MODELS[self.model].is_baseline:  # whose options are MONAI's, which checks them
            object.__setattr__(self, "overrides", check(ModelConfig, self.overrides, "overrides."))
        for name in ("size", "crop"):
            value = getattr(self, name, None)
            if value is not None and min(pair(value)) < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
            if isinstance(value, tuple) and value[0] == value[1]:  # one square has one name
                object.__setattr__(self, name, value[0])
        for name in ("epochs", "batch_size", "accumulate", "num_classes", "in_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in (
            "steps",
            "budget_seconds",
            "weight_decay",
            "clip",
            "warmup_epochs",
            "validate_every",
            "save_every",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr: expected more than 0, got {self.lr}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected at least 0 and less than 1, got {self.ema}")
        if not 0 <= self.patience < 1:
            raise ValueError(f"patience: expected at least 0 and less than 1, got {self.patience}")
        if self.batchnorm_images < 0:
            raise ValueError(f"batchnorm_images: expected at least 0, got {self.batchnorm_images}")
        if self.overrides.get("in_channels", self.in_channels) != self.in_channels:
            raise ValueError(
                f"overrides.in_channels: expected {self.in_channels}, as the recipe's in_channels says, got "
                f"{self.overrides['in_channels']}; set in_channels={self.overrides['in_channels']}"
            )
        if self.in_channels != 3 and self.learns != "segmentation":
            raise ValueError(f"in_channels: expected 3 where an encoder learns, got {self.in_channels}")
        for name in ("data", "pretrained"):
            if isinstance(getattr(self, name, None), str):
                object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))
        for name in self.assumed:
            if name not in hints:
                raise ValueError(f"assumed: {_unknown(name, hints)}")

    @property
    def trained_at(self) -> tuple[str, Size]:
        """The field that says which height and width the network sees in training, and its value."""
        return next((f, value) for f in ("crop", "size") if (value := getattr(self, f, None)) is not None)

    def describe(self) -> str:
        """One line a field; those that are assumed say so."""
        rows = dataclasses.asdict(self)
        del rows["assumed"]
        return "\n".join(f"  {k}: {v}{' (assumed, not published)' * (k in self.assumed)}" for k, v in rows.items())


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Recipe):
    """A recipe for segmentation. Two runs with the same one give the same weights on the same machine."""

    data: str  # see `load_data`
    split: str = "split"  # the column of items.csv that holds train, validation, test
    validation: str | None = "validation"  # its value for the validation images; None: there are none
    loss: str = "binary"  # a name of `rwkvlib.engine.losses`
    protocol: Literal["strict", "published"] = "strict"  # of the scores, see `rwkvlib.engine.metrics`
    pretrained: str | None = None  # a checkpoint or run, of an encoder or a whole network, see `load_encoder`
    labels: float = 1.0  # share of the training items that is used: drawn by the seed, the smaller within the larger
    # squash: images are resized to `size` whatever their shape is; letterbox: that is kept, black fills the rest.
    resize: Literal["squash", "letterbox"] = "squash"
    # Training on random patches of [height, width], or one number for both, of images that have `size`; size=null
    # leaves them at their own. Whole images are predicted in windows of this size that overlap by half.
    crop: Size | None = None
    ignore_index: int | None = None  # a value of the masks, whose pixels count neither in the loss nor in scores
    class_weights: tuple[float, ...] | None = None  # in the loss; the background's first, see `make_loss`
    # A pixel may be of several of the num_classes classes: each has its own sigmoid; see `rwkvlib.data.dataset`.
    overlapping: bool = False
    # encoder: of the pretrained network it stays as it is, BatchNorm's statistics included, and has no gradient.
    freeze: Literal["encoder"] | None = None
    encoder_lr: float | None = None  # of the encoder, in the place of lr; it follows the schedule as that does

    def __post_init__(self):
        super().__post_init__()
        classes = self.num_classes if self.overlapping else max(2, self.num_classes)
        if self.overlapping and self.num_classes > 8:
            raise ValueError(f"num_classes: expected at most 8 where labels are overlapping, got {self.num_classes}")
        if self.ignore_index is not None:
            if self.overlapping:
                raise ValueError(
                    "ignore_index: expected null where labels are overlapping, whose masks have no such value"
                )
            if not classes <= self.ignore_index <= 255:
                raise ValueError(
                    f"ignore_index: expected {classes} to 255, a value that is no class of num_classes = "
                    f"{self.num_classes}, got {self.ignore_index}"
                )
        if self.class_weights is not None:
            if len(self.class_weights) != classes:
                whose = "one for each class" if self.overlapping else "the background's and one for each other class"
                raise ValueError(f"class_weights: expected {classes} numbers, {whose}, got {len(self.class_weights)}")
            if min(self.class_weights) < 0 or not sum(self.class_weights) > 0:
                raise ValueError(
                    f"class_weights: expected numbers of at least 0, one above it, got {self.class_weights}"
                )
        if self.freeze and self.encoder_lr is not None:
            raise ValueError("encoder_lr: expected null where the encoder is frozen, which learns nothing")
        if self.freeze and not (self.pretrained or self.model == "lite0_unet"):
            raise ValueError("freeze: expected pretrained weights, as a random encoder would stay so; set pretrained")
        if self.encoder_lr is not None and not self.encoder_lr > 0:
            raise ValueError(
                f"encoder_lr: expected more than 0, got {self.encoder_lr}; freeze=encoder keeps it as it is"
            )
        if self.size is None and self.crop is None:
            raise ValueError("size: expected pixels, got null, which leaves images at their own size for crop=PIXELS")
        if self.size is None and self.resize != "squash":
            raise ValueError(f"resize: {self.resize!r} takes a size, got size=null")
        if self.size is None and self.data_on in ("device", "host"):
            raise ValueError(f"data_on: images of any size stay in files, got {self.data_on!r}; take auto")
        if self.crop is not None and self.size is not None:
            if any(n > whole for n, whole in zip(pair(self.crop), pair(self.size), strict=True)):
                raise ValueError(
                    f"crop: expected at most size = {self.size}, to which images are resized first, got {self.crop}; "
                    "size=null leaves them at their own size"
                )
        if self.validation is None and self.choose == "best":
            raise ValueError("choose: expected 'last' where validation is null, got 'best': set choose=last")
        if self.validation is None and self.patience:
            raise ValueError(f"patience: expected 0 where validation is null, got {self.patience}")
        if not 0 < self.labels <= 1:
            raise ValueError(f"labels: expected more than 0 and at most 1, got {self.labels}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Recipe):
    """A recipe for classification on a folder with ``train/CLASS/*`` and ``validation/CLASS/*``."""

    learns = "classification"

    data: str  # the folder
    size: int = 128
    model: str = "rwkv_encoder_t"
    num_classes: int = 1000
    augment: str = "imagenet"  # or none
    label_smoothing: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Recipe):
    """A recipe for an encoder that learns a teacher's feature maps on pictures without labels."""

    learns = "classification"  # the networks that are encoders

    data: dict[str, float]  # see `PictureStream`: sources, and how often each is taken, in proportion
    size: int = 128
    model: str = "rwkv_encoder_t"
    images: int = 24_000  # pictures that are seen, no crop twice; the recipe's one epoch
    epochs: int = 1
    batch_size: int = 8
    warmup_epochs: float = 0.03
    schedule: str = "cosine"
    choose: Literal["best", "last"] = "last"

    def __post_init__(self):
        super().__post_init__()
        if self.images < 1:
            raise ValueError(f"images: expected at least 1, got {self.images}")
        for source, share in self.data.items():
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < math.inf:
                raise ValueError(f"data: expected a share above 0 for {source!r}, got {share!r}")


@dataclass(frozen=True, kw_only=True)
class FormulaConfig(Recipe):
    """A recipe for a network for segmentation that learns on formula images, generated as they are asked for."""

    data: Literal["synthetic-formula"] = "synthetic-formula"
    size: int = 128
    num_classes: int = 1 + len(HARMONICS)
    images: int = 24_000  # that are seen, none twice; the recipe's one epoch
    epochs: int = 1
    batch_size: int = 8
    warmup_epochs: float = 0.03
    schedule: str = "cosine"
    loss: str = "synapse"  # a name of `rwkvlib.engine.losses`
    augment: str = "none"
    choose: Literal["best", "last"] = "last"
    pretrained: str | None = None  # see `TrainConfig`: of an encoder for example, that a teacher had

    def __post_init__(self):
        super().__post_init__()
        if self.images < 1:
            raise ValueError(f"images: expected at least 1, got {self.images}")
        if self.in_channels != 3:
            raise ValueError(f"in_channels: expected 3, as formula images have, got {self.in_channels}")
        if self.num_classes != 1 + len(HARMONICS):
            raise ValueError(
                f"num_classes: expected {1 + len(HARMONICS)}, as many as formula images have, got {self.num_classes}; "
                "the network that starts from the weights may have any number"
            )


TASKS: dict[str, type[TrainConfig | PretrainConfig | TeacherConfig | FormulaConfig]] = {
    "segment": TrainConfig,
    "classify": PretrainConfig,
    "imitate": TeacherConfig,
    "formula": FormulaConfig,
}
# Fields as other libraries call them.
MEANT = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "bs": "batch_size",
    "image_size": "size",
    "img_size": "size",
    "imgsz": "size",
    "input_size": "size",
    "resolution": "size",
    "crop_size": "crop",
    "patch_size": "crop",
    "patch": "crop",
    "roi_size": "crop",
    "letterbox": "resize",
    "keep_ratio": "resize",
    "cache": "data_on",
    "input_channels": "in_channels",
    "channels": "in_channels",
    "n_channels": "in_channels",
    "num_channels": "in_channels",
    "in_chans": "in_channels",
    "ignore_label": "ignore_index",
    "ignore_value": "ignore_index",
    "ignore": "ignore_index",
    "void": "ignore_index",
    "loss_weights": "class_weights",
    "class_weight": "class_weights",
    "freeze_encoder": "freeze",
    "frozen": "freeze",
    "freeze_backbone": "freeze",
    "backbone_lr": "encoder_lr",
    "lr_encoder": "encoder_lr",
    "lr_backbone": "encoder_lr",
    "checkpoint": "pretrained",
    "finetune": "pretrained",
    "multilabel": "overlapping",
    "multi_label": "overlapping",
    "sigmoid": "overlapping",
    "n_classes": "num_classes",
    "classes": "num_classes",
    "dataset": "data",
    "data_path": "data",
    "network": "model",
    "arch": "model",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "scheduler": "schedule",
    "augmentation": "augment",
    "criterion": "loss",
    "weights": "pretrained",
    "init": "pretrained",
    "early_stopping": "patience",
    "grad_clip": "clip",
    "amp": "mixed_precision",
    "workers": "num_workers",
    "random_state": "seed",
}
# Fields that came later, with what they are in the recipes of older runs and results.
ADDED = {
    "batchnorm_images": 0,
    "patience": 0.0,
    "labels": 1.0,
    "steps": 0,
    "resize": "squash",
    "crop": None,
    "in_channels": 3,
    "ignore_index": None,
    "class_weights": None,
    "overlapping": False,
    "freeze": None,
    "encoder_lr": None,
}


# What prediction has to know of a recipe: in a checkpoint's metadata where it is none of `ADDED`.
SEEN = ("resize", "crop", "ignore_index", "overlapping")


def with_added(held: dict, recipe: dict) -> dict:
    """A held recipe with those of the fields in `ADDED` that it is older than and `recipe` has."""
    return {field: value for field, value in ADDED.items() if field in recipe} | held


def base_names(field: str, value: Any) -> Any:
    """A recipe's value without the folders of files: a result must not depend on where somebody keeps them."""
    if field not in ("data", "pretrained") or not value:
        return value
    return {Path(k).name: v for k, v in value.items()} if isinstance(value, dict) else Path(value).name


def load_config(
    path: str | Path, settings: typing.Sequence[str] = ()
) -> TrainConfig | PretrainConfig | TeacherConfig | FormulaConfig:
    """Reads a recipe.

    Args:
        path: a YAML file of the fields of `TrainConfig`, or with ``task: NAME`` of another class of `TASKS`. ``extends:
            OTHER.yaml``, or a list of such, takes the fields of other files beside it first; later ones win. A name
            without a folder, with or without ``.yaml``, that is no file there is one of ``configs/``, which come with
            the library.
        settings: ``key=value`` each, which win over the file; ``overrides.drop_path=0`` sets one entry of a dict.

    Raises:
        ValueError, TypeError: what is wrong, beginning with the key's name. FileNotFoundError: no such file.
    """
    values = _read(path)
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise ValueError(f"settings: expected key=value, got {setting!r}")
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f"{key}: {parent} has no parts")
        place[last] = yaml.safe_load(text)
    task = values.pop("task", "segment")
    if task not in TASKS:
        raise ValueError(f"task: {_unknown(task, TASKS)}")
    if values.get("protocol") == "paper":  # its old name
        values["protocol"] = "published"
    values = check(TASKS[task], values)
    if "data" not in values:
        raise ValueError(f"data: expected a data set in {str(path)!r} or as data=PATH, got none")
    return TASKS[task](**values)


PACKAGE = Path(__file__).resolve().parents[1]


def _find(name: str | Path, beside: Path) -> Path:
    """A recipe's file: as seen from the folder `beside`, else of the recipes that come with the library."""
    path = beside / expand(name)
    if path.is_file():
        return path
    if Path(name).name != str(name):
        raise FileNotFoundError(f"config: no file {str(path)!r}")
    folder = next((f for f in (PACKAGE / "configs", PACKAGE.parent / "configs") if f.is_dir()), PACKAGE / "configs")
    own = folder / f"{str(name).removesuffix('.yaml')}.yaml"
    if not own.is_file():
        raise FileNotFoundError(f"config: no file {str(path)!r}, and no recipe {own.name!r} in {str(folder)!r}")
    return own


def _read(name: str | Path, beside: Path = Path()) -> dict[str, Any]:
    path = _find(name, beside)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf8"))
    except yaml.YAMLError as error:
        raise ValueError(f"config: {str(path)!r} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"config: expected keys and values in {str(path)!r}, got {type(values).__name__}")
    extends = values.pop("extends", [])
    merged: dict[str, Any] = {}
    for other in [extends] if isinstance(extends, str) else extends:
        merged |= _read(other, path.parent)
    return merged | values


def check(kind: type, values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values as the types that the dataclass `kind` declares; an unknown key's message names near ones."""
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ValueError(f"{prefix}{key}: {_unknown(key, hints)}")
    return {key: _typed(prefix + key, value, hints[key]) for key, value in values.items()}


def _unknown(name: Any, known: typing.Iterable[str]) -> str:
    meant = MEANT.get(str(name), "")
    near = [meant] if meant in known else difflib.get_close_matches(str(name), known)
    return f"unknown name {name!r}; " + (f"near ones: {', '.join(near)}" if near else f"known: {', '.join(known)}")


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind`; an int does for a float, and nothing else for another type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in args:
            return None
        several = isinstance(value, (list, tuple))  # an int or two of them
        return _typed(name, value, next((k for k in args if several and typing.get_origin(k) is tuple), args[0]))
    if origin is Literal:
        if value is False and "no" in args:  # YAML's reading of a bare no
            value = "no"
        if value not in args:
            raise ValueError(f"{name}: expected one of {', '.join(args)}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = args[:1] * len(value) if Ellipsis in args else args
        if len(kinds) != len(value):
            raise ValueError(f"{name}: expected {len(kinds)} values, got {len(value)}")
        return tuple(_typed(name, x, k) for x, k in zip(value, kinds, strict=True))
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is float and not isinstance(value, bool):
        try:
            number = float(value)  # of a str as well: YAML 1.1 reads 1e-3 as one
        except (TypeError, ValueError):
            pass
        else:
            if not math.isfinite(number):
                raise ValueError(f"{name}: expected a finite number, got {number}")
            return number
    elif isinstance(value, origin or kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise TypeError(f"{name}: expected {getattr(origin or kind, '__name__', kind)}, got {value!r}")
