import pytest
from PIL import Image

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import batches, read_samples, stack_images
from crate_analysis.fingerprints import of_data
from crate_analysis.measures import measure_layers
from crate_analysis.segmentation import detect_objects, read_results


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", image_size=24, limit=5)


def test_every_sample_comes_once_with_the_its_index(pictures):
    seen = list(batches(pictures, 2))
    assert [indices for indices, _ in seen] == [[0, 1], [2, 3], [4]]
    assert [s.path for _, samples in seen for s in samples] == [s.path for s in pictures]


def test_a_limit_ends_early_and_samples_wait_until_reached(pictures, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        type(pictures), "__getitem__", lambda self, index: drawn.append(index) or index
    )
    run = batches(pictures, 2, limit=3)
    assert drawn == []
    assert next(run) == ([0, 1], [0, 1]) and drawn == [0, 1]
    assert next(run) == ([2], [2])


def test_sizes_under_one_are_refused_at_once(pictures):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        batches(pictures, 0)
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        batches(pictures, 2, limit=0)


def test_pictures_are_stacked_in_order(pictures):
    samples = [pictures[0], pictures[3]]
    assert (stack_images(samples)[1] == pictures[3].image).all()


# --- damaged files ------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Seven files in a folder: the third is cut short, and the last three are no pictures."""
    whole = load_dataset("creatures", "dev", image_size=36, limit=7)
    for index, sample in enumerate(whole):
        path = tmp_path / "pictures" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(path)
        if index == 2:
            path.write_bytes(path.read_bytes()[:400])
        elif index > 3:
            path.write_text("no picture")
    return load_dataset(f"folder:{tmp_path / 'pictures'}", image_size=36)


LISTED = r"(?s)4 of 7 pictures were left out:\n  .*2\.png cannot be read.*\n  .*6\.png"


def test_damaged_files_are_left_out_and_listed(damaged):
    with pytest.warns(UserWarning, match=LISTED):
        seen = list(batches(damaged, 2))
    assert [indices for indices, _ in seen] == [[0, 1], [3]]
    with pytest.warns(UserWarning, match=LISTED):
        samples = read_samples(damaged)
    assert [sample.path[-5:] for sample in samples] == ["0.png", "1.png", "3.png"]
    assert of_data(damaged) == of_data(damaged)


def test_without_a_picture_that_can_be_read_there_is_an_error(damaged):
    damaged.paths = damaged.paths[4:]
    with pytest.raises(
        ValueError, match=r"none of the 3 pictures can be read; the first: .*4\.png"
    ):
        list(batches(damaged, 2))


def test_measuring_goes_on_behind_a_damaged_file(damaged):
    model = load_model("crate-creatures")
    with pytest.warns(UserWarning, match=LISTED):
        frame = measure_layers(model, damaged, batch_size=2, progress=False)
    assert frame.image.unique().tolist() == [0, 1, 3]
    assert frame["value"].notna().all()
    whole = measure_layers(model, [damaged[index] for index in (0, 1)], progress=False)
    assert frame[frame.image < 2]["value"].tolist() == whole["value"].tolist()


def test_finding_objects_goes_on_behind_a_damaged_file(damaged, tmp_path):
    model = load_model("crate-creatures")
    with pytest.warns(UserWarning, match=LISTED):
        found = detect_objects(model, damaged, tmp_path, batch_size=3, progress=False)
    assert found.image.unique().tolist() == [0, 1, 3]
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:4]), encoding="utf-8")  # stopped behind the damaged one
    with pytest.warns(UserWarning, match=LISTED):
        again = detect_objects(model, damaged, tmp_path, batch_size=3, progress=False)
    assert again.equals(found)
    with pytest.warns(UserWarning, match=LISTED):
        read_results(path)
