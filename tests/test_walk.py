"""One way through images and layers: what it takes, how far it goes, what it refuses."""

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.measures import measure_layers
from crate_analysis.probes import cls_attention, patch_attention
from crate_analysis.segmentation import head_scores
from crate_analysis.walk import Reading, walk


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("crate_micro_patch6_72.creatures", dim=16, depth=3, heads=2).eval()


@pytest.fixture(scope="module")
def samples():
    return list(load_dataset("creatures", "val", 72, limit=5))


def states(model, data, **how):
    return [
        (batch.indices, state.index, state.half)
        for batch in walk(model, data, **how)
        for state in batch.states
    ]


def test_every_batch_passes_every_layer_once(model, samples):
    with torch.no_grad():
        seen = states(model, samples, reading=Reading(2))
        assert [(indices, layer) for indices, layer, _ in seen] == [
            (indices, layer) for indices in ([0, 1], [2, 3], [4]) for layer in range(3)
        ]
        images = model.normalize(torch.stack([sample.image for sample in samples[2:4]]))
        for (_, _, half), state in zip(seen[3:6], model.unroll(images), strict=True):
            torch.testing.assert_close(half, state.half)


def test_layers_after_the_deepest_are_not_computed(model, samples, monkeypatch):
    reached = []
    attend = type(model.layers[0]).attend
    monkeypatch.setattr(
        type(model.layers[0]),
        "attend",
        lambda layer, *args: reached.append(layer) or attend(layer, *args),
    )
    seen = states(model, samples[:2], layers=[1, 0])
    assert [layer for _, layer, _ in seen] == [0, 1]
    assert reached == list(model.layers)[:2]


@pytest.mark.parametrize(
    "form",
    [
        lambda samples: samples,
        lambda samples: tuple(samples),
        lambda samples: [sample.image for sample in samples],
        lambda samples: torch.stack([sample.image for sample in samples]),
        lambda samples: load_dataset("creatures", "val", 72, limit=5),
        lambda samples: "creatures",
    ],
)
def test_images_come_in_every_form(form, model, samples):
    expected = measure_layers(model, samples)
    found = measure_layers(model, form(samples), reading=Reading(limit=5))
    assert found.equals(expected)


@pytest.mark.parametrize("read", [measure_layers, head_scores])
@pytest.mark.parametrize("data", [5, None, [1, "a"], torch.zeros(2, 3, 72, 72), "creaturs", []])
def test_what_is_no_image_is_refused_in_one_line(read, data, model, unchecked):
    with pytest.raises((TypeError, ValueError)) as caught:
        read(model, data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [measure_layers, head_scores])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("crate-creatures", r"the model is the text 'crate-creatures'; pass load_model\('crate-"),
        (torch.nn.Linear(2, 2), "the model is of type Linear, which has no layers to read"),
        (None, "the model is of type NoneType"),
    ],
)
def test_what_is_no_model_is_refused(read, given, message, samples, unchecked):
    with pytest.raises(TypeError, match=message):
        read(given, samples)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([3], ValueError, "layer 3 does not exist: crate_micro.* has layers 0 to 2"),
        ([], ValueError, "layers is empty"),
        (1, TypeError, r"layers=1 must be a list, such as \[1\]"),
        ([0.5], TypeError, "layer=0.5 must be an int"),
    ],
)
def test_wrong_layers_are_refused(layers, error, message, model, samples, unchecked):
    with pytest.raises(error, match=message):
        measure_layers(model, samples, layers=layers)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0 must be at least 1"),
        ({"limit": 0}, ValueError, "limit=0 must be at least 1, or None for all"),
        ({"workers": -1}, ValueError, "workers=-1 must be at least 0"),
        ({"batch_size": "8"}, TypeError, "batch_size='8' must be an int"),
        ({"batch_size": True}, TypeError, "batch_size=True must be an int"),
        ({"limit": 2.0}, TypeError, "limit=2.0 must be an int"),
        ({"progress": "yes"}, TypeError, "progress='yes' must be True or False"),
    ],
)
def test_reading_is_checked(options, error, message, unchecked):
    with pytest.raises(error, match=message):
        Reading(**options)


def test_attention_says_what_it_wants(model, samples, unchecked):
    images = model.normalize(torch.stack([sample.image for sample in samples]))
    zeros = torch.zeros(5, 1, 2, dtype=torch.long)
    for wrong, message in (
        (samples, "images are of type list; give normalised pixels"),
        (images.numpy(), "images are of type ndarray"),
        ("creatures", "images are of type str"),
    ):
        for read in (cls_attention, lambda m, x: patch_attention(m, x, zeros)):
            with pytest.raises(TypeError, match=message):
                read(model, wrong)
    with pytest.raises(TypeError, match="the model is the text"):
        cls_attention("crate-creatures", images)
    with pytest.raises(TypeError, match="layer='last' must be an int"):
        cls_attention(model, images, "last")
    for positions in ([[0, 0]], torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(TypeError, match="positions must be an integer tensor"):
            patch_attention(model, images, positions)
    with pytest.raises(ValueError, match="positions are of 2 images, but there are 5"):
        patch_attention(model, images, zeros[:2])
