"""Planted components, masks and colours come out; degenerate features have a stated outcome."""

import pytest
import torch

from crate_analysis.probes import component_auc, pca_rgb, pca_scores
from crate_analysis.probes.pca import otsu_threshold

GRID = (6, 6)


def plane(rows, columns, grid=GRID):
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[rows, columns] = True
    return mask.flatten()


INSIDE = plane(slice(1, 5), slice(1, 5))
BLOB = torch.stack([plane(slice(1, 3), slice(1, 4)), plane(slice(2, 5), slice(2, 4))])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def planted(rng):
    """Two images: an animal of two parts before one background, all of them constant vectors."""
    background, part, other = torch.randn(3, 8, generator=rng)
    part, other = 4 * part, 4 * part + other  # parts are alike beside the background
    features = background.expand(2, 36, 8).clone()
    left = plane(slice(None), slice(0, 3))
    features[BLOB & left] = part
    features[BLOB & ~left] = other
    return features, left


def test_the_first_component_is_the_direction_of_the_clusters():
    direction = torch.tensor([0.6, 0.8, 0.0])
    features = torch.where(BLOB[..., None], 3.0, -1.0) * direction + 5
    scores = pca_scores(features, GRID, 2)
    assert scores.shape == (2, 36, 2)
    share = BLOB.double().mean()  # the clusters are 4 apart, and the scores are centred
    torch.testing.assert_close(
        scores[..., 0], torch.where(BLOB, 4 * (1 - share), -4 * share).float()
    )
    assert (scores[..., 1] == 0).all()  # features of rank one have no second component


def test_scores_are_uncorrelated_and_in_order_of_variance(rng):
    features = torch.randn(3, 36, 5, generator=rng) * torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0])
    scores = pca_scores(features, GRID, 5).flatten(0, 1).double()
    covariance = scores.T.cov()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-4, rtol=0)
    assert (covariance.diag().diff() < 0).all()
    total = features.flatten(0, 1).var(0).sum()
    torch.testing.assert_close(covariance.diag().sum().float(), total, rtol=1e-4, atol=0)


def test_one_pca_serves_all_pictures():
    one = torch.where(BLOB[:1, :, None], 2.0, 0.0) * torch.tensor([1.0, 0.0])
    other = one + torch.tensor([0.0, 50.0])  # how images differ counts, too
    scores = pca_scores(torch.cat([one, other]), GRID, 2)
    torch.testing.assert_close(scores[0, :, 0] - scores[1, :, 0], torch.full((36,), -50.0).abs())
    torch.testing.assert_close(scores[0, :, 1], scores[1, :, 1])


def test_signs_do_not_depend_on_the_sign_or_the_basis_of_the_features(rng):
    features = torch.randn(2, 36, 4, generator=rng) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    scores = pca_scores(features, GRID, 4)
    torch.testing.assert_close(pca_scores(-features, GRID, 4), scores, atol=1e-4, rtol=0)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=rng))[0]
    rotated = pca_scores(features @ rotation, GRID, 4)
    torch.testing.assert_close(rotated, scores, atol=1e-4, rtol=0)
    for foreground in (True, False):
        torch.testing.assert_close(
            pca_rgb(-features, GRID, foreground=foreground),
            pca_rgb(features @ rotation, GRID, foreground=foreground),
            atol=1e-4, rtol=0, equal_nan=True,
        )  # fmt: skip


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_border_scores_low(sign):
    first = torch.where(INSIDE, 1.0, -1.0)
    features = sign * first[None, :, None] * torch.tensor([1.0, 1.0])
    assert (pca_scores(features, GRID, 1)[0, INSIDE] > 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_skewness_settles_what_the_border_cannot(sign):
    features = torch.zeros(1, 36, 2)
    features[0, plane(5, 5)], features[0, plane(5, 4)] = 1.0, 0.25
    features[0, plane(1, 1)] = 1.0
    border, inside = features[0, ~INSIDE, 0].mean(), features[0, INSIDE, 0].mean()
    assert border == inside == 1 / 16  # 1.25 of 20 patches and 1 of 16: the border says nothing
    assert pca_scores(sign * features, GRID, 1)[0, -1, 0] > 0  # the long tail, not the first patch


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_patch_settles_what_skewness_cannot(sign):
    features = torch.tensor([[1.0, 1.0, -1.0, -1.0]])[..., None]  # all on the border
    features = features.expand(1, 4, 2)
    scores = pca_scores(sign * features, (2, 2), 1)
    torch.testing.assert_close(scores[0, :, 0] > 0, torch.tensor([True, True, False, False]))


def test_the_planted_mask_and_parts_are_found(planted):
    features, left = planted
    rgb = pca_rgb(features, GRID).flatten(1, 2)
    assert rgb.shape == (2, 36, 3)
    assert torch.equal(~rgb.isnan().any(-1), BLOB)
    colours = {name: rgb[BLOB & side] for name, side in (("left", left), ("right", ~left))}
    for patches in colours.values():  # one colour a part
        torch.testing.assert_close(patches, patches[:1].expand_as(patches))
    one, other = colours["left"][0], colours["right"][0]
    assert {float(one[0]), float(other[0])} == {0.0, 1.0}
    # the foreground is of rank one: there are no other components to be seen
    torch.testing.assert_close(torch.stack([one, other])[:, 1:], torch.full((2, 2), 0.5))


def test_foreground_colours_come_from_a_pca_of_the_foreground():
    features = torch.zeros(1, 36, 3)
    features[0, INSIDE, 0] = 10.0
    features[0, ~INSIDE, 1] = torch.linspace(-5, 5, 20)  # the background varies most, its own way
    features[0, INSIDE, 2] = torch.linspace(0, 1, 16)
    rgb = pca_rgb(features, GRID).flatten(1, 2)[0, INSIDE]
    order = rgb[:, 0].diff()
    assert (order >= 0).all() or (order <= 0).all()
    assert rgb[:, 0].max() == 1 and rgb[:, 0].min() == 0


def test_the_background_is_kept_where_it_is_asked_for(planted):
    features, _ = planted
    scores = pca_scores(features, GRID, 2)
    grey = pca_rgb(features, GRID, components=(0, 0, 0), foreground=False).flatten(1, 2)
    assert torch.equal(grey[..., 0], grey[..., 2])
    assert grey.min() == 0 and grey.max() == 1 and (grey[~BLOB] < grey[BLOB].min()).all()
    swapped = pca_rgb(features, GRID, components=(1, 0, 1), foreground=False).flatten(1, 2)
    torch.testing.assert_close(swapped[..., 1], grey[..., 0])
    low, high = scores[..., 1].min(), scores[..., 1].max()
    torch.testing.assert_close(swapped[..., 0], (scores[..., 1] - low) / (high - low))


def test_the_scale_is_robust():
    features = torch.zeros(1, 100, 1)
    features[0, :, 0] = torch.arange(100) / 99
    features[0, 50] = 1e6
    grey = pca_rgb(features, (10, 10), components=(0, 0, 0), foreground=False)
    assert 0.2 < grey.median() < 0.8


def test_a_given_threshold(planted):
    features, left = planted
    first = pca_scores(features, GRID, 1)[..., 0]
    between = first[BLOB].unique().mean().item()
    shown = ~pca_rgb(features, GRID, threshold=between)[..., 0].isnan().flatten(1)
    assert torch.equal(shown, first > between)
    assert any(torch.equal(shown, BLOB & side) for side in (left, ~left))
    with pytest.raises(ValueError, match=r"threshold=1e\+06, so no foreground is left; scores rea"):
        pca_rgb(features, GRID, threshold=1e6)


def test_a_picture_without_foreground_is_blank(planted):
    features, _ = planted
    features[1] = features[0, 0]
    rgb = pca_rgb(features, GRID)
    assert rgb[1].isnan().all() and not rgb[0].isnan().all()


def test_a_single_picture_and_a_single_foreground_patch():
    features = torch.zeros(1, 36, 4)
    features[0, plane(2, 2)] = 1.0
    rgb = pca_rgb(features, GRID)
    torch.testing.assert_close(rgb[0, 2, 2], torch.full((3,), 0.5))  # nothing to compare it with
    assert rgb.isnan().sum() == 3 * 35


def test_features_of_a_forward_pass_in_inference_mode_serve():
    with torch.inference_mode():
        features = torch.randn(1, 36, 4)
    assert pca_rgb(features, GRID).shape == (1, 6, 6, 3)


@pytest.mark.parametrize("call", [lambda f, g: pca_scores(f, g, 1), pca_rgb])
def test_features_that_have_no_components(call, rng):
    features = torch.randn(2, 36, 4, generator=rng)
    with pytest.raises(ValueError, match=r"features have 36 patches, but grid=\(6, 5\) has 30"):
        call(features, (6, 5))
    with pytest.raises(ValueError, match="the same in all patches"):
        call(torch.full((2, 36, 4), 1 / 3), GRID)
    for wrong in (torch.nan, torch.inf):
        features[1, 2, 3] = wrong
        with pytest.raises(ValueError, match="NaN or infinite"):
            call(features, GRID)


def test_components_that_are_not_there(rng):
    features = torch.randn(1, 4, 9, generator=rng)
    assert pca_scores(features, (2, 2), 3).shape == (1, 4, 3)
    with pytest.raises(ValueError, match="4 components were asked for, but 1 x 4 patches with 9"):
        pca_scores(features, (2, 2), 4)
    with pytest.raises(ValueError, match="0 components"):
        pca_scores(features, (2, 2), 0)
    with pytest.raises(ValueError, match=r"4 components .* with 3 features have 1 to 3"):
        pca_rgb(torch.randn(1, 36, 3), GRID, components=(0, 1, 3))
    with pytest.raises(ValueError, match=r"components=\(-1, 0, 1\) must be three"):
        pca_rgb(features, (2, 2), components=(-1, 0, 1))


@pytest.mark.usefixtures("unchecked")
def test_components_must_be_three():
    with pytest.raises(ValueError, match=r"components=\(0, 1\) must be three"):
        pca_rgb(torch.randn(1, 36, 3), GRID, components=(0, 1))


def test_otsu_cuts_where_the_groups_part():
    assert otsu_threshold(torch.tensor([11.0, 0.0, 1.0, 10.0])) == 5.5
    # 0 0 0 0 | 3 | 9 by hand: cutting after 0s: 4*2*(6-0)^2 = 288; after 3: 5*1*(9-.6)^2 = 352.8
    assert otsu_threshold(torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0, 9.0])) == 6.0
    # not where the gap is widest: 4*4*(13.375-1.5)^2 = 2256 against 7*1*(20.5-5.57)^2 = 1560
    assert otsu_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 20.5])) == 6.5
    with pytest.raises(ValueError, match="all values are equal"):
        otsu_threshold(torch.ones(3))


def test_the_first_component_of_each_group_is_scored_in_each_image():
    truth = torch.zeros(5, 9, dtype=torch.bool)
    truth[:, :3] = True
    features = torch.randn(5, 9, 4) * 0.01
    features[:, :, 0] += truth * 3.0  # the object stands out along one axis
    found = component_auc(features, (3, 3), truth, [torch.tensor([0, 1]), torch.tensor([2, 4])])
    assert found[3].isnan() and found[[0, 1, 2, 4]].sub(0.5).abs().eq(0.5).all()
