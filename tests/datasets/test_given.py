"""Whatever stands for a data set is taken as one, and the rest is told in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import SampleList, as_samples, batches, load_dataset, read_samples

SQUARE = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(3, 4, 5)
ROWS = SQUARE.permute(1, 2, 0).numpy()


def test_a_name_and_a_data_set():
    named = as_samples("creatures", "dev", image_size=24, limit=2)
    assert named.image_size == 24 and len(named) == 2 and named.split == "dev"
    assert as_samples(named) is named


@pytest.mark.parametrize("wrap", [list, tuple])
def test_a_list_of_samples(wrap):
    samples = list(load_dataset("creatures", "dev", 24, 3))
    given = as_samples(wrap(samples))
    assert isinstance(given, SampleList) and given.image_size == 24
    assert given[1] is samples[1] and len(given) == 3
    with pytest.raises(IndexError):
        given[3]


def test_images_in_every_form(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(ROWS).save(path)
    forms = [SQUARE, ROWS, Image.fromarray(ROWS), str(path), path]
    for sample in as_samples(forms):
        assert torch.equal(sample.image, SQUARE) and sample.masks.shape == (0, 4, 5)
        assert sample.label is None
    assert as_samples(forms)[3].path == str(path) and as_samples(forms)[0].path == "images[0]"
    for several in (torch.stack([SQUARE] * 2), np.stack([ROWS] * 2)):
        assert torch.equal(as_samples(several)[1].image, SQUARE)
    assert (as_samples([np.full((4, 5), 7, np.uint8)])[0].image == 7).all()


def test_what_reads_data_takes_all_of_these():
    assert len(read_samples([SQUARE, SQUARE])) == 2
    assert [indices for indices, _ in batches("creatures", 2, limit=3)] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "int is no data set: give a data set's name"),
        (None, "NoneType is no data set"),
        ({"images": []}, "dict is no data set"),
        ((one for one in ()), "generator is no data set"),
        (Path("/data/voc"), r"/data/voc is a path: write '\{voc\|voc-objects\|coco\|folder\}:"),
        (SQUARE, r"this is one Tensor, not several: put it into a list, \[x\]"),
        (Image.new("RGB", (2, 2)), "this is one Image, not several"),
        ([SQUARE.float()], "item 0 of the list holds torch.float32: give images as uint8"),
        ([SQUARE[:1]], r"item 0 of the list is of shape \(1, 4, 5\): an image is \(3, H, W\)"),
        ([SQUARE, (SQUARE, 3)], "item 1 of the list is tuple: give"),
        ([ROWS.astype(float)], r"item 0 of the list is float64 array \(4, 5, 3\)"),
        (["creatures"], r"'creatures' is in a list: measure one data set at a time"),
        (["voc:/x", "coco:/y"], r"'voc:/x' is in a list"),
    ],
)
def test_what_is_no_data_is_told_in_a_line(given, words, unchecked):
    with pytest.raises(TypeError, match=words) as error:
        as_samples(given)
    assert "\n" not in str(error.value)
