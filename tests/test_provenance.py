"""The record of a run is true to what was used."""

import hashlib
import json
import subprocess

import pytest

from crate_analysis import load_dataset, provenance
from crate_analysis.paths import data_folder
from crate_analysis.provenance import provenance as record_of

MODEL = "crate-dim64-creatures"


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", 24, limit=3, seed=5)


def test_the_record_names_files_and_pictures_by_what_they_hold(pictures):
    again = load_dataset("creatures", "dev", 24, limit=3, seed=5)
    other = load_dataset("creatures", "dev", 24, limit=3, seed=6)
    parameters = {"seed": 5, "output": "x"}
    record = record_of("chapter", parameters, [MODEL, MODEL], [pictures, again, other])
    assert json.loads(json.dumps(record)) == record
    assert (record["chapter"], record["parameters"]) == ("chapter", parameters)
    weights = (data_folder() / f"{MODEL}.safetensors").read_bytes()
    assert record["models"] == [
        {
            "given": MODEL,
            "file": f"{MODEL}.safetensors",
            "sha256": hashlib.sha256(weights).hexdigest(),
        }
    ]
    told = [one["dataset"] for one in record["data"]]
    assert told == ["creatures, dev, seed 5", "creatures, dev, seed 6"]
    assert record["data"][0]["images"] == 3
    assert record["versions"]["torch"] and record["finished"].endswith("+00:00")


def test_in_a_clone_the_commit_is_told_and_whether_files_changed(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    package = tmp_path / "crate_analysis"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert record_of("c", {}, [], [])["code"]["commit"] is None

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    code = record_of("c", {}, [], [])["code"]
    assert (code["commit"], code["changed_since"]) == (git("rev-parse", "HEAD"), False)
    (package / "a.py").write_text("a = 2\n")
    changed = record_of("c", {}, [], [])["code"]
    assert changed["changed_since"] and changed["library"] != code["library"]


def test_a_missing_model_is_the_error_it_always_is(pictures):
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere/a\.pth"):
        record_of("c", {}, ["nowhere/a.pth"], [pictures])
