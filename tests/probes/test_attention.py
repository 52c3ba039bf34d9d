import pytest
import torch

from crate_analysis import build_model
from crate_analysis.probes import cls_attention, deepest_patch, patch_attention, patch_features


@pytest.fixture(scope="module", params=["crate", "vit"])
def model(request):
    torch.manual_seed(0)
    arch = f"{request.param}_micro_patch6_72.creatures"
    return build_model(arch, dim=32, depth=3, heads=2).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 72, 48)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def test_maps_are_the_cls_row_on_the_grid(model, images):
    maps = cls_attention(model, images, layer=1)
    rows = list(model.unroll(images))[1].attention(slice(None))[:, :, 0]
    assert maps.shape == (2, 2, 12, 8)
    torch.testing.assert_close(maps[1, 0, 3, 5], rows[1, 0, 1 + 3 * 8 + 5])
    torch.testing.assert_close(maps.sum((-2, -1)) + rows[..., 0], torch.ones(2, 2))


def test_layers_count_from_either_end(model, images):
    torch.testing.assert_close(cls_attention(model, images), cls_attention(model, images, layer=1))
    with pytest.raises(ValueError, match=r"layer 3 does not exist: .* layers 0 to 2"):
        cls_attention(model, images, layer=3)
    with pytest.raises(ValueError, match="layer -4 does not exist"):
        cls_attention(model, images, layer=-4)


def test_deeper_layers_are_not_computed(model, images, monkeypatch):
    def fail(*_):
        raise AssertionError("computed a layer that nobody asked for")

    monkeypatch.setattr(model.layers[1], "normalize", fail)
    monkeypatch.setattr(model.layers[0], "encode", fail)
    cls_attention(model, images, layer=0)


def test_features_are_the_projections_without_cls(model, images):
    features = patch_features(model, images, layer=2)
    projections = list(model.unroll(images))[2].projections
    assert features.shape == (2, 96, 32)
    torch.testing.assert_close(features[1, 7, 16:], projections[1, 1, 8])  # second head of p = 16


def test_a_patch_asks_in_place_of_cls(model, images):
    positions = torch.tensor([[[3, 5], [0, 0], [0, 7]], [[11, 0], [2, 2], [3, 5]]])
    maps = patch_attention(model, images, positions, layer=1)
    rows = list(model.unroll(images))[1].attention(slice(None))
    assert maps.shape == (2, 2, 3, 12, 8)
    for image, place, query in ((0, 0, 1 + 3 * 8 + 5), (1, 0, 1 + 11 * 8), (0, 2, 1 + 7)):
        torch.testing.assert_close(maps[image, :, place].flatten(1), rows[image, :, query, 1:])


def test_a_patch_outside_the_grid_is_refused(model, images):
    with pytest.raises(ValueError, match="hold columns 0 to 8, but the grid has columns 0 to 7"):
        patch_attention(model, images, torch.tensor([[[0, 0]], [[0, 8]]]))
    with pytest.raises(ValueError, match="hold rows -1 to 0, but the grid has rows 0 to 11"):
        patch_attention(model, images, torch.tensor([[[0, 0]], [[-1, 0]]]))
    with pytest.raises(ValueError, match="layer 7 does not exist"):
        patch_attention(model, images, torch.zeros(2, 1, 2, dtype=torch.long), layer=7)


def test_the_deepest_patch_is_in_the_middle_of_a_mask_and_far_from_it():
    masks = torch.zeros(2, 12, 18, dtype=torch.bool)
    masks[0, 2:10, 6:12] = True  # a block about the patch (2, 4), with edges all round
    masks[1, :4, :4] = True  # a corner: the border of the image is no edge
    found = deepest_patch(masks, (6, 9))
    assert found.tolist() == [[2, 4], [0, 0]]
    assert deepest_patch(~masks, (6, 9))[1].tolist() == [5, 8]


def test_the_deepest_patch_needs_an_inside_and_a_fitting_grid():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    with pytest.raises(ValueError, match="mask 1 is empty or all of the image"):
        deepest_patch(masks, (2, 2))
    with pytest.raises(ValueError, match="3 x 2 patches does not divide 4 x 4 pixels"):
        deepest_patch(masks, (3, 2))
