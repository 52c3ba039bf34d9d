"""Noise: on the right pixels, of the right size, and the same for all who look."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from crate_analysis import load_dataset
from crate_analysis.datasets.noise import Noise, NoisyImages, add_noise, gaussian_noise
from crate_analysis.datasets.sample import UnreadableSampleError

GREY = torch.full((2, 3, 40, 50), 128, dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_just_the_share_of_the_pixels_is_drawn_anew_in_each_picture():
    noise = gaussian_noise((2, 3, 40, 50), 0.3, 5.0, generator())
    hit = noise != 0
    assert hit.any(1).flatten(1).sum(1).tolist() == [600, 600]
    assert torch.equal(hit.any(1), hit.all(1))  # the channels of a pixel together
    assert not torch.equal(hit[0], hit[1])


def test_noise_is_gaussian_of_the_given_deviation_in_each_channel_by_itself():
    noise = gaussian_noise((1, 3, 300, 300), 0.5, 20.0, generator())[0].flatten(1)
    values = noise[:, noise[0] != 0].double()  # 45,000 pixels: means to about 0.1
    torch.testing.assert_close(values.mean(1), torch.zeros(3).double(), atol=0.4, rtol=0)
    torch.testing.assert_close(values.std(1), torch.full((3,), 20.0).double(), atol=0.3, rtol=0)
    within = (values.abs() < 20).double().mean()
    assert within.item() == pytest.approx(math.erf(2**-0.5), abs=0.01)
    correlations = values.corrcoef() - torch.eye(3)
    assert correlations.abs().max() < 0.02


def test_noise_is_added_rounded_and_cut():
    noise = gaussian_noise((2, 3, 40, 50), 0.5, 90.0, generator())
    noisy = add_noise(GREY, 0.5, 90.0, generator())
    expected = [min(max(round(128 + value), 0), 255) for value in noise.flatten().tolist()]
    assert noisy.flatten().tolist() == expected
    assert noisy.min() == 0 and noisy.max() == 255


def test_nothing_is_left_alone_and_everything_is_hit():
    assert torch.equal(add_noise(GREY, 0.0, 50.0, generator()), GREY)
    assert torch.equal(add_noise(GREY, 0.5, 0.0, generator()), GREY)
    assert (gaussian_noise((1, 3, 8, 8), 1.0, 1.0, generator()) != 0).all()


def test_stronger_noise_is_the_same_noise_made_larger():
    shape = (2, 3, 40, 50)
    weak, strong, wide = (
        gaussian_noise(shape, share, sd, generator())
        for share, sd in ((0.25, 10.0), (0.25, 50.0), (0.75, 10.0))
    )
    torch.testing.assert_close(5 * weak, strong)
    torch.testing.assert_close(wide.where(weak != 0, 0), weak)
    assert not torch.equal(weak, gaussian_noise(shape, 0.25, 10.0, generator(1)))


@pytest.mark.parametrize(
    ("share", "sd", "message"),
    [
        (50.0, 10.0, r"share=50.0 must lie in \[0, 1\]; 0.5 is half"),
        (-0.1, 10.0, "share=-0.1"),
        (0.5, -1.0, "sd=-1.0 must be a finite number of grey levels"),
        (0.5, math.inf, "sd=inf"),
        (math.nan, 1.0, "share=nan"),
    ],
)
def test_unfit_noise_is_refused(share, sd, message):
    with pytest.raises(ValueError, match=message):
        add_noise(GREY, share, sd, generator())
    with pytest.raises(ValueError, match=message):
        NoisyImages(load_dataset("creatures", "dev", 24, limit=1), [Noise(share, sd)])


def test_normalised_pictures_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"images are torch.float32, but noise is in grey levels"):
        add_noise(GREY.float(), 0.5, 10.0, generator())


LEVELS = [Noise(0.0, 0.0), Noise(0.5, 75.0), Noise(0.5, 75.0, "objects"),
          Noise(0.5, 75.0, "background")]  # fmt: skip


@pytest.fixture
def pictures():
    return load_dataset("creatures", "dev", 24, limit=3)


def test_levels_of_a_picture_follow_each_other(pictures):
    noisy = NoisyImages(pictures, LEVELS)
    assert len(noisy) == 12
    for index in range(3):
        clean = pictures[index]
        same, everywhere, objects, background = (noisy[4 * index + level] for level in range(4))
        assert torch.equal(same.image, clean.image)
        assert (everywhere.path, everywhere.label) == (clean.path, clean.label)
        animal = clean.masks[0]
        assert torch.equal(objects.image, everywhere.image.where(animal, clean.image))
        assert torch.equal(background.image, clean.image.where(animal, everywhere.image))
        assert not torch.equal(objects.image, clean.image)


def test_undecided_pixels_are_neither_object_nor_background(pictures, monkeypatch):
    void = torch.arange(24).expand(24, 24) % 2 == 0
    original = type(pictures).__getitem__
    monkeypatch.setattr(
        type(pictures), "__getitem__", lambda self, i: replace(original(self, i), void=void)
    )
    everywhere, objects, background = (
        NoisyImages(pictures, [Noise(1.0, 75.0, where)])[0].image
        for where in ("everywhere", "objects", "background")
    )
    clean, animal = pictures[0].image, pictures[0].masks[0]
    assert (animal & void).any() and not torch.equal(everywhere[:, void], clean[:, void])
    assert torch.equal(objects, everywhere.where(animal & ~void, clean))
    assert torch.equal(background, everywhere.where(~animal & ~void, clean))


def test_a_pictures_noise_does_not_depend_on_who_looks(pictures):
    noisy = NoisyImages(pictures, LEVELS)
    backwards = [noisy[index].image for index in reversed(range(12))][::-1]
    other = NoisyImages(load_dataset("creatures", "dev", 24, limit=2), LEVELS[1:2])
    assert torch.equal(backwards[5], other[1].image)
    assert torch.equal(backwards[5], noisy[5].image)
    assert not torch.equal(NoisyImages(pictures, LEVELS, seed=1)[5].image, noisy[5].image)
    changes = [noisy[4 * k + 1].image.int() - pictures[k].image.int() for k in (0, 1)]
    assert not torch.equal(changes[0] != 0, changes[1] != 0)


def test_a_picture_is_drawn_once_for_all_its_levels(pictures, monkeypatch):
    drawn = []
    original = type(pictures).__getitem__
    monkeypatch.setattr(
        type(pictures), "__getitem__", lambda self, i: drawn.append(i) or original(self, i)
    )
    noisy = NoisyImages(pictures, LEVELS)
    for index in range(12):
        noisy[index]
    assert drawn == [0, 1, 2]


def test_wrong_levels(pictures, tmp_path, unchecked):
    with pytest.raises(ValueError, match="levels is empty"):
        NoisyImages(pictures, [])
    with pytest.raises(ValueError, match="where='sky' is not one of everywhere, objects"):
        NoisyImages(pictures, [Noise(0.5, 10.0, "sky")])
    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    photographs = NoisyImages(load_dataset(f"folder:{tmp_path}"), LEVELS)
    assert photographs[1].image.shape == (3, 24, 24)
    with pytest.raises(UnreadableSampleError, match=r"a.png has no masks, which noise on objects"):
        photographs[2]  # as COCO has some: a run over the others goes on
