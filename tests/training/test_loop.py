"""Files of runs that are damaged, swapped or shared; schedules; and patches left out."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from crate_analysis import build_model
from crate_analysis.training.__main__ import main
from crate_analysis.training.images import CachedImages
from crate_analysis.training.loop import Part, claimed, is_training, read_checkpoint
from crate_analysis.training.recipe import SupervisedRecipe
from crate_analysis.training.ship import check_name
from crate_analysis.training.supervised import Classification

SMALL = ["--arch", "crate_micro_patch6_72.creatures", "--set", "dim=8", "depth=1", "heads=1",
         "patch_size=36", "--n-train", "32", "--n-val", "8", "--batch-size", "8", "--threads", "1",
         "--save-every", "2", "--snapshots", "2"]  # fmt: skip
TRAPEZOID = ["--schedule", "trapezoid", "--cooldown", "0.5"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def train(cache):
    def run_in(folder, *options, epochs=2):
        main(
            ["train", str(folder), *SMALL, "--epochs", str(epochs), *options, "--cache", str(cache)]
        )

    return run_in


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(folder)
    return folder


@pytest.fixture
def stopped(finished, tmp_path):
    """A run that has a checkpoint, and whose model has not been written yet."""
    folder = tmp_path / "stopped"
    shutil.copytree(finished, folder)
    (folder / "model.safetensors").unlink()
    return folder


def snapshot_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# --- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 100, 0.3, 0.5, 0.9, -40, -1])
def test_one_flipped_bit_of_a_checkpoint_is_noticed(stopped, train, place):
    path = stopped / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is damaged.*delete it to train from"):
        train(stopped)
    assert not (stopped / "model.safetensors").exists()
    path.unlink()  # the remedy
    train(stopped)
    assert (stopped / "model.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04K\x01.", b"PK" * 4000])
def test_what_is_no_checkpoint_is_refused(stopped, train, content):
    (stopped / "checkpoint.pt").write_bytes(content)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is damaged"):
        train(stopped)


def test_a_cut_off_checkpoint_is_refused(stopped, train):
    path = stopped / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is damaged"):
        train(stopped)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_checkpoint_that_is_no_file_is_refused(stopped, train, kind):
    path = stopped / "checkpoint.pt"
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is not a file"):
        train(stopped)


def test_the_checkpoint_of_another_run_is_refused(stopped, train, tmp_path):
    train(tmp_path / "other", "--seed", "1")
    shutil.copy(tmp_path / "other" / "checkpoint.pt", stopped)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is of a run with other settings"):
        train(stopped)


def test_a_log_is_not_written_to_at_each_step(train, tmp_path, capsys):
    """Who does not watch has a line each minute, and a run of seconds none."""
    train(tmp_path / "run")
    assert capsys.readouterr().err == ""


def test_a_finished_run_is_left_as_it_is(finished, train, tmp_path):
    """Even where its checkpoint has been damaged since."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "checkpoint.pt").write_bytes(b"damaged")
    before = snapshot_of(folder)
    train(folder)
    assert snapshot_of(folder) == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"arch": 3}', '{"arch": "x", "no": 1}'])
def test_a_damaged_recipe_is_one_line(stopped, train, content):
    (stopped / "recipe.json").write_text(content)
    with pytest.raises(SystemExit, match=r"recipe\.json"):
        train(stopped)


def test_checkpoints_hold_nothing_that_is_executed(finished, tmp_path):
    """A pickle with a right digest is still only read as data."""
    import hashlib
    import pickle

    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    content = pickle.dumps(Harm())
    (tmp_path / "checkpoint.pt").write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(Exception, match=r"."):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "harm").exists()


# --- processes ----------------------------------------------------------------------------------


def test_two_trainings_do_not_share_a_folder(stopped, train):
    recipe = SupervisedRecipe("crate_micro_patch6_72.creatures")
    (stopped / "recipe.json").unlink()
    with claimed(stopped, recipe):
        assert is_training(stopped)
        with pytest.raises(SystemExit, match=r"another process is training in .*stopped"):
            train(stopped)
    assert not is_training(stopped)
    assert not is_training(stopped / "nowhere")


def test_a_killed_process_holds_no_folder(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from crate_analysis.training.loop import claimed\n"
        "from crate_analysis.training.recipe import SupervisedRecipe\n"
        "with claimed(Path(sys.argv[1]), SupervisedRecipe('a')):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert is_training(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_training(tmp_path)
    process.stdout.close()


def test_a_file_where_the_folder_should_be_is_named(tmp_path, train):
    (tmp_path / "x").write_text("")
    with pytest.raises(SystemExit, match="x is not a folder"):
        train(tmp_path / "x")


READER = """
import os, time
from crate_analysis.datasets import load_dataset
from crate_analysis.datasets.batches import batches

if __name__ == "__main__":
    read = batches(load_dataset("creatures", image_size=224), 16, workers=2)
    next(read)
    print(os.getpid(), flush=True)
    time.sleep(120)  # the workers go on until nobody takes what they have read
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_reader_leaves_no_process(tmp_path):
    script = tmp_path / "reader.py"
    script.write_text(READER)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(1)
    session = members(process.pid)
    assert len(session) > 2, "it has workers"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not members(process.pid)


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its) == session and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("option", ["--threads", "--accumulate", "--save-every", "--snapshots"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_counts_of_nothing_are_refused(tmp_path, train, option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "x", option, value)
    said = f"{stopped.value} {capsys.readouterr().err}"
    assert option.removeprefix("--").replace("-", "_") in said.replace("-", "_")
    assert not (tmp_path / "x" / "model.safetensors").exists()


# --- shipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/x",
        "a\\b",
        ".x",
        "x.json",
        "x.safetensors",
        "a b",
        "-x",
        "x\n",
        "ä",
        "~",
    ],
)
def test_a_model_is_shipped_under_a_plain_name(name):
    with pytest.raises(ValueError, match="cannot be a model's name"):
        check_name(name)


def test_plain_names_are_taken():
    for name in ("crate-creatures", "vit_small.dino", "a", "2x"):
        check_name(name)


def test_what_is_shipped_is_replaced_only_when_asked(finished, train, cache, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(data))
    monkeypatch.setattr("crate_analysis.training.ship.REPORTED_IMAGES", 8)
    ship = ["ship", str(finished), "small", "--cache", str(cache)]
    main([*ship, "--snapshots", "1", "--gate", "0.9"])
    card = json.loads((data / "small.json").read_text())
    assert card["gate"] == 0.9 and card["passes_gate"] == (card["validation_accuracy"] > 0.9)
    assert card["command"].endswith("--snapshots 1 --gate 0.9")
    before = snapshot_of(data)
    for missing in ((), ("small.json",), ("small.safetensors",)):
        kept = {name: (data / name).read_bytes() for name in missing}
        for name in missing:
            (data / name).unlink()
        with pytest.raises(SystemExit, match="there is a shipped model 'small' already"):
            main(ship)
        for name, content in kept.items():
            (data / name).write_bytes(content)
    assert {k: v[0] for k, v in snapshot_of(data).items()} == {k: v[0] for k, v in before.items()}
    with pytest.raises(SystemExit, match="cannot be a model's name"):
        main(["ship", str(finished), "../small", "--cache", str(cache)])
    with pytest.raises(SystemExit, match=r"gate=2\.0 must be a share"):
        main([*ship, "--gate", "2"])
    main([*ship, "--replace"])
    assert "gate" not in json.loads((data / "small.json").read_text())
    assert not (data / "snapshots" / "small").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


# --- schedules ----------------------------------------------------------------------------------


def plan(**changes):
    return SupervisedRecipe(
        "crate_micro_patch6_72.creatures", n_train=1000, batch_size=10, **changes
    )


def test_a_trapezoid_rises_stays_and_falls_in_lines():
    recipe = plan(epochs=1, schedule="trapezoid", warmup=0.1, cooldown=0.2, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[10:81] == pytest.approx([1.0] * 71)
    assert rates[80:] == pytest.approx([1 - k / 20 for k in range(20)])
    assert recipe.constant_until == 80 and plan().constant_until == 0


@pytest.mark.parametrize("cooldown", [0.0, -0.1, 0.97, 1.5, math.nan])
def test_a_cooldown_has_room(cooldown):
    with pytest.raises(ValueError, match="cooldown="):
        plan(cooldown=cooldown)


def test_what_continues_what():
    short = plan(schedule="trapezoid", epochs=2, warmup=0.1, cooldown=0.5)
    long = plan(schedule="trapezoid", epochs=4, warmup=0.05, cooldown=0.25)
    assert short.constant_until == 100 and long.constant_until == 300
    assert long.continues(short, 100) and short.continues(long, 100)
    assert not long.continues(short, 101), "it has begun to fall"
    assert long.continues(long, 399)
    later = plan(schedule="trapezoid", epochs=4, warmup=0.1, cooldown=0.25)
    assert not later.continues(short, 0), "it warms up longer"
    assert not plan(epochs=4).continues(plan(epochs=2), 0), "a cosine falls from the start"
    other = plan(schedule="trapezoid", epochs=4, warmup=0.05, cooldown=0.25, seed=1)
    assert not other.continues(short, 0)


def test_a_longer_run_goes_on_from_a_shorter_one(train, tmp_path, monkeypatch):
    """Stopped before it falls, then lengthened: in the same bits as one that was long at once."""
    options = ["--schedule", "trapezoid", "--warmup", "0", "--save-every", "1"]
    train(tmp_path / "whole", *options, "--cooldown", "0.25", epochs=4)
    update = Classification.after_update

    def stop(self, step):
        update(self, step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "after_update", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", *options, "--cooldown", "0.5", epochs=2)
    train(tmp_path / "run", *options, "--cooldown", "0.25", epochs=4)
    for name in ("model.safetensors", "recipe.json", "log.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(SystemExit, match=r"holds a run with epochs=4, not 8"):
        train(tmp_path / "run", *options, "--cooldown", "0.25", epochs=8)


# --- patches left out ---------------------------------------------------------------------------


def test_patches_are_left_out_until_the_cooldown():
    recipe = plan(epochs=1, patch_dropout=0.75, cooldown=0.2)
    kept = [recipe.kept_patches(step, 16) for step in range(100)]
    assert all(k is None for k in kept[80:]) and all(k is not None for k in kept[:80])
    for k in kept[:80]:
        assert len(k) == 4 and k.tolist() == sorted(set(k.tolist())) and k.max() < 16
    assert len({tuple(k.tolist()) for k in kept[:80]}) > 40
    counts = torch.bincount(torch.cat(kept[:80]), minlength=16)
    assert counts.min() > 5  # none is favoured: 20 of 80 are expected of each
    assert torch.equal(recipe.kept_patches(3, 16), kept[3])
    assert plan().kept_patches(0, 16) is None
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="patch_dropout="):
            plan(patch_dropout=share)


@pytest.mark.parametrize("family", ["crate", "vit"])
def test_what_is_left_out_has_no_influence(family, cache):
    arch = f"{family}_micro_patch6_72.creatures"
    torch.manual_seed(0)
    model = build_model(arch, patch_size=24, dim=8, heads=2, depth=2)
    recipe = SupervisedRecipe(arch, n_train=100, batch_size=4, patch_dropout=0.5, flip=False)
    held_out = CachedImages("creatures", "val", 72, 8, 0, cache)
    task = Classification(model, recipe, held_out)
    images = torch.randint(0, 256, (4, 3, 72, 72), dtype=torch.uint8)
    labels = torch.arange(4)
    loss = task(images, labels, Part(0, 0, 4))[0]
    kept = recipe.kept_patches(0, 9).tolist()
    for patch in range(9):
        changed = images.clone()
        row, column = divmod(patch, 3)
        changed[:, :, 24 * row : 24 * row + 24, 24 * column : 24 * column + 24] //= 2
        same = torch.equal(task(changed, labels, Part(0, 0, 4))[0], loss)
        assert same == (patch not in kept)
    all_of_them = SupervisedRecipe(arch, n_train=100, batch_size=4, flip=False)
    whole = Classification(model, all_of_them, held_out)(images, labels, Part(0, 0, 4))[0]
    logits = model(model.normalize(images))
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(whole, expected)
