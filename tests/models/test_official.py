"""Released checkpoints: both generations load, dead keys are counted by rule, anything unexplained raises."""

import re

import pytest
import torch

from rwkvlib import create_model, load_official
from tests.models.test_model import golden_state


@pytest.fixture
def model():
    return create_model("rwkv_unet_t", num_classes=4)


def first_generation(state):
    """Spatial Mix only where attention is on, no ln2."""
    dead = re.compile(r"(^|\.)ln2\.|^encoder\.stage([012]\.\d+|[34]\.0)\.att\.")
    return {key: value for key, value in state.items() if not dead.search(key)}


def test_both_generations_load_the_same(model):
    new = load_official(model, golden_state())
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    other = create_model("rwkv_unet_t", num_classes=4)
    old = load_official(other, first_generation(golden_state()))
    assert new.loaded == old.loaded
    assert sum(map(len, new.ignored.values())) > sum(map(len, old.ignored.values())) > 0
    for key, value in other.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_the_report_counts_dead_keys_by_rule(model):
    report = load_official(model, golden_state())
    assert {rule: len(keys) for rule, keys in report.ignored.items()} == {
        "ln2, in every block": 22,
        "Spatial Mix of a block without attention": 77,
        "ln1 of a block without attention": 14,
        "ln1 of a decoder block": 8,
        "the classification norm and head, in segmentation": 4,
    }
    assert "ignored 22 as dead: ln2" in str(report) and "'published'" in str(report)


def test_a_file_is_read_safely(model, tmp_path):
    torch.save({"state_dict": {"module." + k: v for k, v in golden_state().items()}}, tmp_path / "ok.pth")
    assert len(load_official(model, tmp_path / "ok.pth").loaded) == len(model.state_dict())

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth' holds other objects beside tensors"):
        load_official(model, tmp_path / "evil.pth")
    assert not (tmp_path / "owned").exists()
    with pytest.raises(FileNotFoundError, match="no file"):
        load_official(model, tmp_path / "nowhere.pth")


def test_encoder_only_files_leave_the_rest_as_it_was(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {k.removeprefix("encoder."): v for k, v in golden_state().items() if k.startswith("encoder.")}
    report = load_official(model, state)
    assert report.missing and not any(key.startswith("encoder.") for key in report.missing)
    assert "left" in str(report) and "decoder1" in str(report)
    for key, value in model.state_dict().items():
        expected = before[key] if key in report.missing else state[key.removeprefix("encoder.")]
        assert torch.equal(value, expected), key


def test_an_encoder_takes_its_part_of_a_whole_file():
    encoder = create_model("rwkv_encoder_t")
    report = load_official(encoder, golden_state())
    assert len(report.loaded) == len(encoder.state_dict())
    assert "CCM and decoder, in classification" in report.ignored
    state = {k.removeprefix("encoder."): v for k, v in golden_state().items() if k.startswith("encoder.")}
    assert not load_official(encoder, state).missing


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_the_variant_is_set_everywhere(model, variant):
    load_official(model, golden_state(), variant=variant)
    mixes = [m for m in model.modules() if hasattr(m, "variant")]
    assert len(mixes) == 4 and all(m.variant == variant for m in mixes)


def test_what_no_rule_explains_raises_and_loads_nothing(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = golden_state()
    missing = {k: v for k, v in state.items() if k != "decoder2.conv.conv.weight"}
    with pytest.raises(ValueError, match=r"decoder2\.conv\.conv\.weight is missing"):
        load_official(model, missing)
    with pytest.raises(ValueError, match=r"decoder9\.x is not a key of this model"):
        load_official(model, {**state, "decoder9.x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"final_conv.weight has shape \(4, 24, 1, 1\), expected \(1, 24, 1, 1\)"):
        load_official(create_model("rwkv_unet_t"), state)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_official(create_model("rwkv_unet_s", num_classes=4), state)
    with pytest.raises(ValueError, match="is not a key of this model"):  # live weights are not dead weight
        load_official(create_model("rwkv_unet_t", num_classes=4, attention=False), state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_arguments_are_checked(model):
    with pytest.raises(ValueError, match="variant: expected one of paper, published, got 'cuda'"):
        load_official(model, golden_state(), variant="cuda")
    with pytest.raises(TypeError, match=r"model: expected a model of rwkvlib\.create_model, got Linear"):
        load_official(torch.nn.Linear(1, 1), golden_state())
    with pytest.raises(TypeError, match="path_or_state_dict: expected"):
        load_official(model, {"a": 1})
    with pytest.raises(TypeError, match="path_or_state_dict: expected"):
        load_official(model, [1])


def test_a_prefix_of_all_keys_is_named():
    state = {f"seg.{key}": value for key, value in create_model("rwkv_unet_t").state_dict().items()}
    with pytest.raises(ValueError, match=r"every key begins with 'seg\.'.*remove that"):
        load_official(create_model("rwkv_unet_t"), state)
