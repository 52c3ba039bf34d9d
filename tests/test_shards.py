"""Measuring in shards equals measuring in one go, byte for byte, however often it was stopped."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from crate_analysis import load_dataset, load_model
from crate_analysis.evaluate import main, read_objects
from crate_analysis.measures import measure_layers
from crate_analysis.segmentation import attention_iou, detect_objects, head_scores
from crate_analysis.shards import Window, measure_in_shards

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
        ("layers", [], lambda model, data: measure_layers(model, data, batch_size=4)),
        (
            "attention",
            ["--keep", "0.5", "--rules", "mass"],
            lambda model, data: attention_iou(model, data, 0.5, ["mass"], batch_size=4),
        ),
        (
            "heads",
            ["--within", "animal"],
            lambda model, data: head_scores(model, data, within=["animal"], batch_size=4),
        ),
    ],
)
def test_the_table_is_that_of_one_go(what, options, whole, model, pictures, tmp_path, capsys):
    run(what, tmp_path, *options)
    table = capsys.readouterr().out.strip()
    with open(table, encoding="utf-8") as file:
        assert file.read() == whole(model, pictures).to_csv(index=False)
    assert len(tables(tmp_path)) == 2, "the table and what it is of; no shards are left"


def test_the_objects_are_those_of_one_go(model, pictures, tmp_path, capsys):
    run("objects", tmp_path / "sharded", "--layers", "2", "-1")
    found = read_objects(capsys.readouterr().out.strip())
    whole = detect_objects(model, pictures, tmp_path, [2, -1], batch_size=4, progress=False)
    pd.testing.assert_frame_equal(found, whole)


def test_two_processes_write_what_one_writes(tmp_path):
    run("layers", tmp_path / "one")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    module = ["-m", "crate_analysis.evaluate", "layers", *PICTURES[:2], str(tmp_path / "two")]
    subprocess.run([sys.executable, *command, *module, *OPTIONS, "--threads", "1"], check=True)
    assert tables(tmp_path / "two") == tables(tmp_path / "one")
    for name in tables(tmp_path / "one"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


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
    assert len(tables(tmp_path)) == 4, "another request has a table of its own"


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
        measure_in_shards(measurement, pictures, table, 6)
    assert not table.exists()
    measure_in_shards(measurement, pictures, table, 6)
    assert seen == [0, 6, 12, 12, 18]
    assert pd.read_csv(table).image.tolist() == list(range(21))
    measure_in_shards(measurement, pictures, table, 6)
    assert len(seen) == 5, "a finished table is left as it is"


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
        measure_in_shards(count, Window(pictures, *window), tmp_path / "table.csv", size)
    assert not tables(tmp_path)


def test_wrong_requests_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match="error: there is no shipped model 'crate-creature'"):
        main(["layers", "crate-creature", "creatures", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .* holds no pictures"):
        main(["attention", "crate-creatures", f"folder:{tmp_path}", str(tmp_path / "out")])
