"""Animals of mixed parts: the same images twice, and labels that are independent of the rest."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn.functional import max_pool2d

from crate_analysis.datasets import load_dataset
from crate_analysis.datasets.creatures import SPLITS, chance, mixtures
from crate_analysis.datasets.creatures.chance import stream

PURPOSES = (
    chance.MIXED_STAGE, chance.MIXED_PLACES, chance.MIXED_PARTS, chance.MIXED_COATS,
    chance.MIXED_POSES, chance.MIXED_FUR,
)  # fmt: skip
PARTS = ("body", "head", "legs", "ears", "tail")


@pytest.fixture(scope="module")
def datasets():
    return [
        load_dataset(name, "train", limit=60) for name in ("creatures-parts", "creatures-coats")
    ]


@pytest.fixture(scope="module")
def samples(datasets):
    return [datasets[0][index] for index in range(60)]


def drawn(index: int) -> tuple[int, int]:
    """The two labels of a training image, by their own streams."""
    streams = (stream(0, "train", index, p) for p in (chance.MIXED_PARTS, chance.MIXED_COATS))
    first, second = (int(rng.integers(16)) for rng in streams)
    return first, second


def test_defaults(datasets):
    for dataset, name in zip(datasets, ("creatures-parts", "creatures-coats"), strict=True):
        assert (dataset.name, dataset.image_size, len(dataset.classes)) == (name, 84, 16)
        assert len(set(dataset.classes)) == 16
        assert [len(load_dataset(name, split)) for split in SPLITS] == [20_000, 2_000, 2_000, 2_000]
        assert dataset[3].path == f"{name}/train/3?seed=0"


def test_both_data_sets_hold_the_same_images(datasets, samples):
    parts, coats = datasets
    for index in range(20):
        other = coats[index]
        assert torch.equal(samples[index].image, other.image)
        assert torch.equal(samples[index].masks, other.masks)
        assert samples[index].mask_names == other.mask_names
        assert torch.equal(parts.background(index), coats.background(index))
        assert (samples[index].label, other.label) == drawn(index)


def test_wide_poses_change_the_pose_alone(samples):
    wide = load_dataset("creatures-parts-wide", "train", limit=60)
    assert wide.classes == load_dataset("creatures-parts").classes
    heads = []
    for index in range(20):
        one, other = samples[index], wide[index]
        assert one.label == other.label and not torch.equal(one.image, other.image)
        heads.append([top_of(sample, "head") for sample in (one, other)])
    spread = np.array(heads).std(0)
    assert spread[1] > spread[0]


def top_of(sample, part: str) -> float:
    """Where a part begins, from the top of the animal, in animals' heights."""
    rows = [mask.any(1).nonzero().flatten() for mask in sample.masks]
    whole, own = rows[0], rows[sample.mask_names.index(part)]
    return float((own[0] - whole[0]) / (whole[-1] - whole[0]))


def test_an_item_depends_on_seed_split_and_index_only(samples):
    longer = load_dataset("creatures-parts", "train", limit=3_000)
    longer[6]
    assert torch.equal(longer[5].image, samples[5].image)
    for other in (
        longer[6],
        load_dataset("creatures-parts", "train", seed=1)[5],
        load_dataset("creatures-parts", "dev")[5],
    ):
        assert not torch.equal(other.image, samples[5].image)


def test_no_stream_is_shared():
    numbers = [
        stream(0, split, index, purpose).random(50)
        for split in SPLITS
        for index in range(10)
        for purpose in (chance.STAGE, chance.ANIMALS, chance.EXOTIC_STAGE, *PURPOSES)
    ]
    assert len(np.unique(np.concatenate(numbers))) == 50 * len(numbers)


def test_bits_say_which_variant_of_each_part_a_class_has(datasets):
    parts = datasets[0]
    assert parts.parts == ("ears", "legs", "tail", "muzzle")
    assert parts.bits.shape == (16, 4)
    assert len({tuple(row) for row in parts.bits.tolist()}) == 16
    assert (parts.bits.sum(0) == 8).all()
    for name, bits in zip(parts.classes, parts.bits.tolist(), strict=True):
        for word, part, bit in zip(name.split(), parts.parts, bits, strict=True):
            assert word == f"{mixtures.VARIANTS[part][bit]}-{part}"


def test_labels_are_drawn_evenly_and_independently():
    labels = np.array([drawn(index) for index in range(8_000)])
    for column in labels.T:
        counts = np.bincount(column, minlength=16)
        assert ((counts - 500) ** 2 / 500).sum() < 37.7  # chi squared, 15 degrees, p = 0.001
    joint = np.histogram2d(*labels.T, bins=16)[0]
    expected = np.outer(joint.sum(1), joint.sum(0)) / len(labels)
    assert ((joint - expected) ** 2 / expected).sum() < 295.0  # 225 degrees, p = 0.001


def test_a_change_of_parts_or_coat_changes_nothing_else(datasets):
    """By construction: pose, place, stage and fur do not know the labels."""
    dataset = datasets[0]
    for index in range(4):
        seen = [dataset.with_classes(index, parts, 5) for parts in range(16)]
        assert [one.label for one in seen] == list(range(16))
        bits = dataset.bits
        for first, second in combinations(range(16), 2):
            differs = (seen[first].image != seen[second].image).any(0)
            assert differs.any()
            same_parts = bits[first] == bits[second]
            for part, same in zip(dataset.parts, same_parts.tolist(), strict=True):
                if same or part == "muzzle":
                    continue
                a, b = (
                    one.masks[one.mask_names.index(part)] if part in one.mask_names else None
                    for one in (seen[first], seen[second])
                )
                assert a is None or b is None or not torch.equal(a, b)
        plain = dataset.with_classes(index, 0, 0)
        for coat in range(1, 16):
            other = dataset.with_classes(index, 0, coat)
            assert torch.equal(plain.masks, other.masks)
            assert not torch.equal(plain.image, other.image)
            painted = (plain.image != dataset.background(index)).any(0)
            brim = max_pool2d(painted[None].float(), 3, 1, 1)[0] > 0  # a trace is rounded away
            assert not ((plain.image != other.image).any(0) & ~brim).any()


def test_a_class_that_is_not_there_is_refused(datasets):
    for parts, coat in ((16, 0), (-1, 0), (0, 16), (0, -1)):
        with pytest.raises(IndexError, match="16 classes"):
            datasets[0].with_classes(0, parts, coat)


def test_parts_make_up_the_animal_and_the_muzzle_is_of_the_head(samples):
    for sample in samples:
        names = sample.mask_names
        assert names[0] == "animal"
        parts = [place for place, whole in enumerate(sample.part_of) if whole == 0]
        assert [names[place] for place in parts] == [n for n in PARTS if n in names]
        assert torch.equal(sample.masks[parts].sum(0), sample.masks[0].long())
        muzzle = names.index("muzzle")
        head = sample.part_of[muzzle]
        assert head is not None and names[head] == "head"
        assert not (sample.masks[muzzle] & ~sample.masks[head]).any()
        assert 0.05 < sample.masks[muzzle].sum() / sample.masks[head].sum() < 0.8


def test_animals_are_large_whole_and_all_over_the_place(samples):
    shares = torch.stack([sample.masks[0].float().mean() for sample in samples])
    assert 0.20 <= shares.mean() <= 0.27
    assert shares.min() >= 0.12
    assert shares.max() <= 0.36
    assert all({"legs", "ears", "tail", "muzzle"} <= set(sample.mask_names) for sample in samples)
    ears = torch.stack([s.masks[s.mask_names.index("ears")].float() for s in samples]).mean(0)
    assert ears.max() < 0.3  # no place has ears in more than three images of ten


def features(image: torch.Tensor) -> np.ndarray:
    """An image of 12 x 12, and how its colours are spread."""
    image = image.numpy() / 255
    small = image.reshape(3, 12, 3, 12, 3).mean((2, 4)).ravel()
    flat = image.reshape(3, -1)
    histograms = [np.histogram(channel, 8, (0, 1))[0] / len(channel) for channel in flat]
    return np.concatenate([small, flat.mean(1), flat.std(1), np.cov(flat).ravel(), *histograms])


def test_labels_cannot_be_told_without_the_animal():
    """Nor the parts by the coat: what tells a coat at once tells no part."""
    n_train, n_test = 600, 300
    dataset = load_dataset("creatures-parts", "train", image_size=36)
    labels = np.array([drawn(index) for index in range(n_train + n_test)])
    bits = dataset.bits.numpy()[labels[:, 0]]
    backgrounds, images = (
        np.stack([features(show(index)) for index in range(n_train + n_test)])
        for show in (dataset.background, lambda index: dataset[index].image)
    )

    def accuracy(x: np.ndarray, y: np.ndarray) -> float:
        x = StandardScaler().fit(x[:n_train]).transform(x)
        with threadpool_limits(1):
            return RidgeClassifier(alpha=300).fit(x[:n_train], y[:n_train]).score(
                x[n_train:], y[n_train:]
            )  # fmt: skip

    def margin(share: float) -> float:
        return 3.3 * np.sqrt(share * (1 - share) / n_test)  # two-sided, p = 0.001

    for y, share in ((labels[:, 0], 1 / 16), (labels[:, 1], 1 / 16), *((b, 0.5) for b in bits.T)):
        assert abs(accuracy(backgrounds, y) - share) < margin(share)
    assert accuracy(images, labels[:, 1]) > 1 / 16 + 3 * margin(1 / 16)
    coats = np.eye(16)[labels[:, 1]]
    for bit in bits.T:
        assert abs(accuracy(coats, bit) - 0.5) < margin(0.5)
