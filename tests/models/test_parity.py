"""Reference outputs of the public implementations on small random inputs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from crate_analysis.models import ModelConfig
from crate_analysis.models.registry import from_config

CRATES = ("crate_tiny", "crate_one_head")


def read(folder, name):
    with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        fields = json.loads(file.metadata()["config"])
    if name in CRATES:
        config = ModelConfig("crate", **fields)
    else:
        fields["mlp_ratio"] = float(fields["mlp_ratio"])
        config = ModelConfig("vit", num_classes=0, attention="mhsa", nonlinearity="mlp", **fields)
    prefix = "weights/"
    weights = {k.removeprefix(prefix): w for k, w in tensors.items() if k.startswith(prefix)}
    model = from_config(config)
    model.load_state_dict(weights)
    return model.eval(), {k: w for k, w in tensors.items() if not k.startswith(prefix)}


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CRATES)
def test_crate(parity, name):
    model, reference = read(parity, name)
    images = reference["images"]
    states = list(model.unroll(images))
    assert f"layer{len(states)}.output" not in reference
    for state in states:
        expected = {
            key.split(".")[1]: value
            for key, value in reference.items()
            if key.startswith(f"layer{state.index}.")
        }
        assert_same(state.attention(slice(None)), expected["attention"])
        assert_same(state.attention(), expected["attention"][:, :, :1])
        assert_same(state.projections.transpose(1, 2).flatten(2), expected["projections"])
        assert_same(state.half, expected["half"])
        assert_same(state.half - state.tokens, expected["mssa"])
        assert_same(state.output, expected["output"])
        share = (state.output != 0).float().mean((1, 2))
        assert_same(share, expected["nonzero_fraction"].float())
    assert_same(model(images), reference["logits"])


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "resized."])
def test_dino_vit(parity, prefix):
    model, reference = read(parity, "dino_vit_tiny")
    images = reference[f"{prefix}images"]
    for state in model.unroll(images):
        expected = reference[f"{prefix}layer{state.index}.output_normed"]
        assert_same(model.norm(state.output), expected)
    assert_same(state.attention(slice(None)), reference[f"{prefix}last_attention"])
    assert_same(model(images), reference[f"{prefix}cls_feature"])
