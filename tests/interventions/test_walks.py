"""Edits through everything that walks through layers; recordings."""

from __future__ import annotations

import pytest
import torch

from crate_analysis.datasets import load_dataset, stack_images
from crate_analysis.interventions import ablate_head, change, cut_atom, patch, record, skip
from crate_analysis.measures import MEASURES, measure_layers
from crate_analysis.models import build_model
from crate_analysis.models.unrolled import PLACES
from crate_analysis.probes import cls_attention, collect, patch_attention, patch_features
from crate_analysis.segmentation import (
    Scoring,
    attention_iou,
    detect_objects,
    head_scores,
)
from crate_analysis.segmentation.detection import find_objects
from crate_analysis.walk import Reading, walk

READING = Reading(batch_size=2, limit=3)


@pytest.fixture(scope="module", params=["crate", "vit"])
def model(request):
    torch.manual_seed(0)
    return build_model(f"{request.param}_micro_patch6_72.creatures", depth=3).eval()


@pytest.fixture(scope="module")
def creatures():
    return load_dataset("creatures", "dev", 72, 3)


@pytest.fixture(scope="module")
def images(model, creatures):
    return model.normalize(stack_images([creatures[n] for n in range(3)]))


@torch.no_grad()
def test_recordings_are_what_stood_there_and_can_be_put_back(model, creatures, images):
    plain = model(images)
    for place in PLACES:
        found = record(model, creatures, place, [1], READING)
        state = next(s for s in model.unroll(images) if s.index == 1)
        stood = state.attention(None) if place == "attention" else getattr(state, place)
        torch.testing.assert_close(found.at(1), stood)
        torch.testing.assert_close(model(images, [patch(1, place, found)]), plain)
        torch.testing.assert_close(found.mean().at(1)[0], stood.mean(0))
    edited = record(model, creatures, "output", [1], READING, [ablate_head(0, 1)])
    other = model(images, [ablate_head(0, 1)])
    torch.testing.assert_close(model(images, [patch(1, "output", edited)]), other)
    with pytest.raises(ValueError, match="layer 2 was not recorded, only 1"):
        found.at(2)


@torch.no_grad()
def test_every_reader_sees_the_edited_network(model, creatures, images):
    edits = [ablate_head(0, 1), skip(1, "compression")]
    states = {state.index: state for state in model.unroll(images, edits)}
    frame = measure_layers(model, creatures, reading=READING, edits=edits)
    for (name, layer), values in frame.groupby(["measure", "layer"]).value:
        expected = MEASURES[name](states[layer])
        torch.testing.assert_close(torch.tensor(values.to_numpy()), expected, check_dtype=False)
    plain = measure_layers(model, creatures, reading=READING)
    before = frame[(frame.layer == 0) & (frame.measure == "coding_rate")].value
    assert before.equals(plain.value[before.index])
    after = frame[(frame.layer == 2) & (frame.measure == "coding_rate")].value
    assert (after != plain.value[after.index]).all()

    maps = states[2].attention()[:, :, 0, 1:].unflatten(-1, (12, 12))
    torch.testing.assert_close(cls_attention(model, images, 2, edits), maps)
    asked = torch.tensor([[[3, 4]]]).expand(3, -1, -1)
    one = states[2].attention(1 + 3 * 12 + 4)[..., 1:].unflatten(-1, (12, 12))
    torch.testing.assert_close(patch_attention(model, images, asked, 2, edits), one)
    features = states[2].projections.transpose(1, 2).flatten(2)[:, 1:]
    torch.testing.assert_close(patch_features(model, images, 2, edits), features)
    readers = {"half": lambda state: state.half}
    found = collect(model, creatures, readers, [2, 1], READING, edits)["half"]
    torch.testing.assert_close(found, torch.stack([states[2].half, states[1].half], 1))

    ious = attention_iou(model, creatures, reading=READING, edits=edits)
    scores = head_scores(model, creatures, Scoring(), reading=READING, edits=edits)
    unedited = head_scores(model, creatures, Scoring(), reading=READING)
    same = scores.iou.to_numpy() == unedited.iou.to_numpy()
    assert same[scores.layer == 0].all() and not same[scores.layer == 2].all()
    at = ious[ious.rule == "mass"].iou.to_numpy()
    assert (at == scores[scores.within == "image"].iou.to_numpy()).all()


@torch.no_grad()
def test_detection_of_an_edited_network_goes_to_a_file_of_its_own(model, creatures, tmp_path):
    edits = [skip(1, "sparsification")]
    plain = detect_objects(model, creatures, tmp_path, [2], reading=READING)
    edited = detect_objects(model, creatures, tmp_path, [2], reading=READING, edits=edits)
    other = detect_objects(
        model, creatures, tmp_path, [2], reading=READING, edits=[skip(0, "compression")]
    )
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    again = detect_objects(model, creatures, tmp_path, [2], reading=READING, edits=edits)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    found = find_objects(model, creatures, [2], reading=READING, edits=edits)
    assert edited.equals(again) and edited.equals(found)
    assert not edited.equals(plain) and not edited.equals(other)
    with pytest.raises(ValueError, match="is made by a function"):
        unnamed = change(0, "half", lambda value, _: value * 2)
        detect_objects(model, creatures, tmp_path, [2], reading=READING, edits=[unnamed])


@torch.no_grad()
def test_an_edit_after_all_that_is_read_is_an_error(model, creatures, images):
    late = [ablate_head(2, 1)]
    message = r"ablate_head\(2, 1\) would do nothing: layers are read up to 1"
    with pytest.raises(ValueError, match=message):
        cls_attention(model, images, 1, late)
    with pytest.raises(ValueError, match=message):
        collect(model, creatures, {"half": lambda s: s.half}, [0, 1], READING, late)
    with pytest.raises(ValueError, match=message):
        find_objects(model, creatures, [1], reading=READING, edits=late)
    message = r"ablate_head\(2, 1\) has done nothing: of layer 2, the last that is read"
    for read in (
        lambda: cls_attention(model, images, 2, late),
        lambda: patch_attention(model, images, torch.zeros(3, 1, 2, dtype=torch.long), 2, late),
        lambda: patch_features(model, images, 2, late),
        lambda: collect(model, creatures, {"t": lambda s: s.tokens}, None, READING, late),
        lambda: head_scores(model, creatures, reading=READING, edits=late),
        lambda: find_objects(model, creatures, [2], reading=READING, edits=late),
    ):
        with pytest.raises(ValueError, match=message):
            read()
    measure_layers(model, creatures, reading=READING, edits=late)  # it reads the last output
    with pytest.raises(ValueError, match=r"cut_atom\(2, 0\) has done nothing"):
        rate = {"rate": MEASURES["coding_rate"]}
        measure_layers(model, creatures, rate, reading=READING, edits=[cut_atom(2, 0)])


@torch.no_grad()
def test_a_walk_takes_edits(model, creatures):
    for batch in walk(model, creatures, [1], READING, [ablate_head(1, [0, 1, 2, 3])]):
        for state in batch.states:
            assert not state.head_outputs.any()
