"""Every layout that is read, and everything that is refused."""

from __future__ import annotations

import argparse
import json
import os
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crate_analysis import load_model
from crate_analysis.models import ARCHS, save_model
from crate_analysis.models.registry import from_config
from crate_analysis.models.shapes import SOURCE_FIELDS, settle_config


def assert_same_model(loaded, model):
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key
    assert loaded.config == model.config
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(loaded(images), model(images))


def message_of(kind, *args, **kwargs) -> str:
    """The one line with which `load_model` refuses."""
    with pytest.raises(kind) as caught:
        load_model(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and message
    return message


def prefixed(weights, prefix):
    return {prefix + key: value for key, value in weights.items()}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A data folder of one's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(folder))
    return folder


# --- our own files ----------------------------------------------------------------------------


def test_a_saved_model_comes_back(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path, {"note": "kept"})
    loaded = load_model(path)
    assert_same_model(loaded, model)
    assert not loaded.training and all(p.requires_grad for p in loaded.parameters())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["note"] == "kept"


def test_half_precision_is_stored_and_read_as_single(build_tiny, tmp_path):
    model = build_tiny("crate-soft")
    save_model(model, tmp_path / "half.safetensors", dtype=torch.float16)
    with safe_open(tmp_path / "half.safetensors", framework="pt") as file:
        assert file.get_tensor("cls_token").dtype == torch.float16
    loaded = load_model(tmp_path / "half.safetensors")
    for key, weight in loaded.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, model.state_dict()[key].half().float())


def test_loading_leaves_the_random_numbers_alone(build_tiny, tmp_path):
    save_model(build_tiny("vit"), tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    load_model(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shipped_model_is_loaded_by_name(build_tiny, shelf):
    save_model(build_tiny("crate"), shelf / "crate-tiny.safetensors")
    assert_same_model(load_model("crate-tiny"), build_tiny("crate"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "crate-creature",
            "there is no shipped model 'crate-creature'; did you mean 'crate-creatures'",
        ),
        ("unheard", "'unheard'; shipped: crate-creatures; a file is named with"),
        (
            "crate_small_patch8_224.cpal24",
            "'crate_small_patch8_224.cpal24' is an architecture, build_model builds it untrained",
        ),
        ("vit_small_patch8_22", "'vit_small_patch8_224' is an architecture"),
    ],
)
def test_an_unknown_name_gets_a_hint(build_tiny, shelf, name, message):
    save_model(build_tiny("crate"), shelf / "crate-creatures.safetensors")
    assert message in message_of(ValueError, name)


def test_a_write_that_fails_leaves_the_old_file(build_tiny, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(build_tiny("crate"), path)

    def full(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(OSError, match="no space left"):
            save_model(build_tiny("crate", seed=1), path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert_same_model(load_model(path), build_tiny("crate"))


def test_weights_too_large_for_half_precision_are_not_saved(build_tiny, tmp_path):
    model = build_tiny("crate")
    model.cls_token.data[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"model.safetensors: cls_token holds .* torch.float16"):
        save_model(model, tmp_path / "model.safetensors", dtype=torch.float16)
    assert not os.listdir(tmp_path)


def test_a_model_is_saved_as_safetensors_only(build_tiny, tmp_path):
    with pytest.raises(ValueError, match=r"model.pth: .*end the name in .safetensors"):
        save_model(build_tiny("crate"), tmp_path / "model.pth")


# --- released layouts -------------------------------------------------------------------------

LAYOUTS = {
    "plain": lambda weights: weights,
    "state_dict": lambda weights: {"epoch": 3, "state_dict": weights, "best_acc1": torch.ones(1)},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {}}},
    "module": lambda weights: prefixed(weights, "module."),
    "state_dict and module": lambda weights: {"state_dict": prefixed(weights, "module.")},
    "options beside": lambda weights: {"model": weights, "args": argparse.Namespace(lr=0.1)},
    "double": lambda weights: {key: value.double() for key, value in weights.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["crate", "crate-demo", "vit", "vit-backbone"], indirect=True)
def test_released_layouts(model, layout, tmp_path):
    torch.save(LAYOUTS[layout](model.state_dict()), tmp_path / "model.pth")
    assert_same_model(load_model(tmp_path / "model.pth", heads=3), model)


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "pth.tar", "t7"])
def test_pickles_of_any_ending(build_tiny, ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    torch.save(build_tiny("crate").state_dict(), path)
    assert_same_model(load_model(str(path), heads=3), build_tiny("crate"))


def test_pickles_of_before_the_zip_format(build_tiny, tmp_path):
    weights = build_tiny("vit").state_dict()
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same_model(load_model(tmp_path / "old.pth", heads=3), build_tiny("vit"))


def test_foreign_safetensors(build_tiny, tmp_path):
    path = tmp_path / "timm.safetensors"
    save_file(build_tiny("vit").state_dict(), path, {"format": "pt"})
    assert_same_model(load_model(path, heads=3), build_tiny("vit"))


def dino(weights, prefix):
    head = {"head.mlp.0.weight": torch.ones(3, 12), "head.last_layer.weight_g": torch.ones(3, 1)}
    if prefix.startswith("module."):
        head = prefixed(head, "module.")
    return prefixed(weights, prefix) | head


def test_dino_training_checkpoints_give_the_teacher(build_tiny, tmp_path):
    student, teacher = build_tiny("vit-backbone"), build_tiny("vit-backbone", seed=1)
    stored = {
        "student": dino(student.state_dict(), "module.backbone."),
        "teacher": dino(teacher.state_dict(), "backbone."),
        "epoch": 7,
        "args": argparse.Namespace(patch_size=4),
    }
    torch.save(stored, tmp_path / "both.pth")
    assert_same_model(load_model(tmp_path / "both.pth", heads=3), teacher)
    del stored["teacher"]
    torch.save(stored, tmp_path / "student.pth")
    assert_same_model(load_model(tmp_path / "student.pth", heads=3), student)


def test_what_lies_beside_a_dino_backbone_is_named(build_tiny, tmp_path):
    weights = dino(build_tiny("vit-backbone").state_dict(), "backbone.")
    weights["head.weight"] = torch.ones(5, 12)  # a linear probe, say: not part of this layout
    torch.save({"teacher": weights}, tmp_path / "probe.pth")
    message = message_of(ValueError, tmp_path / "probe.pth", heads=3)
    assert "probe.pth: 1 left over: head.weight outside of backbone." in message


# --- what the weights leave open --------------------------------------------------------------


PIXEL_FIELDS = ("pixel_mean", "pixel_std")


def meta_weights(arch, **overrides):
    with torch.device("meta"):
        return from_config(ARCHS[arch].override(**overrides)).state_dict()


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_an_arch_settles_its_own_weights(arch):
    assert settle_config(meta_weights(arch), {}, arch, {}) == ARCHS[arch]


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_shapes_settle_all_but_the_heads_and_the_scale_of_pixels(arch):
    config = ARCHS[arch]
    open_fields = ("heads", *PIXEL_FIELDS, *SOURCE_FIELDS)
    overrides = {field: getattr(config, field) for field in open_fields}
    if config.sparsity != 0.1:
        overrides["sparsity"] = config.sparsity
    assert settle_config(meta_weights(arch), {}, None, overrides) == config


def test_heads_are_never_guessed_and_the_candidates_listed(build_tiny, tmp_path):
    weights = meta_weights("crate_base_patch8_224.demo")
    with pytest.raises(ValueError, match="do not tell the number of heads") as caught:
        settle_config(weights, {}, None, {})
    message = str(caught.value)
    assert (
        'models: ["FILE@ARCH"] with ARCH one of crate_base_patch8_224.demo (6 heads), or' in message
    )
    assert message.endswith(
        "divisor of 768: 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 768"
    )

    candidates = (
        r"one of vit_small_patch16_224 \(6 heads\), vit_small_patch16_224.dino \(6 heads\), "
        r"vit_small_patch16_224.augreg_in21k \(6 heads, pixel mean 0.5\), or models: "
    )
    with pytest.raises(ValueError, match=candidates):
        settle_config(meta_weights("vit_small_patch16_224", num_classes=0), {}, None, {})

    torch.save(build_tiny("vit").state_dict(), tmp_path / "model.pth")
    message = message_of(ValueError, tmp_path / "model.pth")
    assert "model.pth: the weights do not tell" in message
    assert "no known architecture agrees" in message and message.endswith("12: 1, 2, 3, 4, 6, 12")
    pasted = message.rpartition('models: ["')[2].partition('"]')[0]
    assert pasted == f"{tmp_path / 'model.pth'}@heads=1" and load_model(pasted).config.heads == 1


def test_one_head_leaves_a_trace(build_tiny, tmp_path):
    torch.save(build_tiny("crate-one-head").state_dict(), tmp_path / "model.pth")
    assert load_model(tmp_path / "model.pth").config.heads == 1
    message = message_of(ValueError, tmp_path / "model.pth", heads=3)
    assert "heads is 1 in the file, but 3 in the call" in message


def test_a_prime_width_leaves_crate_one_choice():
    weights = meta_weights("crate_tiny_patch8_224.cpal24", dim=7, heads=7)
    assert settle_config(weights, {}, None, {}).heads == 7


def test_an_output_map_rules_one_head_out(build_tiny, tmp_path):
    torch.save(build_tiny("crate").state_dict(), tmp_path / "model.pth")
    message = message_of(ValueError, tmp_path / "model.pth", heads=1)
    assert "left over: transformer.layers.0.0.fn.to_out.0.weight" in message


@pytest.fixture
def micro(monkeypatch, build_tiny, tmp_path):
    """A file without a record whose architecture is registered as crate_test."""
    model = build_tiny("crate")
    monkeypatch.setitem(ARCHS, "crate_test", model.config)
    monkeypatch.setitem(ARCHS, "crate_test_soft", build_tiny("crate-soft").config)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_an_arch_can_be_given_in_one_string(build_tiny, micro):
    assert_same_model(load_model(f"{micro}@crate_test"), build_tiny("crate"))
    assert_same_model(load_model(f"{micro}@crate_test", "crate_test"), build_tiny("crate"))
    message = message_of(ValueError, f"{micro}@crate_test", "crate_test_soft")
    assert "arch='crate_test_soft' says otherwise" in message


def test_an_at_sign_in_a_name_is_left_alone(build_tiny, micro):
    folder = micro.parent / "runs@home"
    folder.mkdir()
    path = micro.rename(folder / "model@2.pth")
    assert_same_model(load_model(path, "crate_test"), build_tiny("crate"))
    assert_same_model(load_model(f"{path}@crate_test"), build_tiny("crate"))
    assert "no file" in message_of(FileNotFoundError, f"{folder}/none.pth")
    assert "did you mean" in message_of(FileNotFoundError, f"{folder}/model2.pth@crate_test")


def test_an_unknown_arch_gets_a_hint(micro):
    message = message_of(ValueError, f"{micro}@crate_tst")
    assert "no architecture 'crate_tst'; did you mean 'crate_test'?" in message


def test_the_threshold_comes_from_the_arch_or_the_call(build_tiny, micro):
    assert_same_model(load_model(micro, "crate_test_soft"), build_tiny("crate-soft"))
    soft = load_model(micro, heads=3, nonlinearity="ista_soft")
    assert_same_model(soft, build_tiny("crate-soft"))


def test_classes_and_picture_size_may_differ_from_the_arch(monkeypatch, build_tiny, micro):
    config = build_tiny("crate").config.override(num_classes=99, image_size=32)
    monkeypatch.setitem(ARCHS, "crate_test", config)
    assert load_model(micro, "crate_test").config == build_tiny("crate").config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 24}, "dim is 12 in the file, but 24 in crate_wrong"),
        ({"depth": 2}, "depth is 3 in the file, but 2 in crate_wrong"),
        ({"patch_size": 8}, "patch_size is 4 in the file, but 8 in crate_wrong"),
        ({"attention": "mhsa"}, "attention is 'mssa' in the file, but 'mhsa' in crate_wrong"),
        ({"nonlinearity": "mlp"}, "nonlinearity is 'ista' in the file, but 'mlp' in crate_wrong"),
        ({"projector_dim": 4}, "projector_dim is 0 in the file, but 4 in crate_wrong"),
        (
            {"family": "vit", "attention": "mhsa", "nonlinearity": "mlp"},
            "family is 'crate' in the file, but 'vit' in crate_wrong",
        ),
    ],
)
def test_an_arch_that_contradicts_the_file(monkeypatch, micro, overrides, message):
    monkeypatch.setitem(ARCHS, "crate_wrong", ARCHS["crate_test"].override(**overrides))
    assert f"model.pth: {message}" in message_of(ValueError, micro, "crate_wrong")


def test_an_mlp_ratio_that_contradicts_the_file(build_tiny, tmp_path):
    torch.save(build_tiny("vit").state_dict(), tmp_path / "model.pth")
    message = message_of(ValueError, tmp_path / "model.pth", heads=3, mlp_ratio=2.0)
    assert "mlp_ratio is 4.0 in the file, but 2.0 in the call" in message


def test_an_odd_mlp_ratio_survives(build_tiny, tmp_path):
    config = build_tiny("vit").config.override(mlp_ratio=2.6)  # 31.2, so 31 hidden
    save_model(from_config(config), tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").config == config
    torch.save(from_config(config).state_dict(), tmp_path / "model.pth")
    assert load_model(tmp_path / "model.pth", heads=3).config.hidden_dim == 31


def test_a_call_that_contradicts_the_file(build_tiny, tmp_path, micro):
    message = message_of(ValueError, micro, heads=3, num_classes=7)
    assert "num_classes is 5 in the file, but 7 in the call" in message
    save_model(build_tiny("crate"), tmp_path / "ours.safetensors")
    message = message_of(ValueError, tmp_path / "ours.safetensors", heads=4)
    assert "heads is 3 in the file's metadata, but 4 in the call" in message
    message = message_of(ValueError, tmp_path / "ours.safetensors", "crate_test_soft")
    assert (
        "nonlinearity is 'ista' in the file's metadata, but 'ista_soft' in crate_test_soft"
        in message
    )


def test_an_override_says_what_an_arch_gets_wrong(monkeypatch, build_tiny, micro):
    monkeypatch.setitem(ARCHS, "crate_test", ARCHS["crate_test"].override(heads=4))
    assert load_model(micro, "crate_test", heads=3).config == build_tiny("crate").config


def test_the_scale_of_pictures_can_be_set(build_tiny, micro):
    half = (0.5, 0.5, 0.5)
    config = load_model(micro, heads=3, pixel_mean=half, pixel_std=half).config
    assert config.pixel_mean == config.pixel_std == half


def test_an_unknown_field_gets_a_hint(micro):
    message = message_of(ValueError, micro, head=3)
    assert "no field 'head'; did you mean 'heads'" in message


def test_heads_that_do_not_divide_the_width(micro):
    assert "dim=12 cannot be shared by heads=5" in message_of(ValueError, micro, heads=5)


# --- weights that do not fit ------------------------------------------------------------------


def changed(weights, *, drop=(), **added):
    kept = {key: value for key, value in weights.items() if key not in drop}
    return kept | {key.replace("__", "."): value for key, value in added.items()}


def refused(weights, tmp_path) -> str:
    torch.save(weights, tmp_path / "model.pth")
    message = message_of(ValueError, tmp_path / "model.pth", heads=3)
    assert message.startswith(f"{tmp_path / 'model.pth'}: ")
    return message


@pytest.mark.parametrize("key", ["norm.weight", "blocks.1.attn.qkv.bias", "cls_token"])
def test_a_missing_key_is_named(build_tiny, tmp_path, key):
    message = refused(changed(build_tiny("vit").state_dict(), drop=[key]), tmp_path)
    assert f"1 missing: {key}" in message


def test_many_missing_keys_are_counted(build_tiny, tmp_path):
    weights = build_tiny("crate").state_dict()
    dropped = [key for key in weights if "layers.1." in key]
    message = refused(changed(weights, drop=dropped), tmp_path)
    assert f"{len(dropped)} missing: {', '.join(dropped[:3])}, ..." in message


@pytest.mark.parametrize(
    "added",
    [
        {"norm_pre__weight": torch.ones(12)},
        {"fc_norm__weight": torch.ones(12)},
        {"pre_logits__fc__weight": torch.ones(12, 12)},  # timm's oldest files of ImageNet-21k
        {"head_dist__weight": torch.ones(5, 12)},
    ],
)
def test_parts_of_other_vits_are_named(build_tiny, tmp_path, added):
    message = refused(changed(build_tiny("vit").state_dict(), **added), tmp_path)
    assert f"1 left over: {next(iter(added)).replace('__', '.')}" in message


def test_a_wrong_shape_is_named(build_tiny, tmp_path):
    weights = build_tiny("crate").state_dict()
    weights["transformer.layers.2.1.fn.weight"] = torch.ones(12, 11)
    message = refused(weights, tmp_path)
    assert (
        "1 of the wrong shape: transformer.layers.2.1.fn.weight (12, 11) in place of (12, 12)"
        in message
    )
    weights["pos_embedding"] = torch.ones(17, 12)
    assert "pos_embedding (17, 12) in place of 3 axes" in refused(weights, tmp_path)


def test_other_networks_are_refused(tmp_path):
    message = refused({"conv1.weight": torch.ones(3), "fc.weight": torch.ones(3)}, tmp_path)
    assert "no known network: 2 weights: conv1.weight, fc.weight; read are CRATE" in message


def test_some_prefixes_only_are_no_layout(build_tiny, tmp_path):
    weights = build_tiny("crate").state_dict()
    weights["module.mlp_head.0.bias"] = weights.pop("mlp_head.0.bias")
    message = refused(weights, tmp_path)
    assert "1 missing: mlp_head.0.bias; 1 left over: module.mlp_head.0.bias" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(build_tiny, tmp_path, value):
    weights = build_tiny("crate").state_dict()
    weights["transformer.layers.0.1.fn.weight"][3, 4] = value
    message = refused(weights, tmp_path)
    assert "transformer.layers.0.1.fn.weight holds NaN or infinity" in message


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "model.pth: holds no weights;"),
        ([torch.ones(3)], "holds a list in place of named weights"),
        (torch.ones(3), "holds a Tensor in place of named weights"),
        ({"epoch": 3}, "'epoch' (of type int) is no named weight"),
        ({0: torch.ones(3)}, "0 (of type Tensor) is no named weight"),
        ({"state_dict": {}}, "model.pth: holds no weights;"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, stored, message):
    assert message in refused(stored, tmp_path)


def test_a_broken_record_is_named(build_tiny, tmp_path, unchecked):
    path = tmp_path / "model.safetensors"
    weights = build_tiny("crate").state_dict()
    config = build_tiny("crate").config.to_dict()
    for record in ("{", "[1]", json.dumps({"dim": 3}), json.dumps(config | {"heads": 5})):
        save_file(weights, path, {"config": record})
        assert "the config in its metadata is broken" in message_of(ValueError, path)
    save_file(weights, path, {"config": json.dumps(config | {"dim": 24})})
    assert "dim is 12 in the file, but 24 in the file's metadata" in message_of(ValueError, path)


# --- files that cannot be read ----------------------------------------------------------------


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_code_in_a_pickle_is_refused_and_never_run(build_tiny, tmp_path):
    trace = tmp_path / "trace"
    weights = build_tiny("crate").state_dict()
    stored = {"state_dict": weights, "extra": Payload(trace)}
    torch.save(stored, tmp_path / "zip.pth")
    torch.save(stored, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 4):
        with (tmp_path / f"raw{protocol}.pth").open("wb") as file:
            pickle.dump(Payload(trace), file, protocol)
    names = ("zip", "old", "raw0", "raw2", "raw4")
    for name in names:
        message = message_of(ValueError, tmp_path / f"{name}.pth", heads=3)
        assert f"{name}.pth: holds executable code" in message
        assert "never run here" in message and "torch.save(" in message
        assert not trace.exists()
    assert "(io.open)" in message_of(ValueError, tmp_path / "zip.pth", heads=3)
    torch.load(tmp_path / "zip.pth", weights_only=False)  # the payload does work
    assert trace.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "holds executable code (torch.nn" in message_of(ValueError, tmp_path / "module.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_pickle(build_tiny, tmp_path, zipped, share):
    path = tmp_path / "model.pth"
    weights = build_tiny("crate").state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    message = message_of(ValueError, path, heads=3)
    assert "model.pth: empty, truncated or not a PyTorch checkpoint; copy or download" in message


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_safetensors(build_tiny, tmp_path, share):
    path = tmp_path / "model.safetensors"
    save_model(build_tiny("crate"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    message = message_of(ValueError, path)
    assert "model.safetensors: truncated or not a safetensors file" in message
    assert message.endswith("copy or download it again")


@pytest.mark.parametrize("text", ["<html>not found</html>", "version https://git-lfs.github.com/"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_page_saved_in_place_of_a_checkpoint(tmp_path, text, ending):
    path = tmp_path / f"model.{ending}"
    path.write_text(text)
    assert "download it again" in message_of(ValueError, path)


def test_a_missing_file_and_its_neighbour(build_tiny, tmp_path):
    save_model(build_tiny("crate"), tmp_path / "model.safetensors")
    near = message_of(FileNotFoundError, tmp_path / "modl.safetensors")
    assert f"did you mean {tmp_path / 'model.safetensors'}?" in near
    assert "check the path" in message_of(FileNotFoundError, tmp_path / "x" / "model.pth")
    assert "there is no file lost.pth" in message_of(FileNotFoundError, "lost.pth")


def test_a_folder_is_not_a_file(tmp_path):
    assert "is a folder" in message_of(IsADirectoryError, tmp_path)
    assert "is a folder" in message_of(IsADirectoryError, f"{tmp_path}/")
