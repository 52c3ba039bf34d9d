"""The table of public checkpoints, and a small file in the layout of each row."""

from __future__ import annotations

import argparse

import pytest
import torch
from safetensors.torch import save_file

from crate_analysis import build_model, load_model
from crate_analysis.models import ARCHS, released_checkpoints
from crate_analysis.models.config import IMAGENET_MEAN, IMAGENET_STD
from crate_analysis.models.registry import from_config
from crate_analysis.models.released import (
    ANNOUNCED,
    CHUNKS,
    DEAD,
    DEMO,
    ENCODER,
    HUB_DINOV2,
    LISTED,
    NOT_FOUND,
    OBTAINED,
    PLAIN,
    TEACHER,
    TRAINING,
    TRANSFORMERS,
)
from crate_analysis.models.shapes import SOURCE_FIELDS, settle_config

TABLE = released_checkpoints()
FILES = TABLE[TABLE.file != ""]
ROWS = [pytest.param(row, id=row["name"]) for _, row in FILES.iterrows()]
HALF = (0.5, 0.5, 0.5)


def prefixed(weights, prefix):
    return {prefix + key: value for key, value in weights.items()}


def published(weights, layout, others):
    """Weights nested as the row says, written out by hand from what publishes them."""
    dim = weights["cls_token"].shape[-1]
    if layout == ENCODER:
        other = {"mask_token": torch.ones(1, 1, dim), "decoder_pred.bias": torch.ones(3)}
        return {"model": others.crate_mae(weights) | other}
    if layout == CHUNKS:
        head = {"dino_head.mlp.0.weight": torch.ones(2, 2)}
        inside = others.chunked(weights) | {"mask_token": torch.ones(1, dim)}
        return {"teacher": prefixed(inside, "backbone.") | head}
    if layout == HUB_DINOV2:
        return weights | {"mask_token": torch.ones(1, dim)}
    if layout == TRANSFORMERS:
        is_dinov2 = "blocks.0.ls1.gamma" in weights
        return (others.transformers if is_dinov2 else others.transformers_vit)(weights)
    if layout == TRAINING:
        state = prefixed(weights, "module.")
        return {"epoch": 90, "arch": "CRATE_small", "state_dict": state, "best_acc1": torch.ones(1)}
    if layout == DEMO:
        assert {"mlp_head.1.weight", "head.weight", "head.bias"} <= weights.keys()
        return {"model": weights}
    if layout == TEACHER:
        head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2, 2)}
        other = {key: torch.zeros_like(value) for key, value in weights.items()}
        return {
            "student": prefixed(prefixed(other, "backbone.") | head, "module."),
            "teacher": prefixed(weights, "backbone.") | head,
            "epoch": 100,
            "args": argparse.Namespace(arch="vit_small"),
        }
    assert layout == PLAIN
    return weights


def keys(arch):
    with torch.device("meta"):
        return build_model(arch).state_dict()


def shrink(arch, monkeypatch):
    """Leave of an architecture what makes it different: heads, patch, projector, pixels."""
    config = ARCHS[arch]
    small = {"depth": 1, "dim": 4 * config.heads, "projector_dim": 8 * bool(config.projector_dim)}
    monkeypatch.setitem(ARCHS, arch, config.override(**small))


@pytest.mark.parametrize("row", ROWS)
def test_a_file_of_each_row_is_loaded_by_its_own_name(row, tmp_path, monkeypatch, others):
    """Narrow, with one layer in place of all; the name is the row's, in a folder of our own."""
    shrink(row.arch, monkeypatch)
    torch.manual_seed(0)
    size = 4 * ARCHS[row.arch].patch_size
    config = ARCHS[row.arch].override(num_classes=7 if row.classes else 0, image_size=size)
    weights = from_config(config).state_dict()
    stored = published(weights, row.layout, others)
    if row.file.startswith("hf:"):
        file = tmp_path / "model.safetensors"
        save_file(stored, file, {"format": "pt"})
    else:
        file = tmp_path / row.file
        torch.save(stored, file)

    loaded = load_model(f"{file}@{row['name'].rpartition('@')[2]}")
    if (
        row.layout == TRANSFORMERS
    ):  # whose code resizes by size, and whose ViT has an eps of its own
        config = config.override(**{f: getattr(loaded.config, f) for f in SOURCE_FIELDS})
        assert loaded.config.position_resize in ("size", "antialias")
    assert loaded.config == config
    assert loaded.config.pixel_mean == row["pixel mean"]
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert loaded.config.registers == ARCHS[row.arch].registers


@pytest.mark.parametrize("row", ROWS)
def test_the_shapes_of_a_whole_file_agree_with_its_row(row):
    config = settle_config(keys(row.arch), {}, row.arch, {})
    assert config.num_classes == row.classes and config.image_size == row["image size"]
    assert row["image size"] == (518 if row.system.startswith("DINOv2") else 224)
    patch, letter = row.system.partition("/")[2].partition(",")[0], row.system.partition("/")[0][-1]
    assert config.patch_size == int(patch)
    assert letter == row.arch.split("_")[1][0].upper()


def test_names_settle_the_scale_of_pixels(tmp_path, monkeypatch):
    """One file, three names: nothing in the weights tells which is right."""
    scales = {
        "": (IMAGENET_MEAN, IMAGENET_STD),
        ".dino": (IMAGENET_MEAN, IMAGENET_STD),
        ".augreg_in21k": (HALF, HALF),
    }
    for tag in scales:
        shrink(f"vit_small_patch16_224{tag}", monkeypatch)
    file = tmp_path / "vit.pth"
    torch.save(build_model("vit_small_patch16_224", image_size=16).state_dict(), file)
    for tag, (mean, std) in scales.items():
        model = load_model(f"{file}@vit_small_patch16_224{tag}")
        assert (model.config.pixel_mean, model.config.pixel_std) == (mean, std)
        grey = torch.full((1, 3, 16, 16), 51, dtype=torch.uint8)  # a fifth of 255
        expected = (0.2 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(model.normalize(grey)[0, :, 0, 0], expected)


def test_the_paper_s_vit_b_has_as_many_parameters_as_augreg_s():
    count = sum(weight.numel() for weight in keys("vit_base_patch8_224.augreg_in21k").values())
    assert round(count / 1e6, 2) == 102.61


def test_every_row_names_its_source_and_what_is_to_be_had():
    assert TABLE["read in"].str.len().min() > 0
    assert set(TABLE.status) == {LISTED, OBTAINED, DEAD, ANNOUNCED, NOT_FOUND}
    assert set(TABLE.arch) <= ARCHS.keys()
    has_file = TABLE.file != ""
    assert (TABLE.status.isin([LISTED, OBTAINED, DEAD]) == has_file).all()
    assert TABLE[has_file].published.str.startswith("https://").all()
    assert (TABLE[~has_file][["name", "layout", "licence"]] == "").all(axis=None)
    assert TABLE[~has_file][["classes", "pixel mean"]].isna().all(axis=None)
    assert FILES["name"].is_unique
