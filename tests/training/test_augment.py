"""Views of images whose brightness tells what became of them."""

import sys
from itertools import pairwise

import pytest
import torch

from crate_analysis.training.augment import BLOCK, MultiCrop

SIZE = 48


def views(images, n_local=2, seed=0, start=0, jitter=0.0):
    draw = MultiCrop(SIZE, SIZE // 2, n_local, jitter=jitter)
    return draw(images, start, lambda block: seed + block)


def ramp(n, axis):
    """Images whose value is 5 times the row or column; grey, so greyscale changes nothing."""
    values = 5 * torch.arange(SIZE, dtype=torch.uint8)
    picture = values[:, None] if axis == 0 else values[None, :]
    return picture.expand(n, 3, SIZE, SIZE)


def test_crops_have_their_sizes_and_number():
    large, small = views(torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8), n_local=3)
    assert large.shape == (2, 5, 3, 48, 48)
    assert small.shape == (3, 5, 3, 24, 24)
    assert large.dtype == small.dtype == torch.uint8


def slope(crops):
    """Of a ramp that was cropped, in units of its own: the share of the image's side, signed."""
    size = crops.shape[-1]
    inner = crops[:, :, 0].float()[..., 4:-4, 4:-4]  # blur bends the ramp at the border
    across = (inner[..., -1] - inner[..., 0]).mean(-1)
    return across / (size - 9) * (size - 1) / (5 * (SIZE - 1))


def test_crops_show_the_shares_of_the_picture_that_were_asked_for():
    n = 8 * BLOCK
    columns, rows = views(ramp(n, axis=1)), views(ramp(n, axis=0))
    wide = [slope(columns.global_crops[:1]), slope(columns.local_crops)]
    high = [slope(crops.mT) for crops in (rows.global_crops[:1], rows.local_crops)]
    large, small = ((w * h).abs() for w, h in zip(wide, high, strict=True))
    assert 0.38 < large.min() < 0.5 and 0.9 < large.max() < 1.02
    assert 0.08 < small.min() < 0.15 and 0.35 < small.max() < 0.42


def test_half_the_crops_are_mirrored_and_none_is_upside_down():
    n = 16 * BLOCK
    for crops in views(ramp(n, axis=1)):
        assert 0.4 < (slope(crops[:1]) < 0).float().mean() < 0.6
    assert (slope(views(ramp(n, axis=0)).local_crops.mT) > 0).all()


def test_a_fifth_loses_its_colour_and_a_fifth_of_the_second_global_crops_is_solarised():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    crops = views(red.expand(16 * BLOCK, 3, SIZE, SIZE))
    pixels = [crops.global_crops[:1], crops.global_crops[1:], crops.local_crops]
    first, second, local = (part[..., 8, 8].flatten(0, 1).int() for part in pixels)
    for colours in (first, second, local):
        grey = (colours[:, 0] == colours[:, 1]).float().mean()
        assert 0.12 < grey < 0.28 + 0.1 * (colours is second)  # solarised red is black, so grey
    black = [(colours.sum(1) == 0).float().mean() for colours in (first, second, local)]
    assert black[0] == black[2] == 0
    assert 0.1 < black[1] < 0.26


def test_the_first_global_crop_is_always_blurred_and_the_second_seldom():
    noise = torch.randint(0, 256, (2 * BLOCK, 3, SIZE, SIZE), generator=torch.manual_seed(0))
    crops = views(noise.to(torch.uint8)).global_crops.float()
    roughness = crops.diff(dim=-1).abs().mean((-3, -2, -1)).median(-1).values
    assert roughness[0] < 0.8 * roughness[1]


def test_jitter_changes_colours_by_its_strength():
    green = torch.tensor([60, 120, 60], dtype=torch.uint8)[:, None, None]
    images = green.expand(4 * BLOCK, 3, SIZE, SIZE)
    moved = [
        (views(images, jitter=jitter).local_crops[..., 8, 8].float() - green[:, 0, 0]).abs().mean()
        for jitter in (0.0, 0.3, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("bounds", [(0, 16, 40), (0, 5, 37, 40), (0, 39, 40)])
def test_views_do_not_depend_on_how_a_batch_is_divided(bounds):
    images = torch.randint(0, 256, (40, 3, SIZE, SIZE), generator=torch.manual_seed(0))
    images = images.to(torch.uint8)
    whole = views(images, jitter=1.0)
    parts = [views(images[first:last], start=first, jitter=1.0) for first, last in pairwise(bounds)]
    for kind, crops in enumerate(whole):
        assert torch.equal(torch.cat([part[kind] for part in parts], dim=1), crops)


def test_blocks_and_seeds_draw_differently_and_the_global_state_is_left_alone():
    same = torch.randint(0, 256, (3, SIZE, SIZE), generator=torch.manual_seed(0)).to(torch.uint8)
    images = same.expand(2 * BLOCK, 3, SIZE, SIZE)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    crops = views(images).local_crops
    assert torch.equal(torch.rand(1), expected)
    assert len(crops.flatten(0, 1).flatten(1).unique(dim=0)) == crops[:, :, 0, 0, 0].numel()
    assert not torch.equal(crops, views(images, seed=9).local_crops)


def test_a_missing_kornia_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'crate-analysis\[dino\]'"):
        MultiCrop(48, 24, 2)
