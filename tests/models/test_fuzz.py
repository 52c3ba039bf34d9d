"""Records of any content beside good weights: a network, or an error of one line."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from crate_analysis import load_model
from crate_analysis.models import ModelConfig

FIELDS = [one.name for one in fields(ModelConfig)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 3, 10**40, 1e300, 1e-300, -0.1, "", "mean", "3", "nan", "crate"]),
    st.floats(),
    st.text(max_size=5),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=4), st.dictionaries(st.text(), SCALARS))
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
OFTEN = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def loads_or_refuses(path, **overrides):
    try:
        model = load_model(path, **overrides)
    except (ValueError, OSError) as error:
        message = str(error)
        assert len(message.splitlines()) == 1 and str(path) in message
        return
    size = model.config.image_size
    with torch.no_grad():
        assert model(torch.zeros(1, 3, size, size)).isfinite().all()


@pytest.mark.usefixtures("unchecked")
@given(st.dictionaries(st.sampled_from([*FIELDS, "pool", "other"]), VALUES, max_size=3))
@OFTEN
def test_our_own_record(build_tiny, tmp_path, changes):
    model = build_tiny("crate")
    record = json.dumps(model.config.to_dict() | changes)
    save_file(model.state_dict(), tmp_path / "x.safetensors", {"config": record})
    loads_or_refuses(tmp_path / "x.safetensors")


@pytest.mark.usefixtures("unchecked")
@given(st.one_of(st.text(), ANY_JSON.map(json.dumps)))
@OFTEN
def test_any_text_for_a_record(build_tiny, tmp_path, text):
    save_file(build_tiny("vit").state_dict(), tmp_path / "x.safetensors", {"config": text})
    loads_or_refuses(tmp_path / "x.safetensors")


HF_FIELDS = [
    "model_type",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_register_tokens",
    "layer_norm_eps",
    "patch_size",
    "image_size",
    "hidden_act",
    "architecture",
    "pretrained_cfg",
    "global_pool",
    "num_classes",
]


@pytest.mark.usefixtures("unchecked")
@given(
    st.dictionaries(st.sampled_from(HF_FIELDS), VALUES, max_size=4),
    st.dictionaries(st.sampled_from(["image_mean", "image_std", "do_normalize"]), VALUES),
    st.booleans(),
)
@OFTEN
def test_configs_beside_a_file(build_tiny, tmp_path, others, config, pixels, is_theirs):
    weights = build_tiny("vit").state_dict()
    if is_theirs:
        weights = others.transformers_vit(weights)
        config = {"model_type": "vit", "num_attention_heads": 3, **config}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    loads_or_refuses(tmp_path)


@pytest.mark.usefixtures("unchecked")
@given(
    st.dictionaries(
        st.sampled_from(["arch", "heads", "pool", "step_size", "ista", "lambd", "model", "args"]),
        st.one_of(SCALARS, st.lists(SCALARS, max_size=2)),
    ),
    st.booleans(),
)
@OFTEN
def test_options_of_a_training(build_tiny, tmp_path, options, is_namespace):
    args = argparse.Namespace(**options) if is_namespace else options
    torch.save({"state_dict": build_tiny("crate").state_dict(), "args": args}, tmp_path / "x.pth")
    loads_or_refuses(tmp_path / "x.pth")
    loads_or_refuses(tmp_path / "x.pth", heads=3)


@pytest.mark.usefixtures("unchecked")
@given(st.dictionaries(st.sampled_from([*FIELDS, "pool"]), VALUES, max_size=3))
@OFTEN
def test_what_a_call_adds(build_tiny, tmp_path, overrides):
    torch.save(build_tiny("crate").state_dict(), tmp_path / "x.pth")
    loads_or_refuses(tmp_path / "x.pth", **overrides)
