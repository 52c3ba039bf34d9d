"""Reference outputs of other people's networks, read from files in their own layouts."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crate_analysis import load_model

ON_DISK, LIVE = "weights/", "memory/"
TRANSFORMERS = ("hf_vit", "hf_vit_classifier", "hf_deit", "hf_dinov2", "hf_dinov2_registers")
HUB = ("dinov2_plain", "dinov2_registers")


def read(parity, name):
    with safe_open(parity / "networks" / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def load(tensors, prefix, folder, config="", **overrides):
    weights = {key[len(prefix) :]: w for key, w in tensors.items() if key.startswith(prefix)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if config:
        (folder / "config.json").write_text(config)
    return load_model(folder, **overrides)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("resized", ["", "resized."])
@pytest.mark.parametrize("prefix", [ON_DISK, LIVE])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(parity, tmp_path, name, prefix, resized):
    tensors, metadata = read(parity, name)
    model = load(tensors, prefix, tmp_path, metadata["config.json"])
    images = tensors[f"{resized}images"]
    for state in model.unroll(images):
        assert_same(state.tokens, tensors[f"{resized}hidden{state.index}"])
    assert state.index == 2
    assert_same(state.output, tensors[f"{resized}hidden3"])
    assert_same(state.attention(None), tensors[f"{resized}last_attention"])
    if f"{resized}logits" in tensors:
        assert_same(model(images), tensors[f"{resized}logits"])
    else:
        last = tensors[f"{resized}last_hidden_state"]
        assert_same(model.norm(state.output), last)
        assert_same(model(images), last[:, 0])
    grid = images.shape[-2] // model.config.patch_size, images.shape[-1] // model.config.patch_size
    assert state.attention()[..., state.patches].shape[-1] == grid[0] * grid[1]


@torch.no_grad()
@pytest.mark.parametrize("resized", ["", "resized."])
@pytest.mark.parametrize("name", HUB)
def test_dinov2_hub(parity, tmp_path, name, resized):
    tensors, metadata = read(parity, name)
    config = json.loads(metadata["config"])
    model = load(tensors, ON_DISK, tmp_path, heads=config["heads"])
    assert model.config.registers == config["registers"] and model.config.layer_scale
    images = tensors[f"{resized}images"]
    *_, state = model.unroll(images)
    assert state.registers.shape[1] == config["registers"]
    normed = model.norm(state.output)
    assert_same(normed[:, 0], tensors[f"{resized}cls_feature"])
    assert_same(normed[:, state.patches], tensors[f"{resized}patch_features"])
    assert_same(model(images), tensors[f"{resized}cls_feature"])


@torch.no_grad()
def test_crate_alpha(parity, tmp_path):
    tensors, metadata = read(parity, "crate_alpha_tiny")
    model = load(tensors, ON_DISK, tmp_path, heads=json.loads(metadata["config"])["heads"])
    assert model.config.nonlinearity == "ista_overcomplete" and model.config.stem == "conv"
    for state in model.unroll(tensors["images"]):
        expected = f"layer{state.index}."
        assert_same(state.projections.transpose(1, 2).flatten(2), tensors[f"{expected}projections"])
        for place in ("half", "codes", "output"):
            assert_same(getattr(state, place), tensors[expected + place])
        assert_same(state.attention(None), tensors[f"{expected}attention"])
        assert torch.equal(state.sparsified, state.codes)
    assert_same(model(tensors["images"]), tensors["logits"])
