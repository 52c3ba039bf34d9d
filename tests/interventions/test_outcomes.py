"""What edits do to answers: margins by hand, shared prefixes, twins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from crate_analysis.datasets import load_dataset, stack_images
from crate_analysis.interventions import (
    Questions,
    ablate_head,
    answer,
    carried,
    chosen_costs,
    costs,
    head_costs,
    outcomes,
    patch,
    questions_of,
    rank_agreement,
    record,
    scale,
    skip,
)
from crate_analysis.models import build_model
from crate_analysis.walk import Reading

READING = Reading(batch_size=3, limit=5)
ALIKE = {"image_size": 84, "patch_size": 12, "dim": 16, "depth": 3, "heads": 2, "num_classes": 16}


@pytest.fixture(scope="module")
def parts():
    return load_dataset("creatures-parts", "val", 84, 5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model("crate_micro_patch6_72.creatures", **ALIKE).eval()
    with torch.no_grad():
        model.mlp_head[1].weight *= 20  # answers that differ from image to image
    return model


# --- answers ----------------------------------------------------------------------------------


def test_margins_are_log_odds_of_all_classes_that_answer_alike():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.2, 0.3]])
    questions = Questions(
        ("first", "second"), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).bool()
    )
    found = answer(p.log() + 3, torch.tensor([3, 1]), questions)
    assert list(found) == ["class", "first", "second"]
    expected = {"class": (0.4, 0.1), "first": (0.7, 0.5), "second": (0.6, 0.4)}
    for name, right in expected.items():
        odds = torch.tensor([r / (1 - r) for r in right], dtype=torch.float64)
        torch.testing.assert_close(found[name][1], odds.log(), atol=1e-6, rtol=1e-6)
    assert found["class"][0].tolist() == [True, False]
    assert found["second"][0].tolist() == [True, False]


def test_a_sure_answer_has_a_finite_margin():
    logits = torch.tensor([[200.0, 0, 0, 0]])
    questions = Questions(("bit",), torch.tensor([[0], [0], [1], [1]]).bool())
    found = answer(logits, torch.tensor([0]), questions)
    assert found["bit"][1].item() == pytest.approx(200 - np.log(2))


def test_questions_are_those_that_the_classes_settle(parts):
    names, bits = questions_of(parts)
    assert names == ("ears", "legs", "tail", "muzzle") and bits.shape == (16, 4)
    for name, row in zip(parts.classes, bits, strict=True):
        assert ("hare-ears" in name, "bear-legs" in name) == (bool(row[0]), bool(row[1]))
    assert questions_of("creatures").names == ()


# --- outcomes ---------------------------------------------------------------------------------


@torch.no_grad()
def test_outcomes_are_those_of_whole_forward_passes(model, parts):
    edits = {
        "first": [ablate_head(0, 1)],
        "two": [scale(2, "compression", 3), skip(1, "sparsification")],
        "last": [ablate_head(-1, 0)],
    }
    frame = outcomes(model, parts, edits, READING)
    assert set(frame.edit) == {"none", *edits} and len(frame) == 4 * 5 * 5
    samples = [parts[index] for index in range(5)]
    images = model.normalize(stack_images(samples))
    labels = torch.tensor([sample.label for sample in samples])
    for name, together in {"none": [], **edits}.items():
        expected = answer(model(images, together), labels, questions_of(parts))
        for question, (right, margin) in expected.items():
            rows = frame[(frame.edit == name) & (frame.question == question)].set_index("image")
            assert rows.index.tolist() == list(range(5))
            assert rows.right.astype(bool).tolist() == right.tolist()
            assert rows.margin.to_numpy() == pytest.approx(margin.numpy(), abs=1e-4)
            assert rows.label.tolist() == labels.tolist()


@torch.no_grad()
def test_costs_are_what_was_less_what_is(model, parts):
    frame = outcomes(model, parts, {"a": [ablate_head(0, 1)], "b": [ablate_head(1, 0)]}, READING)
    found = costs(frame)
    assert set(found.edit) == {"a", "b"} and len(found) == 2 * 5 * 5
    for row in found.itertuples():
        of = (frame.image == row.image) & (frame.question == row.question)
        before, after = frame[of & (frame.edit == "none")], frame[of & (frame.edit == row.edit)]
        assert row.margin == pytest.approx(before.margin.item() - after.margin.item())
        assert row.right == before.right.item() - after.right.item()


@torch.no_grad()
def test_every_head_is_ablated_by_every_kind(model, parts):
    of = record(model, load_dataset("creatures-parts", "train", 84, 3))
    found = head_costs(model, parts, of, ["zero", "mean"], READING)
    assert "edit" not in found and len(found) == 2 * 3 * 2 * 5 * 5
    for by, recorded in (("zero", None), ("mean", of)):
        edits = {"one": [ablate_head(1, 1, by, recorded)]}
        expected = costs(outcomes(model, parts, edits, READING))
        rows = found[(found.by == by) & (found.layer == 1) & (found["head"] == 1)]
        assert rows.margin.to_numpy() == pytest.approx(expected.margin.to_numpy(), abs=1e-5)


@pytest.mark.parametrize("edits", [{}, {"none": [ablate_head(0, 0)]}, {"a": []}])
def test_outcomes_of_no_edit_are_refused(model, parts, edits):
    with pytest.raises(ValueError, match="edits must name some"):
        outcomes(model, parts, edits, READING)


def test_labels_that_are_no_classes_of_the_network_are_refused(model, parts):
    small = build_model("crate_micro_patch6_72.creatures", **{**ALIKE, "num_classes": 1})
    with pytest.raises(ValueError, match="has classes 0 to 0; take the data set that it was"):
        outcomes(small, parts, {"a": [ablate_head(0, 0)]}, READING)


def test_resuming_gives_the_layers_that_are_left(model, parts):
    images = model.normalize(stack_images([parts[0]]))
    with torch.no_grad():
        states = list(model.unroll(images))
        again = list(model.resume(states[1].tokens, 1))
    assert [state.index for state in again] == [1, 2]
    assert torch.equal(again[-1].output, states[-1].output)
    with pytest.raises(ValueError, match=r"ablate_head\(0, 1\) would do nothing: layers are run"):
        model.resume(states[1].tokens, 1, [ablate_head(0, 1)])


# --- rank agreement ---------------------------------------------------------------------------


def test_rank_agreement_is_of_the_means():
    rng = np.random.default_rng(0)
    level = np.arange(6.0)

    def rows(values, column):
        image, head = np.indices(values.shape).reshape(2, -1)
        of = {"image": image, "layer": head // 3, "head": head % 3, column: values.ravel()}
        return pd.DataFrame(of).sample(frac=1, random_state=0)

    score = level + rng.normal(0, 0.1, (50, 6))
    score[::7, 2] = np.nan
    scores = rows(score, "average_precision")
    same = rows(np.exp(level) + rng.normal(0, 0.1, (50, 6)), "margin")
    assert rank_agreement(scores, same, resamples=200) == (1, 1, 1)
    # images that only one of the two has are left out
    against = rank_agreement(scores, rows(np.tile(-level, (60, 1)), "margin"), resamples=20)
    assert against.mean == -1
    loose = rank_agreement(scores, rows(rng.normal(0, 1, (50, 6)), "margin"), resamples=200)
    assert loose.low < loose.mean < loose.high
    with pytest.raises(ValueError, match="2 heads of 50 images are in both; it takes three heads"):
        rank_agreement(scores[(scores.layer == 0) & (scores["head"] < 2)], same)


def test_costs_of_chosen_heads_by_hand():
    rows = [
        # image, head, ears lost, tail lost
        (0, 0, 1, 0),
        (0, 1, 0, 1),
        (0, 2, 0, -1),
        (1, 0, 1, 1),
        (1, 1, 0, 0),
        (1, 2, 1, 0),
    ]
    lost = pd.DataFrame(
        [
            {"model": "m", "by": "zero", "image": image, "layer": 4, "head": head,
             "question": question, "right": value}
            for image, head, *values in rows
            for question, value in zip(("ears", "tail", "class"), (*values, 1), strict=True)
        ]
    )  # fmt: skip
    picks = [("ears", 0, 0), ("ears", 1, 2), ("tail", 0, 1), ("tail", 1, 1)]
    chosen = pd.DataFrame(picks, columns=["mask", "image", "head"]).assign(model="m", layer=4)
    found = chosen_costs(lost, chosen).set_index(["mask", "image"])
    assert found.own.to_dict() == {p[:2]: v for p, v in zip(picks, (1, 1, 1, 0), strict=True)}
    others = {p[:2]: v for p, v in zip(picks, (0, 0, 0, 0), strict=True)}
    assert found.other_questions.to_dict() == others
    rest = {p[:2]: v for p, v in zip(picks, (0, 0.5, -0.5, 0.5), strict=True)}
    assert found.other_heads.to_dict() == rest


# --- twins ------------------------------------------------------------------------------------


def test_a_twin_differs_in_one_part_and_where_that_is(parts):
    for index in range(5):
        sample, twin = parts[index], parts.twin(index, "tail")
        bits = questions_of(parts).bits
        changed = bits[sample.label] != bits[twin.label]
        assert changed.tolist() == [False, False, True, False]
        differ = (sample.image != twin.image).any(0)
        tails = [
            mask
            for one in (sample, twin)
            for mask, name in zip(one.masks, one.mask_names, strict=True)
            if name == "tail"
        ]
        assert differ.any() and not (differ & ~torch.stack(tails).any(0)).float().mean() > 0.02
    with pytest.raises(ValueError, match="'nose' does not vary; ears, legs, tail, muzzle do"):
        parts.twin(0, "nose")


@pytest.fixture(scope="module")
def probed(parts):
    """A network whose answer to the tail's question is the sign of what the twins differ in."""
    torch.manual_seed(1)
    model = build_model("crate_micro_patch6_72.creatures", **ALIKE).eval()
    with torch.no_grad():
        features, bits = [], []
        for index in range(5):
            for sample in (parts[index], parts.twin(index, "tail")):
                images = model.normalize(stack_images([sample]))
                for state in model.unroll(images):
                    tokens = state.output
                features.append(model.mlp_head[0](tokens[:, 0])[0].double())
                bits.append(2.0 * questions_of(parts).bits[sample.label, 2] - 1)
        x, y = torch.stack(features), torch.tensor(bits).double()
        mean = x.mean(0)
        w = torch.linalg.pinv(x - mean, rtol=1e-8) @ y  # ten points, sixteen features: it fits
        sign = 2 * questions_of(parts).bits[:, 2].double() - 1
        model.mlp_head[1].weight.copy_(sign[:, None] * w * 3)
        model.mlp_head[1].bias.copy_(-sign * (mean @ w) * 3)
    return model


def test_what_is_put_there_carries_the_difference(probed, parts):
    frame = carried(probed, parts, ["tail"], reading=Reading(batch_size=3, limit=5))
    own = frame[frame.question == "tail"]
    assert set(frame.question) == {"class", "ears", "legs", "tail", "muzzle"}
    assert set(own.image) == set(range(5)) and (own.whole > 0).all()
    # the whole of a twin's last tokens is the twin; [CLS] alone is all that is classified
    last = own[(own.layer == 2) & (own.what == "[CLS]")]
    assert last.moved.to_numpy() == pytest.approx(last.whole.to_numpy(), abs=2e-3)
    assert (last.follows == 1).all()
    for what in ("its patches", "other patches", "all patches"):
        rows = own[(own.layer == 2) & (own.what == what)]
        assert rows.moved.to_numpy() == pytest.approx(0, abs=2e-3) and (rows.follows == 0).all()
    mean = own.drop_duplicates("image").whole.mean()
    assert (own.carried * mean).to_numpy() == pytest.approx(own.moved.to_numpy())
    # the other questions hear nothing of it
    others = frame[(frame.question != "tail") & (frame.question != "class")]
    assert others.moved.abs().max() < 2e-3


@torch.no_grad()
def test_carried_is_a_patch_of_the_tokens_that_differ(probed, parts):
    frame = carried(probed, parts, ["tail"], ["its patches", "other patches", "head"])
    index = 3
    sample, twin = parts[index], parts.twin(index, "tail")
    images = [probed.normalize(stack_images([one])) for one in (sample, twin)]
    states = list(probed.unroll(images[1]))
    differ = (sample.image != twin.image).any(0)
    cells = F.max_pool2d(differ[None].float(), 12).flatten().bool()
    label = torch.tensor([sample.label])

    def margin(edits):
        return answer(probed(images[0], edits), label, questions_of(parts))["tail"][1].item()

    at = frame[(frame.image == index) & (frame.question == "tail") & (frame.layer == 1)]
    tokens = F.pad(cells, (1, 0))[None]
    assert tokens.sum() < 25
    its = margin([]) - margin([patch(1, "output", states[1].output, tokens=tokens)])
    assert at[at.what == "its patches"].moved.item() == pytest.approx(its, abs=2e-3)
    head = margin([]) - margin([patch(1, "head_outputs", states[1].head_outputs, heads=1)])
    row = at[(at.what == "head") & (at["head"] == 1)]
    assert row.moved.item() == pytest.approx(head, abs=2e-3)
    assert row.whole.item() == pytest.approx(
        margin([]) - answer(probed(images[1]), label, questions_of(parts))["tail"][1].item(),
        abs=2e-3,
    )
    other = at[at.what == "other patches"].moved.item()
    assert other != pytest.approx(its, abs=1e-4)  # as many patches, but not these


def test_wrong_requests_about_twins(unchecked, probed, model, parts):
    with pytest.raises(TypeError, match="has no twins"):
        carried(probed, load_dataset("creatures", "val", 72, 2), ["tail"])
    with pytest.raises(ValueError, match="'coat' is none of the parts that the classes tell: ears"):
        carried(probed, parts, ["coat"])
    with pytest.raises(ValueError, match="what='cls' is not one of its patches, other patches"):
        carried(probed, parts, ["tail"], ["cls"])
    coats = load_dataset("creatures-coats", "val", 84, 2)
    with pytest.raises(ValueError, match="none of the parts that the classes tell"):
        carried(probed, coats, ["tail"])


def test_frames_have_their_columns(model, parts):
    frame = outcomes(model, parts, {"a": [ablate_head(0, 1)]}, READING)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame) == ["model", "edit", "image", "label", "question", "right", "margin"]
