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
from crate_analysis.segmentation import Scoring, attention_iou, detect_objects, head_scores
from crate_analysis.shards import Window, measure_in_shards
from crate_analysis.walk import Reading
from crate_analysis.writing import DamagedFileError, write_text

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
            ["--within", "object"],
            lambda model, data: head_scores(
                model, data, Scoring(within=["object"]), reading=Reading(batch_size=4)
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
    assert (record["measure"], record["model"], record["images"]) == (
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
    """Creatures, of which some are damaged, some have no masks and some have no parts."""

    name, split, image_size, seed = "patchy", "val", 36, 0

    def __init__(self, whole, damaged=(), bare=(), simple=()):
        self.whole, self.classes = whole, whole.classes
        self.damaged, self.bare, self.simple = damaged, bare, simple

    def __len__(self):
        return len(self.whole)

    def __getitem__(self, index):
        sample = self.whole[self.check(index)]
        if index in self.damaged:
            raise UnreadableSampleError(f"image {index} is damaged")
        if index in self.bare:
            return replace(sample, masks=sample.masks[:0], mask_names=(), part_of=())
        if index in self.simple:
            names = sample.mask_names[:1]
            return replace(sample, masks=sample.masks[:1], mask_names=names, part_of=())
        return sample


DAMAGED, BARE, SIMPLE = (0, 1, 2, 3, 13), (4, 5, 6, 7, 14), (8, 9, 10, 11, 15)
WARNED = "(?s)5 of 21 images were left out:\n  image 0 is .*\n  image 13 is damaged$"
WHOLE = {
    "layers": lambda model, data, folder: measure_layers(
        model, data, reading=Reading(batch_size=4)
    ),
    "attention": lambda model, data, folder: attention_iou(
        model, data, reading=Reading(batch_size=4)
    ),
    "heads": lambda model, data, folder: head_scores(
        model, data, Scoring(within=["object"]), reading=Reading(batch_size=4)
    ),
    "objects": lambda model, data, folder: detect_objects(
        model, data, folder, reading=Reading(batch_size=4)
    ),
}


def table_of(capsys):
    return Path(capsys.readouterr().out.strip())


@pytest.mark.parametrize("what", WHOLE)
def test_shards_may_lack_everything(what, model, pictures, tmp_path, capsys, monkeypatch):
    patchy = Patchy(pictures, DAMAGED, BARE, SIMPLE)
    monkeypatch.setattr("crate_analysis.evaluate.load_dataset", lambda *_: patchy)
    options = ["--shard-size", "4"] + ["--within", "object"] * (what == "heads")
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
    assert record["left_out"] == [f"image {index} is damaged" for index in DAMAGED]


@pytest.mark.parametrize(
    ("lacking", "options", "message"),
    [
        ({"damaged": range(21)}, [], "none of the 21 images can be read; the first: image 0"),
        ({"bare": range(21)}, [], "the data set has no masks to compare with"),
        ({"bare": range(8), "simple": range(8, 21)}, ["--within", "object"], "no (masks|parts)"),
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


def test_parts_may_be_in_another_shard(pictures, model, tmp_path, monkeypatch, capsys):
    patchy = Patchy(pictures, simple=range(8))
    within = ["--within", "image", "object"]
    monkeypatch.setattr("crate_analysis.evaluate.load_dataset", lambda *_: patchy)
    run("heads", tmp_path, *within)
    scoring = Scoring(within=within[1:])
    whole = head_scores(model, patchy, scoring, reading=Reading(batch_size=4))
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
    with pytest.warns(LeftOutWarning, match="(?s)2 of 21 .*image 2 is .*image 20 is"):
        measure_in_shards(measured, patchy, table, 6, {"of": "count"})
    record = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["of"] == "count" and len(record["left_out"]) == 2


# --- files that were damaged, edited or exchanged ------------------------------------------------


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def edit(path):
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("creatures", "creaturez"), encoding="utf-8")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = [halve, empty, edit, flip]


@pytest.mark.parametrize("damage", [*DAMAGE, "another shard", "another request", "another size"])
def test_a_shard_that_is_not_as_it_was_written_is_measured_again(damage, pictures, tmp_path):
    table, other = tmp_path / "table.csv", tmp_path / "other.csv"

    def stopped(part):
        if part.start == 12:
            raise KeyboardInterrupt
        return count(part)

    for path, record in ((table, {"tau": 1}), (other, {"tau": 2})):
        with pytest.raises(KeyboardInterrupt):
            measure_in_shards(stopped, pictures, path, 6, record)
    shards = table.with_suffix(".shards")
    first = shards / "6-00000000.json"
    if callable(damage):
        damage(first)
    elif damage == "another shard":
        shutil.copy(shards / "6-00000006.json", first)
    elif damage == "another request":
        shutil.copy(other.with_suffix(".shards") / first.name, first)
    else:
        shutil.copy(first, shards / "12-00000000.json")
    seen = []

    def watched(part):
        seen.append(part.start)
        return count(part)

    size = 12 if damage == "another size" else 6
    with pytest.warns(UserWarning, match=r"measured again: .*-00000000\.json is not as it was"):
        measure_in_shards(watched, pictures, table, size, {"tau": 1})
    assert seen == ([0, 12] if size == 12 else [0, 12, 18])
    assert pd.read_csv(table).image.tolist() == list(range(21))


@pytest.mark.parametrize("name", ["table.csv", "table.json"])
@pytest.mark.parametrize("damage", [*DAMAGE, "another request"])
def test_a_table_that_is_not_as_it_was_written_is_refused(damage, name, pictures, tmp_path):
    table, other = tmp_path / "table.csv", tmp_path / "other" / "table.csv"
    measure_in_shards(count, pictures, table, 6, {"set": "creatures", "tau": 1})
    measure_in_shards(lambda part: count(part).assign(x=1), pictures, other, 6, {"tau": 2})
    if callable(damage):
        damage(tmp_path / name)
    else:
        shutil.copy(other.with_name(name), tmp_path / name)
    refused = (
        r"table\.(csv|json) is not as it was written: .*; delete it and table\.\w+ and run again"
    )
    with pytest.raises(DamagedFileError, match=refused) as error:
        measure_in_shards(count, pictures, table, 6, {"set": "creatures", "tau": 1})
    assert "\n" not in str(error.value)
    with pytest.raises(DamagedFileError, match=refused):
        read_objects(table)


def test_table_and_note_exchanged_together_are_refused(pictures, tmp_path):
    """They agree with each other, but are not what was asked for."""
    table, other = tmp_path / "table.csv", tmp_path / "other.csv"
    measure_in_shards(count, pictures, table, 6, {"tau": 1})
    measure_in_shards(count, pictures, other, 6, {"tau": 2})
    for suffix in (".csv", ".json"):
        shutil.copy(other.with_suffix(suffix), table.with_suffix(suffix))
    with pytest.raises(DamagedFileError, match="belongs to another request"):
        measure_in_shards(count, pictures, table, 6, {"tau": 1})


def test_a_table_alone_is_not_read(pictures, tmp_path):
    measure_in_shards(count, pictures, tmp_path / "table.csv", 6, {})
    (tmp_path / "table.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"table\.json is missing: it must lie beside"):
        read_objects(tmp_path / "table.csv")


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

    # Restarted by three, with a shard that is damaged: it is measured again.
    shutil.copytree(killed, marked)
    first = min(marked.glob("*.shards/*.json"))
    first.write_text(first.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
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
    assert table.read_text(encoding="utf-8") == text
    assert len(tables(killed)) == len(tables(marked)) == 2
