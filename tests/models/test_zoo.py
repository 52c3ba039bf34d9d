"""The list of shipped models."""

from __future__ import annotations

import json

import pytest
import torch

from crate_analysis import build_model, list_models, load_model
from crate_analysis.models import load_snapshots, save_model

COLUMNS = [
    "name",
    "arch",
    "training data",
    "recipe",
    "parameters",
    "validation accuracy",
    "gate",
    "file size (MB)",
]
CARD = {
    "arch": "crate_micro",
    "training_data": "creatures, 15,000 images",
    "recipe": "Lion, 9 epochs",
    "command": "python -m ...",
    "seed": 0,
    "parameters": 1234,
    "validation_accuracy": 0.875,
}


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    return tmp_path


def ship(folder, name, model, **fields):
    save_model(model, folder / f"{name}.safetensors")
    card = {"name": name, **CARD, **fields}
    (folder / f"{name}.json").write_text(json.dumps(card))


def test_an_empty_zoo_is_an_empty_frame(zoo):
    frame = list_models()
    assert list(frame.columns) == COLUMNS and len(frame) == 0


def test_one_row_a_model_by_name(zoo, build_tiny):
    ship(zoo, "vit-creatures", build_tiny("vit"), parameters=5)
    ship(zoo, "crate-creatures", build_tiny("crate"))
    frame = list_models()
    assert list(frame.columns) == COLUMNS
    assert list(frame["name"]) == ["crate-creatures", "vit-creatures"]
    assert list(frame["parameters"]) == [1234, 5]
    assert list(frame["validation accuracy"]) == [0.875, 0.875]
    size = (zoo / "vit-creatures.safetensors").stat().st_size / 1e6
    assert frame["file size (MB)"][1] == pytest.approx(size, abs=0.005)
    for name in frame["name"]:
        load_model(name)


def test_a_shipped_model_ends_its_own_snapshots(zoo, build_tiny):
    ship(zoo, "a", build_tiny("crate"), steps=20)
    ship(zoo, "b", build_tiny("vit"), steps=20)
    (zoo / "snapshots" / "a").mkdir(parents=True)
    for step in (10, 0, 9):
        path = zoo / "snapshots" / "a" / f"step-{step:06d}.safetensors"
        save_model(build_tiny("crate", seed=step), path)
    (zoo / "snapshots" / "a" / "step-last.safetensors").write_text("not a step")
    found = dict(load_snapshots("a"))
    assert list(found) == [0, 9, 10, 20]
    assert {model.name for model in found.values()} == {"a"}
    for step, seed in ((9, 9), (20, 0)):
        wanted = build_tiny("crate", seed=seed).state_dict()
        torch.testing.assert_close(found[step].state_dict(), wanted)
    assert dict(load_snapshots("b")) == {}


def test_snapshots_of_another_layout_are_read_as_their_model_is(tmp_path):
    arch = "crate_micro_patch6_72.creatures"  # its four heads are not in the weights
    weights = build_model(arch).state_dict()
    (tmp_path / "snapshots").mkdir()
    for name in ("mine.pth", "snapshots/step-5.pth"):
        torch.save({"state_dict": weights}, tmp_path / name)
    [(step, model)] = load_snapshots(f"{tmp_path / 'mine.pth'}@{arch}")
    assert (step, model.name, model.config.heads) == (5, "mine", 4)


def test_snapshots_of_a_model_that_is_not_there():
    with pytest.raises(ValueError, match="there is no shipped model 'nothing'"):
        load_snapshots("nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "broken.json: this model card is not JSON"),
        ("[]", "broken.json: this model card lacks name, arch"),
        (json.dumps({"name": "broken", **CARD, "arch": None}), "and needs that name and weights"),
        (json.dumps({"name": "other", **CARD}), "card is for 'other'"),
        (
            json.dumps({"name": "broken", "arch": "a", "recipe": "b", "parameters": 1}),
            "lacks training_data, validation_accuracy$",
        ),
    ],
)
def test_a_broken_card_is_named(zoo, text, message):
    (zoo / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list_models()
    assert "\n" not in str(caught.value)
