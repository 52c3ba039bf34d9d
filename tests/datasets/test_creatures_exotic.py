"""The second family: nothing of the first one in it, and the same exact truth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from crate_analysis.datasets import export_voc, load_dataset
from crate_analysis.datasets.creatures import PARTS, SPLITS, chance, exotic, species
from crate_analysis.datasets.creatures.chance import stream
from crate_analysis.datasets.creatures.coat import draw_coat

FACTORS = ("plan", "pattern", "palette")


@pytest.fixture(scope="module")
def samples():
    dataset = load_dataset("creatures-exotic", image_size=64, limit=120)
    return [dataset[index] for index in range(120)]


def test_defaults():
    dataset = load_dataset("creatures-exotic")
    assert (dataset.name, dataset.split, dataset.image_size) == ("creatures-exotic", "val", 96)
    assert [len(load_dataset("creatures-exotic", split)) for split in SPLITS] == [
        20_000, 2_000, 2_000, 2_000,
    ]  # fmt: skip
    assert dataset.classes == tuple(one.name for one in exotic.SPECIES)
    assert dataset[5].path == "creatures-exotic/val/5?seed=0"


def test_an_item_depends_on_seed_split_and_index_only():
    first = load_dataset("creatures-exotic", image_size=48)[5]
    longer = load_dataset("creatures-exotic", image_size=48, limit=3_000)
    longer[6]
    assert torch.equal(longer[5].image, first.image)
    assert torch.equal(longer[5].masks, first.masks)
    for other in (
        longer[6],
        load_dataset("creatures-exotic", image_size=48, seed=1)[5],
        load_dataset("creatures-exotic", "train", image_size=48)[5],
    ):
        assert not torch.equal(other.image, first.image)


def test_the_first_family_is_as_it_was_before_there_was_a_second():
    """Shipped models were trained on it, and the book's numbers are of it."""
    dataset = load_dataset("creatures", image_size=48)
    assert [dataset[index].label for index in range(8)] == [4, 8, 0, 9, 2, 9, 8, 9]
    for index, mean in ((0, [159.1, 160.1, 134.8]), (7, [196.3, 208.6, 220.1])):
        seen = dataset[index].image.float().mean((1, 2))
        assert torch.allclose(seen, torch.tensor(mean), atol=0.06)  # rounding may differ


def test_no_stream_is_shared_with_another_split_or_the_first_family():
    numbers = [
        stream(0, split, index, purpose).random(50)
        for split in SPLITS
        for index in range(20)
        for purpose in (
            chance.STAGE, chance.ANIMALS, chance.PLACES, chance.EXOTIC_STAGE, chance.EXOTIC_ANIMALS,
        )
    ]  # fmt: skip
    assert len(np.unique(np.concatenate(numbers))) == 50 * len(numbers)


def test_no_background_or_picture_is_of_the_first_family_or_another_split():
    pictures = [
        show(index).numpy().tobytes()
        for spec in ("creatures", "creatures-exotic")
        for split in SPLITS
        for dataset in [load_dataset(spec, split, image_size=24)]
        for show in (dataset.background, lambda index, dataset=dataset: dataset[index].image)
        for index in range(20)
    ]
    assert len(set(pictures)) == len(pictures)


def test_parts_are_disjoint_and_make_up_the_animal(samples):
    for sample in samples:
        assert sample.mask_names[0] == "animal"
        assert list(sample.mask_names[1:]) == [n for n in PARTS if n in sample.mask_names]
        assert {"body", "head", "legs", "ears"} <= set(sample.mask_names)
        assert sample.masks.flatten(1).any(1).all()
        assert torch.equal(sample.masks[1:].sum(0), sample.masks[0].long())


def test_outside_its_mask_the_picture_is_its_background(samples):
    dataset = load_dataset("creatures-exotic", image_size=64)
    for index in range(30):
        mask = samples[index].masks[0]
        near = torch.nn.functional.max_pool2d(mask[None].float(), 5, 1, 2)[0] > 0
        same = (dataset.background(index) == samples[index].image).all(0)
        assert same[~near].all()
        assert same[mask].float().mean() < 0.05


def test_animals_cover_a_fair_share_wherever_they_stand(samples):
    shares = torch.stack([sample.masks[0].float().mean() for sample in samples])
    assert 0.11 <= shares.mean() <= 0.18
    assert shares.min() >= 0.05
    assert shares.max() <= 0.35


def test_species_are_drawn_evenly():
    labels = [
        int(stream(0, "train", index, chance.EXOTIC_ANIMALS).integers(len(exotic.SPECIES)))
        for index in range(6_000)
    ]
    counts = np.bincount(labels, minlength=12)
    assert ((counts - 500) ** 2 / 500).sum() < 31.3  # chi squared, 11 degrees, p = 0.001
    dataset = load_dataset("creatures-exotic", "train", image_size=8)
    assert [dataset[index].label for index in range(20)] == labels[:20]


@pytest.mark.parametrize("factor", FACTORS)
def test_no_factor_suffices_and_none_can_be_left_out(factor):
    assert min(Counter(getattr(one, factor) for one in exotic.SPECIES).values()) >= 2
    others = [other for other in FACTORS if other != factor]
    rest = Counter(tuple(getattr(one, other) for other in others) for one in exotic.SPECIES)
    assert max(rest.values()) >= 2


def test_species_are_distinct_and_use_all_that_there_is():
    assert len({tuple(getattr(one, f) for f in FACTORS) for one in exotic.SPECIES}) == 12
    assert len({one.name for one in exotic.SPECIES}) == 12
    assert {one.plan for one in exotic.SPECIES} == set(exotic.PLANS)
    assert {one.palette for one in exotic.SPECIES} == set(exotic.PALETTES)


@pytest.mark.parametrize("trait", ["name", *FACTORS])
def test_nothing_of_the_first_family_comes_back(trait):
    first, second = (
        {getattr(one, trait) for one in family} for family in (species.SPECIES, exotic.SPECIES)
    )
    assert not first & second


def test_plans_and_palettes_are_new_by_value_too():
    assert not set(exotic.PLANS.values()) & set(species.PLANS.values())
    assert not set(exotic.PALETTES.values()) & set(species.PALETTES.values())


@pytest.mark.parametrize("pattern", sorted({one.pattern for one in exotic.SPECIES}))
def test_each_pattern_marks_a_fair_share_of_the_body(pattern):
    """Neither nothing nor all, on each plan that wears it."""
    for one in exotic.SPECIES:
        if one.pattern != pattern:
            continue
        coat = draw_coat(one, np.random.default_rng(0))
        joints = np.array(exotic.PLANS[one.plan].trunk)
        low, high = joints[:, :2].min(0) - 0.1, joints[:, :2].max(0) + 0.1
        xs, ys = (np.linspace(low[k], high[k], 80, dtype=np.float32) for k in (0, 1))
        flat = np.zeros((80, 80), np.float32)
        marks = coat.marks("body", xs, ys, flat, flat)
        assert marks.min() >= 0 and marks.max() <= 1
        assert 0.1 < marks.mean() < 0.7


def test_exports_read_back(tmp_path):
    dataset = load_dataset("creatures-exotic", "val", image_size=48, limit=3)
    export_voc(dataset, tmp_path, image_format="png", progress=False)
    for one, copy in zip(dataset, load_dataset(f"voc:{tmp_path}", "val"), strict=True):
        assert torch.equal(one.image, copy.image)
        assert torch.equal(one.masks[0], copy.masks[0])
        assert copy.mask_names == (dataset.classes[one.label],)
