"""Photographs of installed packages."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from crate_analysis.datasets import as_samples, load_dataset, photographs

pytest.importorskip("skimage")


def test_all_are_there_in_their_order_and_one_size():
    data = load_dataset("photographs", image_size=56)
    assert [data[k].image.shape for k in range(len(data))] == [(3, 56, 56)] * 6
    assert data.names == ["astronaut", "chelsea", "coffee", "rocket", "china", "flower"]
    assert all(path.is_file() for path in data.files())
    assert all(source.credit for source in photographs.PHOTOGRAPHS.values())


def test_pixels_are_those_of_the_package():
    china = load_dataset("photographs")[4]
    assert np.array_equal(china.image.permute(1, 2, 0).numpy(), load_sample_image("china.jpg"))
    assert china.label is None and len(china.masks) == 0


def test_a_limit_is_a_choice_that_the_seed_settles():
    names = [load_dataset("photographs", limit=3, seed=seed).names for seed in (0, 0, 1, 2, 3)]
    assert names[0] == names[1] and len({tuple(name) for name in names}) > 1
    assert len(as_samples("photographs", limit=2)) == 2


def test_what_is_missing_is_named_with_a_remedy(monkeypatch):
    with pytest.raises(FileNotFoundError, match="no split 'train', only 'val'"):
        load_dataset("photographs", "train")
    with pytest.raises(ValueError, match="write 'photographs' or 'folder:x'"):
        load_dataset("photographs:x")
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"'astronaut'.*pip install scikit-image"):
        load_dataset("photographs")
