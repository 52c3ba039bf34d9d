"""A disc that is seen in the image, and masks of it as coarse patches."""

import sys

import pytest
import torch

from crate_analysis.segmentation import head_iou, patch_ceiling, refine_masks, to_pixels

SIZE = 60


@pytest.fixture(scope="module")
def disc():
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (rows - 31) ** 2 + (columns - 27) ** 2 < 19**2


@pytest.fixture(scope="module")
def picture(disc):
    colours = torch.tensor([[40, 90, 40], [200, 120, 60]])[disc.long()].permute(2, 0, 1)
    return (colours + torch.randint(-3, 4, (3, SIZE, SIZE))).to(torch.uint8)


def iou(a, b):
    return head_iou(a[None, None], b[None, None]).item()


def test_a_coarse_mask_moves_to_the_edge(disc, picture):
    pytest.importorskip("pydensecrf", reason="optional: pip install 'crate-analysis[crf]'")
    coarse = to_pixels(patch_ceiling(disc[None, None], 12)[0], SIZE, SIZE)[0]
    before = iou(coarse, disc)
    [refined] = refine_masks(coarse[None], picture)
    assert before < 0.9 < 0.97 < iou(refined, disc)


def test_a_mask_that_is_refined_away_is_kept(disc, picture):
    pytest.importorskip("pydensecrf", reason="optional: pip install 'crate-analysis[crf]'")
    speck = torch.zeros_like(disc)
    speck[30:32, 26:28] = True
    assert torch.equal(refine_masks(speck[None], picture), speck[None])
    nothing = torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    assert refine_masks(nothing, picture).shape == (0, SIZE, SIZE)


def test_without_the_extra_the_remedy_is_named(disc, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'crate-analysis\[crf\]'"):
        refine_masks(disc[None], picture)
