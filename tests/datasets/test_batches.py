import pytest

from crate_analysis import load_dataset
from crate_analysis.datasets import batches, stack_images


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", image_size=24, limit=5)


def test_every_sample_comes_once_with_the_index_of_its_batch(pictures):
    seen = list(batches(pictures, 2))
    assert [first for first, _ in seen] == [0, 2, 4]
    assert [s.path for _, samples in seen for s in samples] == [s.path for s in pictures]


def test_a_limit_ends_early_and_samples_wait_until_reached(pictures, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        type(pictures), "__getitem__", lambda self, index: drawn.append(index) or index
    )
    run = batches(pictures, 2, limit=3)
    assert drawn == []
    assert next(run) == (0, [0, 1]) and drawn == [0, 1]
    assert next(run) == (2, [2])


def test_sizes_under_one_are_refused_at_once(pictures):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        batches(pictures, 0)
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        batches(pictures, 2, limit=0)


def test_pictures_are_stacked_in_order(pictures):
    samples = [pictures[0], pictures[3]]
    assert (stack_images(samples)[1] == pictures[3].image).all()
