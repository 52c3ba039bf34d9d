"""Measuring in shards equals measuring in one go, byte for byte, however often it was stopped."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import SampleDataset, read_samples
from crate_analysis.datasets.batches import LeftOutWarning
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.evaluate import main, read_objects
from crate_analysis.measures import measure_layers
from crate_analysis.segmentation import attention_iou, detect_objects, head_scores
from crate_analysis.shards import Window, measure_in_shards
from crate_analysis.walk import Reading
from crate_analysis.writing import write_text

PICTURES = ["crate-creatures", "creatures", "--image-size", "36", "--limit", "21"]
OPTIONS = [*PICTURES[2:], "--batch-size", "4", "--shard-size", "8"]


@pytest.fixture(scope="module")
def model():
    return load_model("crate-creatures")


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "val", 36, limit=21)


def tables(folder):
    return sorted(path.name for path in folder.iterdir())


def run(what, folder, *options):
    main([what, *PICTURES[:2], str(folder), *OPTIONS, *options])


@pytest.mark.parametrize(
    ("what", "options", "whole"),
    [
        (
            "layers",
            [],
            lambda model, data: measure_layers(model, data, reading=Reading(batch_size=4)),
        ),
        (
            "attention",
            ["--keep", "0.5", "--rules", "mass"],
            lambda model, data: attention_iou(
                model, data, 0.5, ["mass"], reading=Reading(batch_size=4)
            ),
        ),
        (
            "heads",
            ["--within", "animal"],
            lambda model, data: head_scores(
                model, data, within=["animal"], reading=Reading(batch_size=4)
            ),
        ),
    ],
)
def test_the_table_is_that_of_one_go(what, options, whole, model, pictures, tmp_path, capsys):
    run(what, tmp_path, *options)
    table = capsys.readouterr().out.strip()
    with open(table, encoding="utf-8") as file:
        assert file.read() == whole(model, pictures).to_csv(index=False)
    assert len(tables(tmp_path)) == 2, "the table and what it is of; no shards are left"


def test_the_objects_are_those_of_one_go(model, pictures, tmp_path, capsys, monkeypatch):
    taken = []
    monkeypatch.setattr(
        "crate_analysis.fingerprints.of_weights", lambda model: taken.append(model) or "weights"
    )
    run("objects", tmp_path / "sharded", "--layers", "2", "-1")
    assert len(taken) == 1, "the weights are looked at once, not for each shard"
    found = read_objects(capsys.readouterr().out.strip())
    whole = detect_objects(model, pictures, tmp_path, [2, -1], reading=Reading(batch_size=4))
    pd.testing.assert_frame_equal(found, whole)


def test_the_record_says_what_was_measured(tmp_path):
    run("attention", tmp_path)
    record = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert (record["measure"], record["model"], record["pictures"]) == (
        "attention",
        "crate-creatures",
        21,
    )
    assert record["keep"] == 0.6 and record["rules"] == ["mass", "entries"]
    run("attention", tmp_path, "--keep", "0.7")
    run("attention", tmp_path)
    run("attention", tmp_path, "--workers", "1")
    assert len(tables(tmp_path)) == 4, "another request, and only that, has a table of its own"


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("layers", "measure_layers"),
        ("attention", "attention_iou"),
        ("heads", "head_scores"),
        ("objects", "find_objects"),
    ],
)
def test_workers_are_passed_on(what, name, tmp_path, monkeypatch):
    asked = []

    def stop(*_, **options):
        asked.append(options["reading"].workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"crate_analysis.evaluate.{name}", stop)
    with pytest.raises(KeyboardInterrupt):
        run(what, tmp_path, "--workers", "3")
    assert asked == [3]


def count(part):
    return pd.DataFrame({"image": range(len(part)), "name": part.name})


def test_what_was_measured_before_a_stop_is_not_measured_again(pictures, tmp_path):
    seen = []

    def measurement(part):
        seen.append(part.start)
        if seen == [0, 6, 12]:
            raise KeyboardInterrupt
        return count(part)

    table = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        measure_in_shards(measurement, pictures, table, 6, {})
    assert not table.exists()
    measure_in_shards(measurement, pictures, table, 6, {})
    assert seen == [0, 6, 12, 12, 18]
    assert pd.read_csv(table).image.tolist() == list(range(21))
    measure_in_shards(measurement, pictures, table, 6, {})
    assert len(seen) == 5, "a finished table is left as it is"


def test_shards_of_another_size_are_not_taken_for_these(pictures, tmp_path):
    def stopped(part):
        if part.start:
            raise KeyboardInterrupt
        return count(part)

    table = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        measure_in_shards(stopped, pictures, table, 6, {})
    measure_in_shards(count, pictures, table, 12, {})
    assert pd.read_csv(table).image.tolist() == list(range(21))
    assert tables(tmp_path) == ["table.csv", "table.json"]


def test_windows(pictures):
    window = Window(pictures, 18, 24)
    assert len(window) == 3 and window.name == "creatures[18:21]"
    assert window[-1].path == pictures[20].path
    with pytest.raises(IndexError, match="item 3 of 3"):
        window[3]


@pytest.mark.parametrize(
    ("size", "window", "message"),
    [(0, (0, 21), "shard_size=0 must be at least 1"), (4, (21, 21), "the data set is empty")],
)
def test_what_cannot_be_measured_leaves_nothing(pictures, tmp_path, size, window, message):
    with pytest.raises(ValueError, match=message):
        measure_in_shards(count, Window(pictures, *window), tmp_path / "table.csv", size, {})
    assert not tables(tmp_path)


def test_wrong_requests_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match="error: there is no shipped model 'crate-creature'"):
        main(["layers", "crate-creature", "creatures", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .* holds no images"):
        main(["attention", "crate-creatures", f"folder:{tmp_path}", str(tmp_path / "out")])


# --- shards that lack something -----------------------------------------------------------------


class Patchy(SampleDataset):
    """Creatures, of which some are damaged, some have no masks and some have no animal."""

    name, split, image_size, seed = "patchy", "val", 36, 0

    def __init__(self, whole, damaged=(), bare=(), strange=()):
        self.whole, self.classes = whole, whole.classes
        self.damaged, self.bare, self.strange = damaged, bare, strange

    def __len__(self):
        return len(self.whole)

    def __getitem__(self, index):
        sample = self.whole[self.check(index)]
        if index in self.damaged:
            raise UnreadableSampleError(f"picture {index} is damaged")
        if index in self.bare:
            return replace(sample, masks=sample.masks[:0], mask_names=())
        if index in self.strange:
            names = tuple(name.replace("animal", "plant") for name in sample.mask_names)
            return replace(sample, mask_names=names)
        return sample


DAMAGED, BARE, SIMPLE = (0, 1, 2, 3, 13), (4, 5, 6, 7, 14), (8, 9, 10, 11, 15)
WARNED = "(?s)5 of 21 images were left out:\n  picture 0 is .*\n  picture 13 is damaged$"
WHOLE = {
    "layers": lambda model, data, folder: measure_layers(
        model, data, reading=Reading(batch_size=4)
    ),
    "attention": lambda model, data, folder: attention_iou(
        model, data, reading=Reading(batch_size=4)
    ),
    "heads": lambda model, data, folder: head_scores(
        model, data, within=["animal"], reading=Reading(batch_size=4)
    ),
    "objects": lambda model, data, folder: detect_objects(
        model, data, folder, reading=Reading(batch_size=4)
    ),
}


def table_of(capsys):
    return Path(capsys.readouterr().out.strip())


@pytest.mark.parametrize("what", WHOLE)
def test_shards_may_lack_everything(what, model, pictures, tmp_path, capsys, monkeypatch):
    patchy = Patchy(pictures, DAMAGED, BARE, STRANGE)
    monkeypatch.setattr("crate_analysis.evaluate.load_dataset", lambda *_: patchy)
    options = ["--shard-size", "4"] + ["--within", "animal"] * (what == "heads")
    with pytest.warns(LeftOutWarning, match=WARNED):
        whole = WHOLE[what](model, patchy, tmp_path / "whole")
    for _ in range(2):  # a finished table says it again
        with pytest.warns(LeftOutWarning, match=WARNED) as caught:
            run(what, tmp_path, *options)
        assert len(caught) == 1
        table = table_of(capsys)
    if what == "objects":
        pd.testing.assert_frame_equal(read_objects(table), whole)
    else:
        assert table.read_text(encoding="utf-8") == whole.to_csv(index=False)
    record = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["left_out"] == [f"picture {index} is damaged" for index in DAMAGED]


@pytest.mark.parametrize(
    ("lacking", "options", "message"),
    [
        ({"damaged": range(21)}, [], "none of the 21 images can be read; the first: picture 0"),
        ({"bare": range(21)}, [], "the data set has no masks to compare with"),
        ({"bare": range(8), "strange": range(8, 21)}, ["--within", "animal"], "within 'animal'"),
        ({"damaged": range(8), "bare": range(8, 21)}, [], "the data set has no masks"),
    ],
)
def test_what_all_shards_lack_is_an_error(
    lacking, options, message, pictures, tmp_path, monkeypatch
):
    patchy = Patchy(pictures, **lacking)
    monkeypatch.setattr("crate_analysis.evaluate.load_dataset", lambda *_: patchy)
    with pytest.raises(SystemExit, match=message):
        run("heads", tmp_path, *options)
    assert not list(tmp_path.glob("*.csv"))


def test_each_name_may_be_in_another_shard(pictures, model, tmp_path, monkeypatch, capsys):
    patchy = Patchy(pictures, strange=range(8))
    within = ["--within", "animal", "plant"]
    monkeypatch.setattr("crate_analysis.evaluate.load_dataset", lambda *_: patchy)
    run("heads", tmp_path, *within)
    whole = head_scores(model, patchy, within=within[1:], reading=Reading(batch_size=4))
    assert table_of(capsys).read_text(encoding="utf-8") == whole.to_csv(index=False)


def test_pictures_left_out_before_a_stop_are_listed(pictures, tmp_path):
    patchy = Patchy(pictures, damaged=(2, 20))

    def stopped(part):
        if part.start == 12:
            raise KeyboardInterrupt
        return measured(part)

    def measured(part):
        return pd.DataFrame({"image": [i for i, _ in enumerate(read_samples(part))]})

    table = tmp_path / "table.csv"
    with pytest.raises(KeyboardInterrupt):
        measure_in_shards(stopped, patchy, table, 6, {"of": "count"})
    with pytest.warns(LeftOutWarning, match="(?s)2 of 21 .*picture 2 is .*picture 20 is"):
        measure_in_shards(measured, patchy, table, 6, {"of": "count"})
    record = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["of"] == "count" and len(record["left_out"]) == 2


# --- several runs and several processes ---------------------------------------------------------


@pytest.mark.parametrize("when", [0, 6, 18])
def test_another_run_may_finish_first(when, pictures, tmp_path):
    table = tmp_path / "table.csv"
    seen = []

    def overtaken(part):
        seen.append(part.start)
        if part.start == when:
            measure_in_shards(count, pictures, table, 6, {})
        return count(part)

    measure_in_shards(overtaken, pictures, table, 6, {})
    assert seen[-1] == when, "what the other one has finished is not gone on with"
    assert pd.read_csv(table).image.tolist() == list(range(21))
    assert tables(tmp_path) == ["table.csv", "table.json"]


def test_files_are_written_whole_or_leave_nothing(tmp_path, monkeypatch):
    path, parts = tmp_path / "file", []

    def stop(part, _):
        parts.append(part.name)
        assert part.read_text() == "new"
        raise KeyboardInterrupt

    write_text(path, "old")
    monkeypatch.setattr("os.replace", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
    assert path.read_text() == "old" and tables(tmp_path) == ["file"]
    assert len(set(parts)) == 2, "no two writers share a temporary file"


MANY = ["crate-creatures", "creatures"], ["--image-size", "36", "--limit", "320"]


def command(folder, n_processes):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n_processes]
    module = ["-m", "crate_analysis.evaluate", "layers", *MANY[0], str(folder), *MANY[1]]
    options = ["--batch-size", "2", "--shard-size", "4", "--threads", "1"]
    return [sys.executable, *torchrun, *module, *options]


@pytest.mark.slow
def test_a_killed_process_loses_and_repeats_nothing(model, tmp_path, capsys, monkeypatch):
    killed, marked = tmp_path / "killed", tmp_path / "marked"
    torchrun = subprocess.Popen(command(killed, "2"))
    deadline = time.monotonic() + 240
    while len(done := list(killed.glob("*.shards/*.json"))) < 6:
        assert torchrun.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    ranks = psutil.Process(torchrun.pid).children()
    next(one for one in ranks if one.environ().get("RANK") == "1").kill()
    assert torchrun.wait(timeout=60) != 0, "one killed process ends the run"
    done = {path.name: path.read_bytes() for path in killed.glob("*.shards/*.json")}
    assert 6 <= len(done) < 80 and not list(killed.glob("*.csv"))

    # Restarted by three, with a mark in a shard that is done: it is taken as it is.
    shutil.copytree(killed, marked)
    first = min(marked.glob("*.shards/*.json"))
    part = json.loads(first.read_text(encoding="utf-8"))
    first.write_text(json.dumps(part | {"rows": "marked\n"}), encoding="utf-8")
    subprocess.run(command(marked, "3"), check=True)
    [table] = marked.glob("*.csv")

    # Restarted by one: the very shards that were not there are measured.
    seen = []

    def watched(network, window, **options):
        seen.append(f"4-{window.start:08d}.json")
        return measure_layers(network, window, **options)

    monkeypatch.setattr("crate_analysis.evaluate.measure_layers", watched)
    main(command(killed, "1")[command(killed, "1").index("layers") :])
    assert sorted([*seen, *done]) == [f"4-{start:08d}.json" for start in range(0, 320, 4)]
    whole = measure_layers(
        model, load_dataset("creatures", "val", 36), reading=Reading(batch_size=2, limit=320)
    )
    text = whole.to_csv(index=False)
    assert table_of(capsys).read_text(encoding="utf-8") == text
    assert table.read_text(encoding="utf-8") == text.replace(part["rows"], "marked\n")
    assert len(tables(killed)) == len(tables(marked)) == 2
