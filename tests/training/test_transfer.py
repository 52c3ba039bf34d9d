"""Probes on features whose answer is known, networks of a few weights, coloured images."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from crate_analysis import load_dataset
from crate_analysis.datasets.batches import LeftOutWarning
from crate_analysis.models import ARCHS, ModelConfig, build_model, load_snapshots, save_model
from crate_analysis.models.registry import from_config
from crate_analysis.training.__main__ import main
from crate_analysis.training.recipe import SupervisedRecipe
from crate_analysis.training.transfer import (
    STRENGTHS,
    accuracies,
    architecture_of,
    backbone,
    classifier_hits,
    fine_tune,
    linear_probe,
    load_splits,
    pixels_of,
    probe_hits,
    read_features,
)

TINY = {
    "crate": ModelConfig("crate", 16, 8, 12, 2, 3, 5),
    "demo": ModelConfig("crate", 16, 8, 12, 2, 3, 5, projector_dim=10),
    "vit": ModelConfig("vit", 16, 8, 12, 2, 3, 5, "mhsa", "mlp"),
}
KIND = pytest.mark.parametrize("kind", TINY)


def tiny_model(kind):
    """Weights of a size at which every part matters."""
    torch.manual_seed(0)
    model = from_config(TINY[kind]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.name = kind
    return model


def paint(folder, colour, count):
    """Images of about one colour, and none the same."""
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.full((16, 16, 3), colour, np.uint8)
        pixels[index // 16, index % 16] = 128
        Image.fromarray(pixels).save(folder / f"{index:02}.png")


RED, BLUE = (220, 20, 20), (20, 20, 220)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    root = tmp_path_factory.mktemp("colours")
    for split, count in (("train", 20), ("val", 10)):
        paint(root / split / "blue", BLUE, count)
        paint(root / split / "red", RED, count)
    return f"folder:{root}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def splits(colours, cache):
    return load_splits(colours, 16, 32, 8, 20, cache)


def test_separable_classes_are_all_named_rightly_by_the_strongest_regularisation():
    corners = torch.eye(4).repeat(5, 1)
    labels = torch.arange(4).repeat(5)
    probe = linear_probe(dict.fromkeys(NAMES, corners), dict.fromkeys(NAMES, labels))
    assert probe.hits.all() and len(probe.hits) == 20
    assert probe.strength == STRENGTHS[0]


NAMES = ("train", "dev", "val")


@pytest.fixture
def two_readings():
    """Features (c + y, c), c common to both and far greater than the class y = -1 or 1.

    Strong regularisation takes the feature that goes with y, and is led astray by c; weak
    regularisation takes their difference, and is not. At (3 - 1, 3), y is -1, as the difference
    tells, and 1 to one who sees the first alone.
    """
    common = torch.linspace(-4, 4, 100).repeat(2)
    labels = torch.arange(2).repeat_interleave(100)
    train = torch.stack([common + 2.0 * labels - 1, common], dim=1)
    asked = torch.tensor([[2.0, 3.0]]).repeat(6, 1)
    return {"train": train, "dev": asked, "val": asked}, labels


@pytest.mark.parametrize("weakly", [True, False])
def test_only_dev_chooses_the_strength(two_readings, weakly):
    """`val` says the opposite of `dev`: a probe that listened to it would be right there."""
    features, labels = two_readings
    true, misled = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    dev, val = (true, misled) if weakly else (misled, true)
    probe = linear_probe(features, {"train": labels, "dev": dev, "val": val})
    assert not probe.hits.any()
    assert (probe.strength > STRENGTHS[0]) == weakly


def test_scale_and_origin_of_a_feature_do_not_count(two_readings):
    features, labels = two_readings
    told = {"train": labels, "dev": labels[:6], "val": labels[:6]}
    moved = {name: part * torch.tensor([1e3, 1e-2]) + 7 for name, part in features.items()}
    found, expected = linear_probe(moved, told), linear_probe(features, told)
    assert found.strength == expected.strength and torch.equal(found.hits, expected.hits)


def test_one_class_cannot_be_learned():
    features = dict.fromkeys(NAMES, torch.eye(4))
    with pytest.raises(ValueError, match="are all of one class; take more"):
        linear_probe(features, dict.fromkeys(NAMES, torch.ones(4, dtype=torch.int64)))


def test_a_folders_pictures_are_mixed_and_none_is_both_learned_from_and_chosen_on(splits):
    assert [len(part.indices) for part in splits] == [32, 8, 20]
    assert splits.train.data is splits.dev.data
    assert not set(splits.train.indices) & set(splits.dev.indices)
    assert splits.val.data.classes == ("blue", "red")
    for part in splits:
        assert len(part.labels[:8].unique()) == 2, "not class by class"
        images, labels = part.data.batch(part.indices)
        assert torch.equal(labels, part.labels)
        assert torch.equal(images[:, 0, 8, 8] == RED[0], labels == 1)
    assert splits.train.first(3).indices == splits.train.indices[:3]


def test_a_small_folder_is_shared_out_as_asked(colours, cache):
    splits = load_splits(colours, 16, 300, 100, 500, cache)
    assert [len(part.indices) for part in splits] == [30, 10, 20]


def test_damaged_pictures_are_left_out(tmp_path):
    for split in ("train", "val"):
        paint(tmp_path / split / "blue", BLUE, 6)
        paint(tmp_path / split / "red", RED, 6)
        (tmp_path / split / "blue" / "00.png").write_text("no image")
    with pytest.warns(LeftOutWarning, match=r"1 of 12 images were left out:\n.*00\.png"):
        splits = load_splits(f"folder:{tmp_path}", 16, 8, 4, 12, tmp_path / "cache")
    assert len(splits.val.indices) == len(splits.train.indices) + len(splits.dev.indices) == 11
    images, labels = splits.val.data.batch(list(range(11)))
    assert labels.bincount().tolist() == [5, 6]
    red = images[:, 0].float().mean((1, 2)) > images[:, 2].float().mean((1, 2))
    assert red.tolist() == (labels == 1).tolist()


def test_generated_pictures_come_from_the_splits_themselves(cache):
    splits = load_splits("creatures-exotic", 24, 12, 3, 4, cache)
    for split, part in splits._asdict().items():
        source = load_dataset("creatures-exotic", split, 24, len(part.indices))
        images, labels = part.data.batch(part.indices)
        assert sorted(part.indices) == list(range(len(source)))
        for index, image, label in zip(part.indices, images, labels.tolist(), strict=True):
            assert label == source[index].label and torch.equal(image, source[index].image)


def no_labels(root):
    paint(root / "train", RED, 3)
    paint(root / "val", BLUE, 3)


def no_splits(root):
    paint(root / "red", RED, 3)
    paint(root / "blue", BLUE, 3)


def one_class(root):
    paint(root / "train" / "red", RED, 3)
    paint(root / "val" / "red", RED, 3)


def other_classes(root):
    for split, second in (("train", "blue"), ("val", "green")):
        paint(root / split / "red", RED, 3)
        paint(root / split / second, BLUE, 3)


def too_few(root):
    for split in ("train", "val"):
        paint(root / split / "red", RED, 1)
        paint(root / split / "blue", BLUE, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_labels, r"has no labels, .* sorted into train/CLASS and val/CLASS"),
        (no_splits, r"has no splits, so no split 'train'.* sort its images into folders train"),
        (one_class, r"has one class only, 'red': there is nothing to tell"),
        (other_classes, r"val has class folders that .*train does not have: green"),
        (too_few, r"1 images of .* are fewer than its 2 classes: take at least 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_pictures_that_cannot_be_transferred_to_are_refused(make, message, tmp_path):
    make(tmp_path / "root")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_splits(f"folder:{tmp_path / 'root'}", 16, 8, 4, 8, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.part*"))


@KIND
def test_cls_features_are_what_the_classifier_sees(kind, splits):
    model = tiny_model(kind)
    features = read_features(model, splits.val)
    images, _ = splits.val.data.batch(splits.val.indices)
    with torch.inference_mode():
        logits = model(model.normalize(images))
        seen = backbone(model)(model.normalize(images))
        again = model.get_submodule(model.classifier_name)(features["cls"])
    torch.testing.assert_close(again, logits)
    torch.testing.assert_close(features["cls"], seen)
    assert features["cls"].shape == (20, 10 if kind == "demo" else 12)
    assert backbone(model).name == model.name and model.config.num_classes == 5


@pytest.mark.parametrize(("kind", "norm"), [("crate", "mlp_head.0"), ("vit", "norm")])
def test_patch_features_are_the_mean_of_normed_patches(kind, norm, splits):
    model = tiny_model(kind)
    part = splits.val.first(3)
    images, _ = part.data.batch(part.indices)
    with torch.inference_mode():
        *_, last = model.unroll(model.normalize(images))
        expected = model.get_submodule(norm)(last.output)[:, 1:].mean(1)
    torch.testing.assert_close(read_features(model, part)["patches"], expected)


def test_pixels_are_averaged_to_cells(splits):
    part = splits.val.first(2)
    features = pixels_of(part)
    assert features.shape == (2, 3 * 18 * 18)
    red = features.unflatten(1, (3, 18, 18))[:, 0, 9, 9]
    colours = torch.tensor([RED[0] if label else BLUE[0] for label in part.labels]) / 255 - 0.5
    torch.testing.assert_close(red, colours)


def test_probes_are_compared_row_by_row(splits):
    models = {kind: tiny_model(kind) for kind in ("crate", "vit")}
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    hits = probe_hits(models, splits, (8, 24))
    assert torch.equal(torch.rand(1), expected_next), "the global generator is left alone"

    found = accuracies(hits)
    assert list(hits.columns) == [*found.columns[:6], "image", "hit"]
    assert hits.image.tolist() == list(range(20)) * len(found)
    assert list(found.columns) == [
        "model", "weights", "features", "reader", "n_train", "strength", "mean", "low", "high",
    ]  # fmt: skip
    sources = [("pixels", "none", "pixels")] + [
        (model, weights, features)
        for model in models
        for weights in ("trained", "untrained")
        for features in ("cls", "patches")
    ]
    readings = [("linear", 8), ("linear", 24), ("k-NN", 24)]
    assert [tuple(row) for row in found.iloc[:, :5].itertuples(index=False)] == [
        (*source, *reading) for source in sources for reading in readings
    ]
    assert (found.strength.isna() == (found.reader == "k-NN")).all()
    assert found["mean"].between(found.low, found.high).all()
    pixels = found[found.model == "pixels"]
    assert (pixels["mean"] == 1).all(), "colours are told apart without a network"

    read = {name: read_features(models["vit"], part)["patches"] for name, part in
            splits._asdict().items()}  # fmt: skip
    labels = {name: part.labels for name, part in splits._asdict().items()}
    read["train"], labels["train"] = read["train"][:8], labels["train"][:8]
    row = found.query("model == 'vit' and weights == 'trained' and features == 'patches'").iloc[0]
    probe = linear_probe(read, labels)
    assert hits.hit[hits.model == "vit"].tolist()[60:80] == probe.hits.int().tolist()
    assert row["mean"] == probe.hits.double().mean().item() and row.strength == probe.strength


def test_the_untrained_network_has_other_weights_and_a_seed(splits):
    models = {"vit": tiny_model("vit")}
    first, again, other = (probe_hits(models, splits, (8,), seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    same = first.weights != "untrained"
    pd.testing.assert_frame_equal(first[same], other[same])


@pytest.mark.parametrize("size", [1, 33])
def test_sizes_that_there_are_not_are_refused(size, splits):
    with pytest.raises(ValueError, match=f"size {size} must be 2 to 32, the images to learn fr"):
        probe_hits({}, splits, (8, size))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_named_architecture_is_built_again_from_what_it_is_called(arch):
    config = ARCHS[arch]
    name, overrides = architecture_of(config, config.num_classes)
    assert ARCHS[name].override(**overrides) == config and not overrides
    name, overrides = architecture_of(config, 7)
    assert set(overrides) == {"num_classes"}
    json.dumps(overrides)


@KIND
def test_any_config_is_built_again_with_other_classes(kind):
    wanted = dataclasses.replace(TINY[kind], num_classes=7, pixel_mean=(0.5, 0.5, 0.5))
    arch, overrides = architecture_of(dataclasses.replace(wanted, num_classes=5), 7)
    assert build_model(arch, **overrides).config == wanted
    assert ARCHS[arch].family == wanted.family


def test_hits_are_those_of_the_networks_own_classifier(splits):
    model = tiny_model("vit")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))
    hits = classifier_hits(model, splits.val)
    assert torch.equal(hits, splits.val.labels == 1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "vit.safetensors"
    save_model(tiny_model("vit"), path)
    return path


def recipe_of(colours, start):
    arch, overrides = architecture_of(TINY["vit"], 2)
    return SupervisedRecipe(
        arch, overrides, colours, 40, 20, "val", 3, 8, learning_rate=3e-3, start=str(start)
    )


def test_fine_tuning_starts_from_the_weights_and_is_done_once(colours, start, cache, tmp_path):
    tuned = fine_tune(recipe_of(colours, start), tmp_path, cache)
    assert tuned.config == dataclasses.replace(TINY["vit"], num_classes=2)
    (folder,) = tmp_path.iterdir()
    begun = dict(load_snapshots(folder / "model.safetensors"))[0].state_dict()
    given = tiny_model("vit").state_dict()
    assert [key for key in given if not torch.equal(begun[key], given[key].half().float())] == [
        "head.weight",
        "head.bias",
    ]
    written = (folder / "checkpoint.pt").stat().st_mtime_ns
    again = fine_tune(recipe_of(colours, start), tmp_path, cache)
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == written
    for key, weight in tuned.state_dict().items():
        assert torch.equal(weight, again.state_dict()[key])


def test_fine_tuning_from_other_weights_of_the_same_name_is_not_taken_for_it(
    colours, start, cache, tmp_path
):
    other = tmp_path / "vit.safetensors"
    for seed in (0, 1):
        model = tiny_model("vit")
        with torch.no_grad():
            model.head.bias += seed
            model.norm.weight += seed
        save_model(model, other)
        fine_tune(recipe_of(colours, other), tmp_path / "runs", cache)
    fine_tune(recipe_of(colours, ""), tmp_path / "runs", cache)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_the_command_writes_a_table(colours, start, cache, tmp_path):
    table = tmp_path / "table.csv"
    command = ["probe", str(start), str(table), "--dataset", colours, "--cache", str(cache)]
    main([*command, "--n-train", "32", "--n-dev", "8", "--n-val", "20", "--sizes", "8", "24",
          "--image-size", "16"])  # fmt: skip
    found = pd.read_csv(table, keep_default_na=False)
    assert set(found.model) == {"pixels", "vit"} and set(found.n_train) == {8, 24}
    assert set(found.weights) == {"none", "trained", "untrained"}
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    with pytest.raises(SystemExit, match="error: size 99 must be 2 to 35"):
        main([*command, "--sizes", "99", "--image-size", "16"])
