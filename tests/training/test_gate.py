"""Which shipped models learned their task, by what raw pixels tell."""

import json
import shutil

import pytest
import torch

from crate_analysis import list_models
from crate_analysis.datasets import load_dataset, stack_images
from crate_analysis.models.zoo import gate_note
from crate_analysis.paths import data_folder
from crate_analysis.probes import pixel_features
from crate_analysis.training import gate
from crate_analysis.training.knn import knn_accuracy

CARD = {"name": "x", "validation_accuracy": 0.6, "settings": {"dataset": "creatures"}}


def test_every_shipped_network_that_declares_a_gate_passed_it():
    status = list_models().set_index("name").gate
    assert (status != "failed").all() and (status == "passed").sum() >= 15
    assert gate_note("crate-creatures") is None and gate_note("elsewhere.pth") is None


def test_a_run_that_did_not_learn_its_task_is_said_so(tmp_path, monkeypatch):
    for name in ("crate-creatures.json", "crate-creatures.safetensors"):
        shutil.copy(data_folder() / name, tmp_path)
    path = tmp_path / "crate-creatures.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**card, "validation_accuracy": 0.24, "gate": 0.59}))
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    assert list_models().set_index("name").gate["crate-creatures"] == "failed"
    note = gate_note("crate-creatures")
    assert "did not learn its task: its accuracy is 24%" in note and "59%" in note


def test_raw_pixels_are_asked_of_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "KNOWN", 60)
    monkeypatch.setattr(gate, "REPORTED_IMAGES", 30)
    found = gate.raw_pixel_accuracy("creatures", 36, 0, tmp_path)
    features = []
    for split, count in (("train", 60), ("val", 30)):
        samples = list(load_dataset("creatures", split, 36, count))
        labels = torch.tensor([sample.label for sample in samples])
        features += [pixel_features(stack_images(samples)), labels]
    assert found == knn_accuracy(*features)


@pytest.mark.parametrize(
    ("level", "declared", "least", "passes"),
    [
        (0.5, None, 0.5, True),
        (0.6, None, 0.6, False),  # as good as raw pixels is not better
        (0.7, None, 0.7, False),
        (0.5, 0.55, 0.55, True),
        (0.5, 0.85, 0.85, False),
        (0.7, 0.1, 0.7, False),  # no declaration is below raw pixels
    ],
)
def test_the_gate_is_what_was_declared_and_at_least_raw_pixels(
    level, declared, least, passes, tmp_path, monkeypatch
):
    monkeypatch.setattr(gate, "raw_pixel_accuracy", lambda *_: level)
    card = CARD if declared is None else {**CARD, "gate": declared}
    for _ in range(2):  # marked again, it says the same
        card = gate.gated(card, 72, tmp_path)
        assert (card["gate"], card["passes_gate"]) == (least, passes)
        assert card["raw_pixel_accuracy"] == level


def test_an_unknown_model_is_named():
    with pytest.raises(
        SystemExit, match="no shipped model 'crate'; there are crate-alpha-creatures, "
    ):
        gate.main(["crate"])
