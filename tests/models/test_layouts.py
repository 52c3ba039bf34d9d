"""The layouts of other people's files: every one that is read, and what is refused by name."""

from __future__ import annotations

import argparse
import json
import os
import re
import time

import pytest
import torch
from safetensors.torch import save_file

from crate_analysis import load_model
from crate_analysis.models import ARCHS
from crate_analysis.models.layouts import LAYOUTS, recognise
from crate_analysis.models.registry import from_config


def message_of(kind, *args, **kwargs) -> str:
    """The one line with which `load_model` refuses."""
    with pytest.raises(kind) as caught:
        load_model(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def assert_same(loaded, model):
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], weight, msg=key)


TOKEN = torch.ones(1, 12)
SOURCES = {
    "CRATE": ("crate", lambda w, o: w, {"norm_eps": 1e-5, "stem": "linear"}),
    "DINO": ("vit", lambda w, o: w, {}),
    "DINO in chunks": ("vit-backbone", lambda w, o: o.chunked(w), {}),
    "MAE": ("vit", lambda w, o: w | {"mask_token": TOKEN, "decoder_embed.weight": TOKEN}, {}),
    "timm with registers": (
        "vit-registers",
        lambda w, o: o.renamed(w, ("register_tokens", "reg_token")),
        {"position_resize": "antialias"},
    ),
    "DINOv2": (
        "vit-dinov2",
        lambda w, o: w | {"mask_token": TOKEN},
        {"position_resize": "antialias", "registers": 2, "layer_scale": True},
    ),
    "DINOv2 in chunks": (
        "vit-dinov2",
        lambda w, o: o.chunked(w) | {"mask_token": TOKEN},
        {"position_resize": "offset"},
    ),
    "DeiT III": (
        "vit-dinov2",
        lambda w, o: o.renamed(w, (r"ls([12])\.gamma", r"gamma_\1")),
        {"position_resize": "antialias"},
    ),
    "transformers ViT": (
        "vit",
        lambda w, o: o.transformers_vit(w),
        {"norm_eps": 1e-12, "position_resize": "size"},
    ),
    "transformers ViT, live": (
        "vit",
        lambda w, o: o.transformers_vit(w, True),
        {"norm_eps": 1e-12},
    ),
    "transformers ViT in a classifier": (
        "vit",
        lambda w, o: {
            k if "classifier" in k else f"vit.{k}": v for k, v in o.transformers_vit(w).items()
        },
        {"num_classes": 5},
    ),
    "transformers MAE": (
        "vit-backbone",
        lambda w, o: o.under("vit.", o.transformers_vit(w)) | {"decoder.mask_token": TOKEN},
        {},
    ),
    "transformers DINOv2": (
        "vit-dinov2",
        lambda w, o: o.transformers(w) | {"embeddings.mask_token": TOKEN},
        {"norm_eps": 1e-6, "position_resize": "antialias"},
    ),
    "transformers DINOv2, live": (
        "vit-dinov2",
        lambda w, o: o.renamed(o.transformers(w, True), ("^layers", "encoder.layer")),
        {"registers": 2},
    ),
    "CRATE-alpha": (
        "crate-alpha",
        lambda w, o: w,
        {"nonlinearity": "ista_overcomplete", "norm_eps": 1e-6, "head_eps": 1e-5},
    ),
    "CRATE-MAE": (
        "crate-mae",
        lambda w, o: o.crate_mae(w) | {"mask_token": TOKEN, "decoder_blocks.0.w": TOKEN},
        {"sparsity": 0.5, "head_eps": 1e-6, "num_classes": 0},
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_is_read(build_tiny, tmp_path, source, others):
    kind, theirs, fields = SOURCES[source]
    model = build_tiny(kind)
    torch.save(theirs(model.state_dict(), others), tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth", heads=3)
    assert_same(loaded, model)
    for name, value in fields.items():
        assert getattr(loaded.config, name) == value, name
    images = torch.randn(1, 3, 16, 16)
    same = from_config(loaded.config).eval()
    same.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded(images), same(images))
    assert loaded.notes[0].startswith("layout: ")


def test_every_layout_has_a_source_here(build_tiny, others):
    found = {
        recognise(theirs(build_tiny(kind).state_dict(), others)).layout.name
        for kind, theirs, _ in SOURCES.values()
    }
    assert found == {layout.name for layout in LAYOUTS}


WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder.",
    "base_encoder.",
    "module.backbone.",
    "teacher.backbone.",
    "model._orig_mod.module.",
    "a.name.of.my.own.",
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("source", ["DINO", "transformers DINOv2", "CRATE-alpha", "CRATE-MAE"])
def test_wrappers_are_taken_off_and_said(build_tiny, tmp_path, wrapper, source, others):
    kind, theirs, _ = SOURCES[source]
    model = build_tiny(kind)
    torch.save(
        {"state_dict": others.under(wrapper, theirs(model.state_dict(), others))},
        tmp_path / "x.pth",
    )
    loaded = load_model(tmp_path / "x.pth", heads=3)
    assert_same(loaded, model)
    assert f"wrapper: {wrapper}" in loaded.notes


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ("teacher.backbone.", "student.backbone."),
        ("base_encoder.", "momentum_encoder."),
        ("", "momentum_encoder."),
        ("target_encoder.", "context_encoder."),
    ],
)
def test_of_two_networks_the_one_that_is_meant_is_taken(
    build_tiny, tmp_path, wanted, other, others
):
    model, second = build_tiny("vit-backbone"), build_tiny("vit-backbone", seed=1)
    weights = others.under(other, second.state_dict()) | others.under(wanted, model.state_dict())
    root = other.split(".")[0]
    weights |= {f"{root}.dino_head.mlp.0.weight": TOKEN, "predictor.0.weight": TOKEN}
    weights |= {f"{wanted}head.0.weight": TOKEN, f"{wanted}head.1.num_batches_tracked": TOKEN.int()}
    torch.save(weights, tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth", heads=3)
    assert_same(loaded, model)
    assert "left aside" in " ".join(loaded.notes)


def test_two_networks_that_nobody_tells_apart(build_tiny, tmp_path, others):
    a, b = build_tiny("vit-backbone"), build_tiny("vit-backbone", seed=1)
    torch.save(
        others.under("left.", a.state_dict()) | others.under("right.", b.state_dict()),
        tmp_path / "x.pth",
    )
    message = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert "holds 2 networks, under 'left.', 'right.'; save the one that is meant" in message


@pytest.mark.parametrize(
    "key", ["teacher", "student", "state_dict", "model", "model_ema", "target_encoder", "params"]
)
def test_nested_weights(build_tiny, tmp_path, key):
    model = build_tiny("vit-backbone")
    stored = {"epoch": 3, "optimizer": {"state": {}}, key: {"module": model.state_dict()}}
    torch.save(stored, tmp_path / "x.pth")
    assert_same(load_model(tmp_path / "x.pth", heads=3), model)


# --- tokens and classifiers -------------------------------------------------------------------


def test_a_distillation_token_is_a_register_with_its_position(build_tiny, tmp_path):
    model = build_tiny("vit-backbone")
    weights, token = model.state_dict(), torch.randn(1, 1, 12)
    positions = torch.randn(1, 18, 12)
    weights |= {"dist_token": token, "pos_embed": positions}
    weights |= {"head.weight": torch.ones(5, 12), "head_dist.weight": torch.ones(5, 12)}
    torch.save(weights, tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth", heads=3)
    images = torch.randn(2, 3, 16, 16)
    tokens = next(loaded.unroll(images)).tokens
    patches = torch.nn.functional.conv2d(
        images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4
    )
    expected = torch.cat(
        [
            weights["cls_token"].expand(2, -1, -1),
            token.expand(2, -1, -1),
            patches.flatten(2).transpose(1, 2),
        ],
        dim=1,
    )
    torch.testing.assert_close(tokens, expected + positions)
    notes = " ".join(loaded.notes)
    assert "distillation token is read as a register" in notes and "two classifiers" in notes


def test_a_position_that_lies_in_the_cls_token(build_tiny, tmp_path):
    weights = build_tiny("vit-dinov2").state_dict()
    positions = weights["pos_embed"]
    folded = weights | {
        "cls_token": weights["cls_token"] + positions[:, :1],
        "pos_embed": positions[:, 1:],
    }
    folded["reg_token"] = folded.pop("register_tokens")
    images = torch.randn(1, 3, 16, 24)
    found = []
    for number, one in enumerate((weights, folded)):
        torch.save(one, tmp_path / f"{number}.pth")
        found.append(load_model(tmp_path / f"{number}.pth", heads=3)(images))
    torch.testing.assert_close(*found)


def test_a_position_for_every_register(build_tiny, tmp_path):
    weights = build_tiny("vit-dinov2").state_dict()
    extra = torch.randn(1, 2, 12)
    other = dict(weights)
    other["pos_embed"] = torch.cat(
        [weights["pos_embed"][:, :1], extra, weights["pos_embed"][:, 1:]], dim=1
    )
    torch.save(other, tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth", heads=3)
    torch.testing.assert_close(loaded.register_tokens.data, weights["register_tokens"] + extra)
    torch.testing.assert_close(loaded.pos_embed.data, weights["pos_embed"])


def test_a_classifier_of_more_than_cls_is_left_aside_and_said(build_tiny, tmp_path, others):
    model = build_tiny("vit-dinov2")
    weights = others.transformers(model.state_dict())
    weights |= {"classifier.weight": torch.ones(5, 24), "classifier.bias": torch.ones(5)}
    torch.save(weights, tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth", heads=3)
    assert loaded.config.num_classes == 0 and "mean of the patches" in " ".join(loaded.notes)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["embeddings.register_tokens", "layer.0.attention.q_proj.weight"], "DINOv3"),
        (["model.layer.3.attention.o_proj.bias"], "DINOv3"),
        (["backbone.rope_embed.periods", "blocks.0.attn.qkv.weight"], "DINOv3"),
        (["text_model.embeddings.weight", "vision_model.class_embedding"], "CLIP"),
        (["visual.conv1.weight", "transformer.resblocks.0.ln_1.weight"], "CLIP"),
        (["logit_scale"], "CLIP"),
        (["layers.0.blocks.1.attn.relative_position_bias_table"], "Swin"),
        (["layer1.0.conv1.weight", "conv1.weight"], "a convolutional network"),
        (["stages.0.0.dwconv.weight"], "a convolutional network"),
        (["bert.embeddings.word_embeddings.weight"], "a language model"),
        (["blocks.0.attn.qkv.lora_A.weight"], "an adapter"),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path, keys, name):
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth")
    assert f"x.pth: this is {name}" in message and "which is not read; " in message


@pytest.mark.parametrize("gate", ["w12", "weights_in"])
def test_a_gated_mlp_is_refused_by_name(build_tiny, tmp_path, gate, others):
    kind, theirs, _ = SOURCES["transformers DINOv2"]
    weights = theirs(build_tiny(kind).state_dict(), others)
    weights[f"encoder.layer.0.mlp.{gate}.weight"] = torch.ones(3, 3)
    torch.save(weights, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth")
    assert "SwiGLU" in message and "hf:facebook/dinov2-large" in message


@pytest.mark.parametrize("theirs", [lambda w, o: w, lambda w, o: o.transformers_vit(w)])
def test_a_vit_without_cls_is_refused_by_name(build_tiny, tmp_path, theirs, others):
    weights = build_tiny("vit-backbone").state_dict()
    del weights["cls_token"]
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    torch.save(theirs(weights, others), tmp_path / "x.pth")
    assert "this is I-JEPA" in message_of(ValueError, tmp_path / "x.pth", heads=3)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (
            "encoder.layer.1.layernorm_before.weight",
            "1 missing: encoder.layer.1.layernorm_before.weight",
        ),
        (
            "encoder.layer.2.attention.attention.key.bias",
            "1 missing: encoder.layer.2.attention.attention.key.bias",
        ),
        ("layernorm.bias", "1 missing: norm.bias"),
    ],
)
def test_what_is_missing_is_named_as_the_file_would(build_tiny, tmp_path, drop, message, others):
    weights = others.transformers_vit(build_tiny("vit").state_dict())
    del weights[drop]
    torch.save(weights, tmp_path / "x.pth")
    assert message in message_of(ValueError, tmp_path / "x.pth", heads=3)


def test_what_is_left_over_and_of_the_wrong_shape_is_named(build_tiny, tmp_path, others):
    weights = others.transformers_vit(build_tiny("vit").state_dict())
    torch.save(weights | {"encoder.layer.0.extra.weight": TOKEN}, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert "1 left over: encoder.layer.0.extra.weight" in message
    weights["encoder.layer.0.output.dense.weight"] = torch.ones(12, 47)
    torch.save(weights, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert "encoder.layer.0.output.dense.weight (12, 47) in place of (12, 48)" in message


def test_two_names_for_one_weight(build_tiny, tmp_path):
    weights = build_tiny("vit").state_dict()
    torch.save(weights | {"blocks.0.1.norm1.weight": TOKEN[0]}, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert "1 left over: blocks.0.1.norm1.weight" in message


# --- heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "theirs"),
    [
        ("crate_base_patch16_224.alpha", lambda w, o: w),
        ("crate_large_patch14_224.alpha", lambda w, o: w),
        ("crate_small_patch16_224.mae", lambda w, o: o.crate_mae(w)),
        ("vit_small_patch14_518.dinov2", lambda w, o: w | {"mask_token": torch.ones(1, 384)}),
        ("vit_base_patch14_518.dinov2_reg4", lambda w, o: w | {"mask_token": torch.ones(1, 768)}),
    ],
)
def test_published_networks_need_no_architecture(tmp_path, arch, theirs, others):
    depth = 2
    model = from_config(ARCHS[arch].override(depth=depth, num_classes=0))
    save_file(theirs(model.state_dict(), others), tmp_path / "x.safetensors")
    loaded = load_model(tmp_path / "x.safetensors")
    assert loaded.config == ARCHS[arch].override(depth=depth, num_classes=0)
    assert f"{ARCHS[arch].heads} heads, as all published" in " ".join(loaded.notes)


def test_an_open_number_of_heads_has_a_remedy_that_works(build_tiny, tmp_path, monkeypatch):
    model = build_tiny("crate-alpha")
    monkeypatch.setitem(ARCHS, "crate_test", model.config)
    path = tmp_path / "x.pth"
    torch.save(model.state_dict(), path)
    message = message_of(ValueError, f"mine={path}@sparsity=0.1")
    assert f'models: ["mine={path}@ARCH"] with ARCH one of crate_test (3 heads)' in message
    pasted = re.findall(r'models: (\[".*?"\])', message)[1]
    assert load_model(json.loads(pasted)[0]).name == "mine"


# --- folders, shards and what lies beside -----------------------------------------------------


CONFIG = {
    "model_type": "dinov2_with_registers",
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "num_register_tokens": 2,
    "layer_norm_eps": 1e-5,
    "patch_size": 4,
    "image_size": [16, 16],
    "hidden_act": "gelu",
}


@pytest.fixture
def folder(build_tiny, tmp_path, others):
    """A folder as the transformers library writes it."""
    folder = tmp_path / "my-dinov2"
    folder.mkdir()
    save_file(
        others.transformers(build_tiny("vit-dinov2").state_dict()), folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_a_folder_is_read_with_its_config(build_tiny, folder):
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 1]})
    )
    loaded = load_model(folder)
    assert_same(loaded, build_tiny("vit-dinov2"))
    assert loaded.name == "my-dinov2"
    assert (loaded.config.heads, loaded.config.norm_eps) == (3, 1e-5)
    assert loaded.config.pixel_mean == (0.5, 0.5, 0.5)
    assert loaded.config.pixel_std == (0.25, 0.25, 1)
    assert load_model(f"{folder}/model.safetensors").config == loaded.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4, "hidden_size": 24}, "dim is 12 in the file, but 24 in config"),
        ({"num_register_tokens": 4}, "registers is 2 in the file, but 4 in config.json"),
        ({"image_size": 32}, "image_size is 16 in the file, but 32 in config.json"),
        ({"model_type": "dinov3_vit"}, "config.json says model_type 'dinov3_vit', which is not"),
        ({"model_type": "clip"}, "config.json says model_type 'clip', which is not read; read are"),
        ({"use_swiglu_ffn": True}, "config.json says use_swiglu_ffn"),
        ({"hidden_act": "quick_gelu"}, "config.json says hidden_act 'quick_gelu'"),
        ({"num_attention_heads": 5}, "dim=12 cannot be shared by heads=5"),
        ({"num_attention_heads": None}, "heads=None must be a whole number"),
        ({"layer_norm_eps": "small"}, "norm_eps='small' must be a number"),
        ({"layer_norm_eps": float("nan")}, "norm_eps=nan must be a number"),
    ],
)
def test_a_config_that_contradicts_or_is_not_read(unchecked, folder, changes, message):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    assert message in message_of(ValueError, folder)


def test_a_broken_config(folder):
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in message_of(ValueError, folder)
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json is not JSON" in message_of(ValueError, folder)


def test_a_config_beside_another_file_is_not_its_own(build_tiny, folder):
    torch.save(build_tiny("vit").state_dict(), folder / "other.pth")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    loaded = load_model(folder / "other.pth", heads=2)
    assert loaded.config.pixel_mean == (0.485, 0.456, 0.406)


def test_timm_s_config_settles_heads_and_pixels(build_tiny, tmp_path, monkeypatch):
    model = build_tiny("vit")
    monkeypatch.setitem(ARCHS, "vit_test.tag", model.config)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    cfg = {"tag": "tag", "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": "vit_test", "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path)
    assert (loaded.config.heads, loaded.config.pixel_std) == (3, (0.5, 0.5, 0.5))
    config |= {"global_pool": "avg", "num_classes": 5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "says global_pool 'avg'" in message_of(ValueError, tmp_path)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards(build_tiny, tmp_path, ending, others):
    model = build_tiny("vit-dinov2")
    index = others.sharded(others.transformers(model.state_dict()), tmp_path, ending)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_same(load_model(tmp_path), model)
    assert_same(load_model(index), model)
    second = next(tmp_path.glob("*00002-of*"))
    second.rename(tmp_path / "elsewhere")
    assert "is not there; download it beside the index" in message_of(FileNotFoundError, tmp_path)
    second.write_bytes(b"half")
    assert f"shard {second.name}: " in message_of(ValueError, tmp_path)


def test_one_shard_names_the_whole(build_tiny, tmp_path, others):
    index = others.sharded(build_tiny("vit").state_dict(), tmp_path)
    message = message_of(ValueError, tmp_path / "model-00001-of-00002.safetensors", heads=3)
    assert message.endswith(f"is one of 2 shards; name their index, {index}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no weight_map"),
        ('{"weight_map": {"a": "../secret.bin"}}', "lists '../secret.bin', which is not a file"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "lists '/etc/passwd'"),
        ('{"weight_map": {"a": 3}}', "the shard"),
    ],
)
def test_a_broken_index(tmp_path, content, message):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert message in message_of((ValueError, FileNotFoundError), tmp_path)


def test_a_folder_with_one_file_or_too_many(build_tiny, tmp_path):
    torch.save(build_tiny("vit").state_dict(), tmp_path / "a.pth")
    assert_same(load_model(f"{tmp_path}@heads=3"), build_tiny("vit"))
    torch.save(build_tiny("vit").state_dict(), tmp_path / "b.pth")
    message = message_of(IsADirectoryError, tmp_path)
    assert "is a folder without model.safetensors; name a checkpoint file in it, such as" in message


# --- what a checkpoint records of itself ------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "heads"),
    [
        ({"args": argparse.Namespace(arch="vit_small", patch_size=16)}, 6),
        ({"arch": "vit_small_patch16_224"}, 6),
        ({"args": {"model": "deit_small_patch16_224"}}, 6),
        ({"args": argparse.Namespace(num_heads=8)}, 8),
    ],
)
def test_a_recorded_architecture_settles_the_heads(tmp_path, record, heads):
    model = from_config(ARCHS["vit_small_patch16_224"].override(depth=1, num_classes=0))
    torch.save({"model": model.state_dict(), **record}, tmp_path / "x.pth")
    assert load_model(tmp_path / "x.pth").config.heads == heads


def test_a_recorded_architecture_of_another_width_settles_nothing(build_tiny, tmp_path):
    stored = {"model": build_tiny("vit").state_dict(), "arch": "vit_small"}
    torch.save(stored, tmp_path / "x.pth")
    assert "do not tell the number of heads" in message_of(ValueError, tmp_path / "x.pth")


def test_crate_s_training_code_names_its_architecture(tmp_path, others):
    model = from_config(ARCHS["crate_tiny_patch16_224.neurips23"].override(depth=1))
    stored = {
        "epoch": 1,
        "arch": "CRATE_tiny",
        "state_dict": others.under("module.", model.state_dict()),
    }
    torch.save(stored, tmp_path / "x.pth")
    assert load_model(tmp_path / "x.pth").config == model.config


@pytest.mark.parametrize("pool", ["mean", "avg", True])
@pytest.mark.parametrize("key", ["pool", "global_pool"])
def test_a_classifier_that_pools_is_refused(build_tiny, tmp_path, pool, key):
    weights = build_tiny("crate").state_dict()
    torch.save({"state_dict": weights, "args": {key: pool, "heads": 3}}, tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth")
    assert f"was trained with pool={pool!r}, a mean over patches" in message
    torch.save({"state_dict": weights, "args": {key: "cls", "heads": 3}}, tmp_path / "x.pth")
    assert load_model(tmp_path / "x.pth").config.heads == 3


@pytest.mark.parametrize("name", ["ista", "step_size", "eta"])
def test_a_recorded_step_is_used(build_tiny, tmp_path, name):
    path = tmp_path / "x.pth"
    args = {name: 0.5, "lambd": 0.2}
    torch.save({"state_dict": build_tiny("crate").state_dict(), "args": args}, path)
    loaded = load_model(path, heads=3)
    assert (loaded.config.step_size, loaded.config.sparsity) == (0.5, 0.2)
    message = message_of(ValueError, path, heads=3, step_size=0.1)
    assert "step_size is 0.5 in the checkpoint's own record, but 0.1 in the call" in message


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "big"])
def test_a_recorded_step_that_is_none(unchecked, build_tiny, tmp_path, value):
    stored = {"state_dict": build_tiny("crate").state_dict(), "args": {"step_size": value}}
    torch.save(stored, tmp_path / "x.pth")
    assert "step_size=" in message_of(ValueError, tmp_path / "x.pth", heads=3)


def test_what_cannot_be_known_is_said(build_tiny, tmp_path):
    torch.save(build_tiny("crate").state_dict(), tmp_path / "x.pth")
    notes = " ".join(load_model(tmp_path / "x.pth", heads=3).notes)
    assert "not in the file" in notes and "step_size=0.1, sparsity=0.1" in notes
    notes = " ".join(load_model(tmp_path / "x.pth", heads=3, step_size=0.2).notes)
    assert "step_size" not in notes and "sparsity=0.1" in notes


# --- kinds of tensors and of files ------------------------------------------------------------

W = torch.ones(12)
KINDS = {
    "float8": (
        lambda: W.to(torch.float8_e4m3fn),
        "holds torch.float8_e4m3fn, whose scale is not in it",
    ),
    "float8, another": (lambda: W.to(torch.float8_e5m2), "holds torch.float8_e5m2"),
    "sparse": (lambda: W.to_sparse(), "is sparse (sparse_coo); save w.to_dense()"),
    "sparse rows": (lambda: torch.eye(12).to_sparse_csr(), "is sparse (sparse_csr)"),
    "nested": (lambda: torch.nested.as_nested_tensor([W, W]), "is a nested tensor"),
    "jagged": (
        lambda: torch.nested.as_nested_tensor([W, W], layout=torch.jagged),
        "is a nested tensor",
    ),
    "meta": (lambda: torch.empty(12, device="meta"), "has no values (device meta)"),
    "complex": (lambda: W.to(torch.complex64), "holds torch.complex64, and a weight here is real"),
    "integers": (lambda: W.long(), "holds torch.int64, not floating-point weights"),
    "truth": (lambda: W.bool(), "holds torch.bool"),
    "expanded": (lambda: torch.ones(1).expand(60_000, 60_000), "stands for 14,400,000,000 bytes"),
    "expanded a little": (lambda: torch.ones(1).expand(12), "(expanded); save w.contiguous()"),
    "too large": (
        lambda: W.double() * 1e300,
        "holds numbers in torch.float64 that float32 cannot hold",
    ),
    "NaN": (lambda: W * float("nan"), "holds NaN or infinity"),
    "infinity in double": (
        lambda: W.double() * float("inf"),
        "holds NaN or infinity in torch.float64",
    ),
}


@pytest.mark.filterwarnings("ignore")  # torch's own remarks on these kinds
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["DINO", "transformers ViT"])
def test_tensors_that_are_no_weights(build_tiny, tmp_path, kind, source, others):
    _, theirs, _ = SOURCES[source]
    weights = theirs(build_tiny("vit").state_dict(), others)
    make, message = KINDS[kind]
    key = next(key for key in weights if key.endswith(("norm1.weight", "layernorm_before.weight")))
    torch.save(weights | {key: make()}, tmp_path / "x.pth")
    said = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert key in said and message in said


@pytest.mark.parametrize("number", ["3000000", "99999999999999999999", "1" * 5000, "40"])
@pytest.mark.parametrize("source", ["DINO", "transformers ViT", "CRATE-alpha"])
def test_a_layer_far_behind_the_last_is_told_at_once(build_tiny, tmp_path, number, source, others):
    kind, theirs, _ = SOURCES[source]
    weights = theirs(build_tiny(kind).state_dict(), others)
    key = next(key for key in weights if ".2." in key)
    weights[key.replace(".2.", f".{number}.")] = weights[key]
    torch.save(weights, tmp_path / "x.pth")
    start = time.process_time()
    message = message_of(ValueError, tmp_path / "x.pth", heads=3)
    assert time.process_time() - start < 5 and ("left over" in message or "missing" in message)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_and_other_formats(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    message = message_of(ValueError, tmp_path / "x.pt")
    assert "is a TorchScript archive" in message and "torch.jit.load(FILE).state_dict()" in message
    for start, name in ((b"\x89HDF\r\n\x1a\n", "HDF5"), (b"GGUF", "GGUF"), (b"\x1f\x8b", "gzip")):
        (tmp_path / "x.bin").write_bytes(start + b"0" * 100)
        assert f"is {name}" in message_of(ValueError, tmp_path / "x.bin")
    import numpy as np

    np.savez(tmp_path / "x.npz", a=np.ones(3))
    assert "is NumPy's npz" in message_of(ValueError, tmp_path / "x.npz")


def test_safetensors_under_another_name(build_tiny, tmp_path):
    model = build_tiny("vit")
    save_file(model.state_dict(), tmp_path / "crate_alpha_B8_IN21K")
    assert_same(load_model(f"{tmp_path}/crate_alpha_B8_IN21K", heads=3), model)
    save_file(model.state_dict(), tmp_path / "x.bin")
    assert_same(load_model(tmp_path / "x.bin", heads=3), model)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.onnx", "model.safetensors"])
def test_pipes_links_and_folders(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    assert "is a pipe or a device, not a file" in message_of(ValueError, path)
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    message = message_of(FileNotFoundError, path)
    assert "is a link to" in message and "which is not there" in message
    path.unlink()
    path.mkdir()
    assert "is a folder without" in message_of(IsADirectoryError, path)


@pytest.mark.parametrize("name", ["a" * 5000, "x/" + "a" * 5000, "~nobody-of-this-name/x.pth"])
def test_names_that_no_file_can_have(name):
    message = message_of((ValueError, FileNotFoundError), name)
    assert len(message) < 1000


def test_a_device_file_is_no_checkpoint():
    assert "is a pipe or a device" in message_of(ValueError, "/dev/zero")


@pytest.mark.parametrize("device", ["cud", "cuda:99", "meta", "", "cpu:x", 7])
def test_an_unknown_device(unchecked, build_tiny, tmp_path, device):
    torch.save(build_tiny("vit").state_dict(), tmp_path / "x.pth")
    message = message_of(ValueError, tmp_path / "x.pth", device=device, heads=3)
    assert f"device {str(device)!r}" in message


# --- our own record ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"step_size": float("nan")},
        {"step_size": float("inf")},
        {"step_size": -0.1},
        {"step_size": 1e300},
        {"pixel_std": [1e-300, 0.2, 0.2]},
        {"pixel_mean": [1e300, 0.2, 0.2]},
        {"norm_eps": 0},
        {"head_eps": 1e-300},
        {"step_size": "0.1"},
        {"step_size": None},
        {"sparsity": -1},
        {"sparsity": [0.1]},
        {"pixel_std": [0.2, float("nan"), 0.2]},
        {"pixel_std": [0.2, 0, 0.2]},
        {"pixel_std": "abc"},
        {"pixel_mean": ["a", "b", "c"]},
        {"pixel_mean": 0.5},
        {"pixel_mean": {"r": 1, "g": 1, "b": 1}},
        {"heads": 3.0},
        {"heads": 10**400},
        {"heads": True},
        {"dim": 10**30},
        {"mlp_ratio": 1e308},
        {"norm_eps": 0 - 1e-5},
        {"head_eps": "tiny"},
        {"layer_scale": "yes"},
        {"stem": "patchify"},
        {"stem": ["conv"]},
        {"family": {"name": "crate"}},
        {"pool": "mean"},
        {"attention": 3},
    ],
)
def test_a_record_of_other_values_is_refused(unchecked, build_tiny, tmp_path, changes):
    model = build_tiny("crate")
    record = json.dumps(model.config.to_dict() | changes)
    save_file(model.state_dict(), tmp_path / "x.safetensors", {"config": record})
    message = message_of(ValueError, tmp_path / "x.safetensors")
    assert "x.safetensors: the config in its metadata is broken" in message
    assert next(iter(changes)) in message


def test_a_record_of_before_has_the_same_network(build_tiny, tmp_path):
    model = build_tiny("crate")
    record = model.config.to_dict()
    for later in ("registers", "layer_scale", "stem", "output_bias", "norm_eps", "head_eps"):
        del record[later]
    save_file(model.state_dict(), tmp_path / "x.safetensors", {"config": json.dumps(record)})
    assert load_model(tmp_path / "x.safetensors").config == model.config
