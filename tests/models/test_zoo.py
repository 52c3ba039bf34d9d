"""The list of shipped models."""

from __future__ import annotations

import json

import pytest

from crate_analysis import list_models, load_model
from crate_analysis.models import save_model

COLUMNS = [
    "name",
    "arch",
    "training data",
    "recipe",
    "parameters",
    "validation accuracy",
    "file size (MB)",
]
CARD = {
    "arch": "crate_micro",
    "training_data": "creatures, 15,000 pictures",
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
