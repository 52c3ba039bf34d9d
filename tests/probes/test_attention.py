import pytest
import torch

from crate_analysis import build_model
from crate_analysis.probes import cls_attention, patch_features


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
    monkeypatch.setattr(model.layers[0], "transform", fail)
    cls_attention(model, images, layer=0)


def test_features_are_the_projections_without_cls(model, images):
    features = patch_features(model, images, layer=2)
    projections = list(model.unroll(images))[2].projections
    assert features.shape == (2, 96, 32)
    torch.testing.assert_close(features[1, 7, 16:], projections[1, 1, 8])  # second head of p = 16
