"""Runs of a few seconds: resumed exactly, shipped with a card, refused with reasons."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from crate_analysis import list_models, load_model
from crate_analysis.models import load_snapshots
from crate_analysis.training.__main__ import main
from crate_analysis.training.loop import snapshot_steps

SMALL = ["--arch", "crate_micro_patch6_72.creatures", "--set", "dim=32", "depth=2", "heads=2",
         "patch_size=24", "--n-train", "192", "--n-val", "24", "--batch-size", "16",
         "--epochs", "4", "--threads", "1", "--save-every", "5", "--snapshots", "4"]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    main(["train", str(folder), *SMALL, "--cache", str(cache)])
    return folder


def test_the_loss_falls_and_everything_is_written(finished):
    log = pd.read_csv(finished / "log.csv")
    assert log.step.tolist() == [12, 24, 36, 48]
    assert log.loss.iloc[-1] < log.loss.iloc[0]
    assert load_model(finished / "model.safetensors").config.dim == 32
    names = sorted(path.name for path in (finished / "snapshots").iterdir())
    assert names == [f"step-{step:06d}.safetensors" for step in (0, 12, 24, 48)]
    assert not list(finished.rglob("*.part"))


def test_a_killed_run_ends_in_the_same_bits(finished, cache, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "crate_analysis.training", "train", str(folder), *SMALL]
    process = subprocess.Popen([*command, "--cache", str(cache)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "model.safetensors").exists(), "it was killed too late to show anything"

    main(["train", str(folder), *SMALL, "--cache", str(cache)])
    for name in ("model.safetensors", "log.csv", "snapshots/step-000024.safetensors"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize(
    ("launch", "rounds"),
    [([], "4"), (["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"], "2")],
    ids=["four rounds", "two processes of two rounds"],
)
def test_the_split_of_a_batch_changes_rounding_alone(finished, cache, tmp_path, launch, rounds):
    folder = tmp_path / "split"
    command = [sys.executable, "-m", *launch, "crate_analysis.training", "train", str(folder)]
    options = [*SMALL, "--cache", str(cache), "--accumulate", rounds]
    subprocess.run([*command, *options], check=True, capture_output=True)
    whole, split = pd.read_csv(finished / "log.csv"), pd.read_csv(folder / "log.csv")
    pd.testing.assert_frame_equal(whole, split, rtol=1e-3)
    weights, expected = (
        load_model(path / "model.safetensors").state_dict() for path in (folder, finished)
    )
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-3, atol=1e-4)


def test_a_batch_that_cannot_be_split_is_refused(cache, tmp_path):
    with pytest.raises(SystemExit, match="batch_size=16 cannot be split into 1 processes x 3 roun"):
        main(["train", str(tmp_path), *SMALL, "--cache", str(cache), "--accumulate", "3"])


def test_training_starts_from_all_but_the_classifier_of_another_model(finished, cache, tmp_path):
    start = ["--start", str(finished / "model.safetensors")]
    main(["train", str(tmp_path / "x"), *SMALL, "--cache", str(cache), *start])
    begun = dict(load_snapshots(tmp_path / "x" / "model.safetensors"))[0].state_dict()
    source = load_model(finished / "model.safetensors").state_dict()
    changed = [k for k in source if not torch.equal(begun[k], source[k].half().float())]
    assert changed == ["mlp_head.1.weight", "mlp_head.1.bias"]
    with pytest.raises(SystemExit, match=r"cannot start this model: \d+ differ: pos_emb"):
        main(["train", str(tmp_path / "y"), "--arch", "crate_micro_patch6_72.creatures", *start])
    assert not (tmp_path / "y").exists()


def test_a_folder_keeps_one_recipe(finished, cache):
    with pytest.raises(SystemExit, match=r"holds a run with seed=0, not 1: choose another folder"):
        main(["train", str(finished), *SMALL, "--cache", str(cache), "--seed", "1"])


def test_what_cannot_be_trained_leaves_nothing_behind(cache, tmp_path):
    folder = tmp_path / "x"
    command = ["train", str(folder), "--cache", str(cache), "--set", "num_classes=5", "--arch"]
    with pytest.raises(SystemExit, match=r"creatures has 12 classes, .* --set num_classes=12"):
        main([*command, "crate_micro_patch6_72.creatures"])
    with pytest.raises(SystemExit, match="there is no architecture 'crate_micro'"):
        main([*command, "crate_micro"])
    assert not folder.exists()


def test_shipping_writes_weights_and_a_card(finished, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    monkeypatch.setattr("crate_analysis.training.ship.REPORTED_IMAGES", 40)
    main(["ship", str(finished), "small", "--cache", str(cache)])
    card = json.loads((tmp_path / "small.json").read_text())
    assert card["validation_images"] == 40
    assert len(card["curve"]) == 4
    assert f"train {finished.as_posix()} --arch crate_micro_patch6_72.creatures" in card["command"]
    assert "--epochs 4" in card["command"] and "dim=32" in card["command"]
    assert not (tmp_path / "snapshots").exists()
    row = list_models().set_index("name").loc["small"]
    model = load_model("small")
    assert row.parameters == sum(p.numel() for p in model.parameters())
    trained = load_model(finished / "model.safetensors")
    images = torch.randn(2, 3, 72, 72)
    torch.testing.assert_close(model(images), trained(images), rtol=0.02, atol=0.02)


def test_snapshots_are_shipped_the_initial_one_and_the_latest(
    finished, cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    monkeypatch.setattr("crate_analysis.training.ship.REPORTED_IMAGES", 12)
    shipping = ["ship", str(finished), "small", "--cache", str(cache)]
    main([*shipping, "--snapshots", "2"])
    card = json.loads((tmp_path / "small.json").read_text())
    assert card["command"].endswith("small --snapshots 2")
    shipped = dict(load_snapshots("small"))
    kept = dict(load_snapshots(finished / "model.safetensors"))
    assert list(shipped) == [0, 24, 48] and list(kept) == [0, 12, 24, 48]
    for step, model in shipped.items():
        assert model.name == "small"
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(weight, kept[step].state_dict()[name], rtol=0, atol=0)
    with pytest.raises(SystemExit, match="has 3 snapshots before the end, not 4"):
        main([*shipping, "--snapshots", "4", "--replace"])


def test_an_unfinished_run_is_not_shipped(tmp_path, monkeypatch):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    with pytest.raises(
        SystemExit, match=r"has no model\.safetensors: its training has not finished"
    ):
        main(["ship", str(tmp_path), "small"])


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [(48, 4, (0, 12, 24, 48)), (1092, 1, (0,)), (4, 8, (0, 1, 2, 4))],
)
def test_snapshots_double_up_to_the_end(steps, count, expected):
    assert snapshot_steps(steps, count) == expected
