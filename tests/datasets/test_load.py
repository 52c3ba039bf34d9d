"""The registry: which words are understood, and what the others are told."""

from __future__ import annotations

import pytest

from crate_analysis.datasets import load_dataset


@pytest.mark.parametrize(
    ("spec", "arguments", "words"),
    [
        ("creature", {}, ["'creature'", "did you mean 'creatures'", "voc:ROOT"]),
        ("cocoo:/data", {}, ["'cocoo:/data'", "'coco:ROOT'"]),
        ("", {}, ["''", "creatures-scenes"]),
        ("creatures:/data", {}, ["takes no folder", "'creatures'"]),
        ("voc", {}, ["'voc'", "'voc:ROOT'"]),
        ("voc:", {}, ["'voc:'", "'voc:ROOT'"]),
        ("creatures", {"split": "valid"}, ["'valid'", "did you mean 'val'", "train, val, test"]),
        ("creatures", {"limit": 0}, ["limit", "0"]),
        ("creatures", {"limit": -3}, ["limit", "-3"]),
        ("creatures", {"image_size": 0}, ["image_size", "0"]),
        ("creatures", {"seed": -1}, ["seed", "-1"]),
        ("creatures", {"seed": 2**64}, ["seed"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(spec, arguments, words):
    with pytest.raises(ValueError) as error:
        load_dataset(spec, **arguments)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_index_outside_is_an_error():
    dataset = load_dataset("creatures", limit=2)
    for index in (2, -3):
        with pytest.raises(IndexError, match=rf"item {index} of 2 in creatures"):
            dataset[index]
