import os
import shutil
import subprocess
import sys
import warnings

import psutil
import pytest
import torch
from PIL import Image

from crate_analysis import build_model, load_dataset, load_model
from crate_analysis.datasets import (
    SampleList,
    batches,
    export_coco,
    export_voc,
    read_samples,
    stack_images,
)
from crate_analysis.datasets.batches import LeftOutWarning, left_out_gathered
from crate_analysis.fingerprints import of_content, of_data, of_files
from crate_analysis.measures import measure_layers
from crate_analysis.probes import collect
from crate_analysis.segmentation import (
    attention_iou,
    detect_objects,
    head_scores,
    location_prior,
    mean_masks,
    read_results,
    scores_with_rivals,
)
from crate_analysis.walk import Reading


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", image_size=24, limit=5)


def test_every_sample_comes_once_with_the_its_index(pictures):
    seen = list(batches(pictures, 2))
    assert [indices for indices, _ in seen] == [[0, 1], [2, 3], [4]]
    assert [s.path for _, samples in seen for s in samples] == [s.path for s in pictures]


def test_a_limit_ends_early_and_samples_wait_until_reached(pictures, monkeypatch):
    drawn, draw = [], type(pictures).__getitem__
    monkeypatch.setattr(
        type(pictures), "__getitem__", lambda self, index: drawn.append(index) or draw(self, index)
    )
    run = batches(pictures, 2, limit=3)
    assert drawn == []
    assert next(run)[0] == [0, 1] and drawn == [0, 1]
    assert next(run)[0] == [2] and drawn == [0, 1, 2]


def test_sizes_under_one_are_refused_at_once(pictures):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        batches(pictures, 0)
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        batches(pictures, 2, limit=0)
    with pytest.raises(ValueError, match="workers=-1 must be at least 0"):
        batches(pictures, 2, workers=-1)


def test_pictures_are_stacked_in_order(pictures):
    samples = [pictures[0], pictures[3]]
    assert (stack_images(samples)[1] == pictures[3].image).all()


# --- damaged files ------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Seven files in a folder: the third is cut short, and the last three are no images."""
    whole = load_dataset("creatures", "dev", image_size=36, limit=7)
    for index, sample in enumerate(whole):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(path)
        if index == 2:
            path.write_bytes(path.read_bytes()[:400])
        elif index > 3:
            path.write_text("no image")
    return load_dataset(f"folder:{tmp_path / 'images'}", image_size=36)


LISTED = r"(?s)4 of 7 images were left out:\n  .*2\.png cannot be read.*\n  .*6\.png"


def test_damaged_files_are_left_out_and_listed(damaged):
    with pytest.warns(UserWarning, match=LISTED):
        seen = list(batches(damaged, 2))
    assert [indices for indices, _ in seen] == [[0, 1], [3]]
    with pytest.warns(LeftOutWarning, match=LISTED) as caught:
        samples = read_samples(damaged)
    warned = caught[0].message
    assert warned.count == 7 and len(warned.reasons) == 4 and "2.png" in warned.reasons[0]
    assert [sample.path[-5:] for sample in samples] == ["0.png", "1.png", "3.png"]
    assert of_data(damaged) == of_data(damaged)


def test_without_a_picture_that_can_be_read_there_is_an_error(damaged):
    damaged.paths = damaged.paths[4:]
    with pytest.raises(ValueError, match=r"none of the 3 images can be read; the first: .*4\.png"):
        list(batches(damaged, 2))


def test_measuring_goes_on_behind_a_damaged_file(damaged):
    model = load_model("crate-creatures")
    with pytest.warns(UserWarning, match=LISTED):
        frame = measure_layers(model, damaged, reading=Reading(batch_size=2))
    assert frame.image.unique().tolist() == [0, 1, 3]
    assert frame["value"].notna().all()
    whole = measure_layers(model, [damaged[index] for index in (0, 1)])
    assert frame[frame.image < 2]["value"].tolist() == whole["value"].tolist()


def test_finding_objects_goes_on_behind_a_damaged_file(damaged, tmp_path):
    model = load_model("crate-creatures")
    with pytest.warns(UserWarning, match=LISTED):
        found = detect_objects(model, damaged, tmp_path, reading=Reading(batch_size=3))
    assert found.image.unique().tolist() == [0, 1, 3]
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:4]), encoding="utf-8")  # stopped behind the damaged one
    with pytest.warns(UserWarning, match=LISTED):
        again = detect_objects(model, damaged, tmp_path, reading=Reading(batch_size=3))
    assert again.equals(found)
    with pytest.warns(UserWarning, match=LISTED):
        read_results(path)


def test_what_was_left_out_can_be_gathered_and_other_warnings_go_on(damaged):
    with pytest.warns(UserWarning, match="^another$"), left_out_gathered() as reasons:
        warnings.warn("another", stacklevel=1)
        read_samples(damaged)
        read_samples(damaged)
    assert len(reasons) == 8 and "2.png" in reasons[0] and "6.png" in reasons[-1]


# --- other processes that read ------------------------------------------------------------------


def everything(dataset, workers):
    with pytest.warns(LeftOutWarning) as caught:
        seen = list(batches(dataset, 2, workers=workers))
    samples = [sample for _, samples in seen for sample in samples]
    return [indices for indices, _ in seen], samples, str(caught[0].message)


def test_other_processes_read_the_same(damaged):
    state = torch.get_rng_state()
    indices, samples, warned = everything(damaged, 2)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are its own"
    again_indices, again, again_warned = everything(damaged, 0)
    assert indices == again_indices and warned == again_warned
    for one, other in zip(samples, again, strict=True):
        assert torch.equal(one.image, other.image) and one.path == other.path


def test_other_processes_draw_the_same(pictures):
    model = load_model("crate-creatures")
    here, there = (
        measure_layers(model, pictures, reading=Reading(batch_size=2, workers=workers))
        for workers in (0, 1)
    )
    assert there.equals(here)


def test_other_processes_read_no_more_than_a_batch_ahead(tmp_path):
    for index in range(40):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
    run = batches(load_dataset(f"folder:{tmp_path}"), 2, workers=1)
    assert next(run)[0] == [0, 1]
    for index in range(6, 40):
        (tmp_path / f"{index:02d}.png").unlink()
    with pytest.warns(LeftOutWarning, match=r"34 of 40 .*\n  .*06\.png is missing"):
        assert [indices for indices, _ in run] == [[2, 3], [4, 5]]


def test_an_error_in_another_process_has_its_own_words(damaged):
    damaged.labels = []  # a mistake, not a damaged file
    with pytest.raises(IndexError) as here:
        list(batches(damaged, 2))
    with pytest.raises(IndexError) as there:
        list(batches(damaged, 2, workers=1))
    assert str(there.value) == str(here.value)
    assert "In a process that reads images" in there.value.__notes__[0]


def test_a_list_is_read_where_it_is(pictures):
    samples = list(pictures)
    seen = [sample for _, some in batches(samples, 2, workers=2) for sample in some]
    assert all(one is other for one, other in zip(seen, samples, strict=True))


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, data, how: measure_layers(model, data, reading=how),
        lambda model, data, how: collect(model, data, {"x": lambda s: s.tokens}, reading=how),
        lambda model, data, how: attention_iou(model, data, reading=how),
        lambda model, data, how: head_scores(model, data, reading=how),
        lambda model, data, how: scores_with_rivals(model, data, data, reading=how),
        lambda model, data, how: location_prior(data, (6, 6), reading=how),
        lambda model, data, how: mean_masks(data, (6, 6), 2, reading=how),
        lambda model, data, how: read_samples(data, how.workers),
    ],
)
def test_workers_are_passed_on(measure, pictures, monkeypatch):
    asked = []

    def here(dataset, indices, workers, ahead):
        asked.append(workers)
        return (dataset[index] for index in indices)

    monkeypatch.setattr(sys.modules[LeftOutWarning.__module__], "attempts", here)
    model = build_model("crate_micro_patch6_72.creatures", dim=16, depth=1, heads=2).eval()
    measure(model, pictures, Reading(workers=3))
    assert set(asked) == {3}


READ_ON = """
from crate_analysis.datasets import batches, load_dataset

if __name__ == "__main__":
    for indices, _ in batches(load_dataset("creatures", limit=10**6), 1, workers=2):
        print(indices, flush=True)
"""


def test_of_a_killed_run_no_process_is_left(tmp_path):
    """Those that read belong to the server that they are forked from, and it to them."""
    script = tmp_path / "read_on.py"
    script.write_text(READ_ON)
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "[0]\n"
    others = psutil.Process(run.pid).children(recursive=True)
    assert len([one for one in others if "forkserver" in " ".join(one.cmdline())]) == 3
    run.kill()
    run.wait()
    run.stdout.close()
    _, left = psutil.wait_procs(others, timeout=30)
    for one in left:
        one.kill()
    assert not left


# --- fingerprints -------------------------------------------------------------------------------


def test_the_fingerprint_tells_the_state_of_every_file(tmp_path):
    for index in range(40):
        Image.new("RGB", (6, 6), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
    spec = f"folder:{tmp_path}"
    content, files = of_content(spec), of_files(spec)
    assert (of_content(spec), of_files(spec)) == (content, files)
    seen = {of_data(spec)}
    path = tmp_path / "01.png"  # not among those that are looked at
    whole, times = path.read_bytes(), path.stat()
    for change in (
        lambda: path.write_bytes(whole[:20]),
        lambda: path.write_bytes(whole),
        lambda: os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1)),
    ):
        change()
        assert of_content(spec) == content and of_data(spec) not in seen
        seen.add(of_data(spec))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert of_files(spec) == files
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    copy = f"folder:{tmp_path.with_name('copy')}"
    assert of_content(copy) == content and of_files(copy) == files


def test_generated_images_and_lists_have_no_files(pictures):
    assert of_files(pictures) is None
    samples = list(pictures)
    assert of_files(samples) is None and of_content(samples) == of_content(SampleList(samples))
    assert of_content(samples[::-1]) != of_content(samples)


@pytest.mark.parametrize("kind", ["voc", "voc-objects", "coco"])
def test_annotations_are_files_too(pictures, tmp_path, kind):
    export = export_coco if kind == "coco" else export_voc
    export(pictures, tmp_path, image_format="png", progress=False)
    before = of_files(load_dataset(f"{kind}:{tmp_path}", "dev"))
    names = {
        "voc": "SegmentationClass/dev_000003.png",
        "voc-objects": "SegmentationObject/dev_000003.png",
        "coco": "annotations/instances_dev2017.json",
    }
    os.utime(tmp_path / names[kind])
    assert of_files(load_dataset(f"{kind}:{tmp_path}", "dev")) != before
