"""The whole way from images to a result file: resumed exactly, refused with reasons."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pandas as pd
import pytest
import torch
from filelock import FileLock

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets.batches import attempts
from crate_analysis.datasets.coco import decode
from crate_analysis.probes import patch_features
from crate_analysis.segmentation import (
    baseline_objects,
    best_overlaps,
    detect_objects,
    find_objects,
    layer_overlaps,
    maskcut,
    read_results,
    to_pixels,
    write_coco_results,
)
from crate_analysis.walk import Reading
from crate_analysis.writing import DamagedFileError

SIZE = 72


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    arch = "crate_micro_patch6_72.creatures"
    return build_model(arch, dim=32, depth=3, heads=2, patch_size=6).eval()


@pytest.fixture(scope="module")
def scenes():
    return load_dataset("creatures-scenes", "dev", SIZE, limit=7)


@pytest.fixture(scope="module")
def whole(model, scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    frame = detect_objects(model, scenes, folder, layers=[0, -1], reading=Reading(batch_size=3))
    [path] = folder.glob("*.jsonl")
    return path, frame


def test_objects_are_maskcuts(model, scenes, whole):
    _, frame = whole
    assert set(frame.layer) == {0, 2}
    for layer in (0, 2):
        images = model.normalize(scenes[4].image[None])
        masks = maskcut(patch_features(model, images, layer)[0], (12, 12))
        rows = frame[(frame.image == 4) & (frame.layer == layer)]
        assert rows.score.tolist() == [1.0, 1 / 2, 1 / 3][: len(masks)]
        for row, mask in zip(rows.itertuples(), to_pixels(masks, SIZE, SIZE), strict=True):
            assert torch.equal(decode(row.segmentation, SIZE, SIZE), mask)
            where = mask.nonzero()
            top, left = where.min(0).values.tolist()
            bottom, right = where.max(0).values.tolist()
            assert row.bbox == [left, top, right - left + 1, bottom - top + 1]


def test_a_run_goes_on_behind_the_last_whole_line(model, scenes, whole, tmp_path, monkeypatch):
    path, frame = whole
    lines = path.read_text().splitlines(keepends=True)
    cut = tmp_path / path.name
    cut.write_text("".join(lines[:4]) + lines[4][:40])  # three images and a half
    seen = []
    draw = type(scenes).__getitem__
    monkeypatch.setattr(type(scenes), "__getitem__", lambda s, i: seen.append(i) or draw(s, i))
    again = detect_objects(model, scenes, tmp_path, layers=[0, -1], reading=Reading(batch_size=3))
    fingerprint, cut_now = seen[: len(scenes)], seen[len(scenes) :]
    assert fingerprint == list(range(len(scenes))) and cut_now == [3, 4, 5, 6]
    pd.testing.assert_frame_equal(again, frame)
    assert cut.read_text() == path.read_text()

    seen.clear()
    detect_objects(model, scenes, tmp_path, layers=[0, -1])
    assert seen == fingerprint


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines, other: [*lines[:2], lines[2].replace("0", "1", 1), *lines[3:]], 3),
        (lambda lines, other: [*lines[:2], lines[2][:40] + "\n", *lines[3:]], 3),
        (lambda lines, other: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines, other: [*lines[:2], *lines[3:]], 3),
        (lambda lines, other: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines, other: [*lines[:2], other[2], *lines[3:]], 3),
        (lambda lines, other: [*lines[:4], "\0" * 50 + "\n"], 5),
        (lambda lines, other: [lines[0].replace("creatures", "critters"), *lines[1:]], 1),
        (lambda lines, other: lines[1:], 1),
        (lambda lines, other: other, 1),
    ],
    ids=[
        "edited",
        "cut",
        "moved",
        "lost",
        "doubled",
        "foreign",
        "zeros",
        "header",
        "headless",
        "exchanged",
    ],
)
def test_a_line_that_is_not_as_it_was_written_is_refused(
    damage, line, model, scenes, whole, tmp_path
):
    detect_objects(model, scenes, tmp_path, layers=[0, -1], tau=0.2)
    [other] = tmp_path.glob("*.jsonl")
    path = tmp_path / whole[0].name
    parts = (one.read_text().splitlines(keepends=True) for one in (whole[0], other))
    path.write_text("".join(damage(*parts)))
    message = (
        rf"{path.name}, line {line}, is not as it was written: .*from {line} on, and run again"
    )
    with pytest.raises(DamagedFileError, match=message) as error:
        detect_objects(model, scenes, tmp_path, layers=[0, -1])
    assert "\n" not in str(error.value)
    if path.read_text() != other.read_text():  # only who asks knows what a whole file must be of
        with pytest.raises(DamagedFileError, match=message):
            read_results(path)
    rest = path.read_text().splitlines(keepends=True)[: line - 1]
    path.write_text("".join(rest))  # what the error says
    again = detect_objects(model, scenes, tmp_path, layers=[0, -1])
    pd.testing.assert_frame_equal(again, whole[1])


def test_two_workers_read_and_cut_the_same(model, scenes, whole, tmp_path, monkeypatch):
    asked = []

    def watched(dataset, indices, workers, ahead):
        asked.append(workers)
        return attempts(dataset, indices, workers, ahead)

    for module in ("segmentation.detection", "datasets.batches"):
        monkeypatch.setattr(import_module(f"crate_analysis.{module}"), "attempts", watched)
    detect_objects(model, scenes, tmp_path, layers=[0, -1], reading=Reading(workers=2))
    [path] = tmp_path.glob("*.jsonl")
    assert path.read_text() == whole[0].read_text()
    assert asked == [2]
    baselines = baseline_objects(scenes, 6, reading=Reading(workers=2))
    assert asked == [2, 2] and set(baselines.image) == set(range(len(scenes)))
    pd.testing.assert_frame_equal(baselines, baseline_objects(scenes, 6))


@pytest.mark.parametrize("workers", [0, 2])
def test_baselines_say_what_is_wrong_with_the_pictures(scenes, workers):
    with pytest.raises(ValueError, match="72 x 72 pixels, which patch_size=5 does not divide"):
        baseline_objects(scenes, 5, reading=Reading(workers=workers))
    with pytest.raises(ValueError, match="the data set is empty"):
        baseline_objects([], 6, reading=Reading(workers=workers))


def test_objects_are_found_without_a_file_too(model, scenes, whole):
    found = find_objects(model, scenes, layers=[0, -1], reading=Reading(batch_size=3))
    pd.testing.assert_frame_equal(found, whole[1])


KILLED = """
import sys, torch
from crate_analysis import load_dataset, load_model
from crate_analysis.segmentation import detect_objects
from crate_analysis.walk import Reading
torch.set_num_threads(1)
scenes = load_dataset("creatures-scenes", "dev", 72, limit=60)
detect_objects(load_model("crate-creatures"), scenes, sys.argv[1], reading=Reading(batch_size=4))
"""


@pytest.mark.slow
def test_a_killed_run_loses_and_repeats_nothing(tmp_path):
    finished = tmp_path / "finished"
    subprocess.run([sys.executable, "-c", KILLED, str(finished)], check=True)
    [whole] = finished.glob("*.jsonl")
    killed = tmp_path / "killed" / whole.name
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(killed.parent)])
    deadline = time.monotonic() + 120
    while not killed.exists() or killed.read_text().count("\n") < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = killed.read_text()
    assert before.count("\n") < 61, "it was killed too late to show anything"

    subprocess.run([sys.executable, "-c", KILLED, str(killed.parent)], check=True)
    after = killed.read_text()
    assert after == whole.read_text()
    assert after.startswith(before[: before.rfind("\n") + 1])
    images = [json.loads(line)["image"] for line in after.splitlines()[1:]]
    assert images == list(range(60))


def test_a_file_is_written_by_one_run_at_a_time(model, scenes, whole, tmp_path):
    path, frame = whole
    lock = FileLock(f"{tmp_path / path.name}.lock")
    message = f"another run is writing .*{path.name}; wait until it has ended"
    with lock, pytest.raises(RuntimeError, match=message):
        detect_objects(model, scenes, tmp_path, layers=[0, -1], reading=Reading(batch_size=3))
    again = detect_objects(model, scenes, tmp_path, layers=[0, -1], reading=Reading(batch_size=3))
    pd.testing.assert_frame_equal(again, frame)


def test_another_request_goes_to_another_file(model, scenes, whole, tmp_path):
    torch.manual_seed(1)
    other = build_model("crate_micro_patch6_72.creatures", dim=32, depth=3, heads=2).eval()
    other.name = "runs/a b@arch"
    for network, tau in ((model, 0.15), (model, 0.2), (other, 0.15)):
        detect_objects(network, scenes, tmp_path, layers=[0], tau=tau)
    names = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert len(names) == 3 and len([name for name in names if name.startswith("runs-a-b-")]) == 1
    with pytest.raises(ValueError, match="layer 3 does not exist"):
        detect_objects(model, scenes, tmp_path, layers=[3])


def test_nothing_found_is_an_empty_frame(model, tmp_path, monkeypatch):
    with torch.no_grad():
        blind = build_model("crate_micro_patch6_72.creatures", dim=32, depth=1, heads=2).eval()
        for layer in blind.layers:
            layer.attention.fn.qkv.weight.zero_()
    scenes = load_dataset("creatures-scenes", "dev", SIZE, limit=2)
    frame = detect_objects(blind, scenes, tmp_path)
    assert frame.empty and list(frame.columns) == [
        "image",
        "layer",
        "score",
        "bbox",
        "segmentation",
    ]
    [path] = tmp_path.glob("*.jsonl")
    assert path.read_text().count("\n") == 3


def test_a_result_file_is_of_one_layer(scenes, whole, tmp_path):
    _, frame = whole
    with pytest.raises(ValueError, match=r"layers \[0, 2\] are given: choose one"):
        write_coco_results(frame, scenes, tmp_path / "x.json")
    assert read_results(whole[0]).equals(frame)


def test_overlaps_by_layer_are_those_of_the_objects_found(model, scenes, whole):
    by_layer = layer_overlaps(model, scenes, [0, -1])
    assert list(by_layer) == ["layer", "image", "corloc", "box", "mask"]
    _, frame = whole
    pixels = baseline_objects(scenes, 6)
    expected = {layer: frame[frame.layer == layer] for layer in (0, 2)}
    expected[-1] = pixels[pixels.model == "raw pixels"].drop(columns="model")
    for layer, found in expected.items():
        own = by_layer[by_layer.layer == layer].drop(columns="layer").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, best_overlaps(found, scenes))


def test_a_layer_without_objects_covers_nothing(model, scenes, monkeypatch):
    detection = import_module("crate_analysis.segmentation.detection")
    none = find_objects(model, scenes, [0]).iloc[:0]
    monkeypatch.setattr(detection, "find_objects", lambda *_, **__: none)
    by_layer = layer_overlaps(model, scenes, [1])
    own = by_layer[by_layer.layer == 1]
    assert len(own) == len(by_layer[by_layer.layer == -1]) > 0
    assert (own[["corloc", "box", "mask"]] == 0).all(axis=None)
