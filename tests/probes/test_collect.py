import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import stack_images
from crate_analysis.probes import cls_attention, collect, papers_layer, patch_features
from crate_analysis.walk import Reading

READERS = {
    "attention": lambda state: state.attention()[:, :, 0, 1:],
    "projections": lambda state: state.projections,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("crate_micro_patch6_72.creatures", dim=32, depth=3, heads=2).eval()


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", 48, limit=5)


def test_all_that_was_asked_for_in_the_order_of_the_pictures(model, pictures):
    found = collect(model, pictures, READERS, reading=Reading(batch_size=2))
    images = model.normalize(stack_images(list(pictures)))
    assert found["attention"].shape == (5, 3, 2, 64)
    for layer in range(3):
        maps = cls_attention(model, images, layer).flatten(2)
        torch.testing.assert_close(found["attention"][:, layer], maps)
        features = patch_features(model, images, layer)
        heads = found["projections"][:, layer, :, 1:]
        torch.testing.assert_close(heads.transpose(1, 2).flatten(2), features)


def test_chosen_layers_come_in_the_order_asked_for(model, pictures):
    whole = collect(model, pictures, READERS)["projections"]
    some = collect(model, pictures, READERS, layers=[-1, 0], reading=Reading(limit=3))[
        "projections"
    ]
    torch.testing.assert_close(some, whole[:3, [2, 0]])


def test_one_forward_pass_that_stops_early(model, pictures, monkeypatch):
    calls = []
    for index, layer in enumerate(model.layers):
        attend = layer.attend
        monkeypatch.setattr(layer, "attend", lambda *a, i=index, f=attend: calls.append(i) or f(*a))
    collect(model, pictures, READERS, layers=[0, 1])
    assert calls == [0]  # layer 1 is read where it begins


def test_wrong_requests(model, pictures):
    with pytest.raises(ValueError, match="layer 3 does not exist"):
        collect(model, pictures, READERS, layers=[3])
    with pytest.raises(ValueError, match="layers is empty"):
        collect(model, pictures, READERS, layers=[])
    with pytest.raises(ValueError, match="'mean' gave 1 rows for 5 images"):
        collect(model, pictures, {"mean": lambda s: s.tokens.mean(0, keepdim=True)})


@pytest.mark.parametrize(
    ("arch", "depth", "layer"),
    [
        ("crate_micro_patch6_72.creatures", 6, 4),
        ("vit_micro_patch6_72.creatures", 6, 5),
        ("crate_micro_patch6_72.creatures", 1, 0),
    ],
)
def test_the_papers_layer(arch, depth, layer):
    assert papers_layer(build_model(arch, depth=depth)) == layer
