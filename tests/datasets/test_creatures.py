"""The generated images: what depends on what, exact truth, and no clue in the background."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from crate_analysis.datasets import load_dataset
from crate_analysis.datasets.creatures.chance import ANIMALS, SPLITS, STAGE, stream
from crate_analysis.datasets.creatures.species import PALETTES, PLANS, SPECIES

PARTS = ("body", "head", "legs", "ears", "tail")


@pytest.fixture(scope="module")
def samples():
    dataset = load_dataset("creatures", image_size=64, limit=120)
    return [dataset[index] for index in range(120)]


def digest(index: int) -> str:
    pixels = load_dataset("creatures", image_size=48)[index].image.numpy().tobytes()
    return hashlib.sha256(pixels).hexdigest()


def iou(a, b) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_defaults():
    dataset = load_dataset("creatures")
    assert (dataset.name, dataset.split, dataset.image_size, dataset.seed) == (
        ("creatures", "val", 96, 0)
    )
    assert [len(load_dataset("creatures", split)) for split in ("train", "val", "test")] == [
        *(20_000, 2_000, 2_000)
    ]
    sample = dataset[3]
    assert sample.image.shape == (3, 96, 96)
    assert sample.image.dtype == torch.uint8
    assert sample.masks.shape == (len(sample.mask_names), 96, 96)
    assert sample.masks.dtype == torch.bool
    assert sample.path == "creatures/val/3?seed=0"


def test_an_item_depends_on_seed_split_and_index_only():
    dataset = load_dataset("creatures", image_size=48)
    first = dataset[5]
    for _ in range(2):  # neither on what was drawn before, nor on the limit
        assert torch.equal(dataset[5].image, first.image)
    longer = load_dataset("creatures", image_size=48, limit=3_000)
    assert torch.equal(longer[5].image, first.image)
    assert torch.equal(longer[5].masks, first.masks)
    assert len(longer) == 3_000
    assert torch.equal(dataset[-1].image, longer[1_999].image)
    for other in (
        dataset[6],
        load_dataset("creatures", image_size=48, seed=1)[5],
        load_dataset("creatures", "train", image_size=48)[5],
        load_dataset("creatures", "test", image_size=48)[5],
    ):
        assert not torch.equal(other.image, first.image)


def test_an_item_is_the_same_in_another_process():
    program = """
import hashlib
from crate_analysis.datasets import load_dataset
dataset = load_dataset("creatures", image_size=48)
print(*(hashlib.sha256(dataset[i].image.numpy().tobytes()).hexdigest() for i in (0, 7)))
"""
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == [digest(0), digest(7)]


def test_can_be_sent_to_workers():
    dataset = pickle.loads(pickle.dumps(load_dataset("creatures", image_size=32, limit=4)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    for index, sample in enumerate(loader):
        assert torch.equal(sample.image, dataset[index].image)


def test_iterating_ends():
    assert len(list(load_dataset("creatures", image_size=16, limit=3))) == 3


@pytest.mark.parametrize("index", range(6))
def test_every_size_shows_the_same_drawing(index):
    small, large = (load_dataset("creatures", image_size=size)[index] for size in (96, 192))
    halved = large.image.float().reshape(3, 96, 2, 96, 2).mean((2, 4))
    assert (halved - small.image.float()).abs().mean() < 3
    counts = large.masks[0].reshape(96, 2, 96, 2).sum((1, 3))
    assert iou(counts > 2, small.masks[0]) > 0.95
    assert set(small.mask_names) <= set(large.mask_names)
    for name in ("body", "head"):
        a = large.masks[large.mask_names.index(name)].reshape(96, 2, 96, 2).sum((1, 3)) > 2
        assert iou(a, small.masks[small.mask_names.index(name)]) > 0.9


def test_splits_share_no_random_number():
    numbers = [
        stream(0, split, index, purpose).random(50)
        for split in SPLITS
        for index in range(20)
        for purpose in (STAGE, ANIMALS)
    ]
    assert len(np.unique(np.concatenate(numbers))) == 50 * len(numbers)


def test_splits_share_no_picture():
    hashes = [
        load_dataset("creatures", split, image_size=24)[index].image.numpy().tobytes()
        for split in SPLITS
        for index in range(40)
    ]
    assert len(set(hashes)) == len(hashes)


def test_parts_are_disjoint_and_make_up_the_animal(samples):
    for sample in samples:
        assert sample.mask_names[0] == "animal"
        assert list(sample.mask_names[1:]) == [n for n in PARTS if n in sample.mask_names]
        assert sample.masks.flatten(1).any(1).all()
        assert torch.equal(sample.masks[1:].sum(0), sample.masks[0].long())


def test_species_have_the_parts_of_their_plan(samples):
    for sample in samples:
        assert {"body", "head", "legs", "ears"} <= set(sample.mask_names)
        assert ("tail" in sample.mask_names) <= bool(PLANS[SPECIES[sample.label].plan].tail)
    assert any("tail" in sample.mask_names for sample in samples)


def test_animals_cover_a_fair_share(samples):
    shares = torch.stack([sample.masks[0].float().mean() for sample in samples])
    assert 0.13 <= shares.mean() <= 0.18
    assert shares.min() >= 0.06
    assert shares.max() <= 0.35


def test_outside_its_mask_the_picture_is_its_background(samples):
    dataset = load_dataset("creatures", image_size=64)
    for index in range(30):
        mask = samples[index].masks[0]
        near = torch.nn.functional.max_pool2d(mask[None].float(), 5, 1, 2)[0] > 0
        same = (dataset.background(index) == samples[index].image).all(0)
        assert same[~near].all()
        assert same[mask].float().mean() < 0.05


def test_species_are_drawn_evenly():
    labels = [
        int(stream(0, "train", index, ANIMALS).integers(len(SPECIES))) for index in range(6_000)
    ]
    counts = np.bincount(labels, minlength=12)
    assert ((counts - 500) ** 2 / 500).sum() < 31.3  # chi squared, 11 degrees, p = 0.001
    dataset = load_dataset("creatures", "train", image_size=8)
    assert [dataset[index].label for index in range(20)] == labels[:20]


@pytest.mark.parametrize("factor", ["plan", "pattern", "palette"])
def test_no_factor_suffices_and_none_can_be_left_out(factor):
    values = [getattr(species, factor) for species in SPECIES]
    assert all(values.count(value) >= 2 for value in values)
    others = [f for f in ("plan", "pattern", "palette") if f != factor]
    rest = [tuple(getattr(species, f) for f in others) for species in SPECIES]
    assert len(set(rest)) < len(rest)


def test_species_are_distinct():
    assert len(SPECIES) == 12
    assert len({species.name for species in SPECIES}) == 12
    assert len({(s.plan, s.pattern, s.palette) for s in SPECIES}) == 12
    assert {s.plan for s in SPECIES} == set(PLANS)
    assert {s.palette for s in SPECIES} == set(PALETTES)


def features(image: torch.Tensor) -> np.ndarray:
    """An image of 8 x 8, and how its colours are spread."""
    image = image.numpy() / 255
    small = image.reshape(3, 8, 4, 8, 4).mean((2, 4)).ravel()
    flat = image.reshape(3, -1)
    histograms = [np.histogram(channel, 8, (0, 1))[0] / len(channel) for channel in flat]
    return np.concatenate([small, flat.mean(1), flat.std(1), np.cov(flat).ravel(), *histograms])


def test_the_background_carries_no_information():
    """A classifier reads the species off the image, but not off the same image without it."""
    n_train, n_test = 500, 250
    count = n_train + n_test
    dataset = load_dataset("creatures", "train", image_size=32)
    labels = [int(stream(0, "train", k, ANIMALS).integers(len(SPECIES))) for k in range(count)]

    def accuracy(picture: Callable[[int], torch.Tensor]) -> float:
        x = np.stack([features(picture(index)) for index in range(count)])
        x = StandardScaler().fit(x[:n_train]).transform(x)
        with threadpool_limits(1):
            model = RidgeClassifier(alpha=100).fit(x[:n_train], labels[:n_train])
        return model.score(x[n_train:], labels[n_train:])

    chance = 1 / len(SPECIES)
    margin = 3.3 * np.sqrt(chance * (1 - chance) / n_test)  # two-sided, p = 0.001
    assert abs(accuracy(dataset.background) - chance) < margin
    assert accuracy(lambda index: dataset[index].image) > chance + 3 * margin
