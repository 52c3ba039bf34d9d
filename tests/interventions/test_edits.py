"""Edits against a forward pass written by hand, in every family; what is refused and why."""

from __future__ import annotations

from inspect import isfunction

import pytest
import torch

from crate_analysis.fingerprints import of_edits
from crate_analysis.interventions import (
    Recording,
    ablate_head,
    change,
    cut_atom,
    freeze_attention,
    patch,
    replace_step,
    scale,
    skip,
)
from crate_analysis.models.unrolled import PLACES

LAYER, HEAD = 1, 2


def at(layer, place, function):
    """A hook for the forward pass by hand that changes one place."""
    return lambda n, where, value: function(value) if (n, where) == (layer, place) else value


def put(index, new):
    def function(value):
        changed = value.clone()
        changed[index] = new(value[index]) if callable(new) else new
        return changed

    return function


def stood_there(model, images, place, layer=LAYER):
    for state in model.unroll(images):
        if state.index == layer:
            return state.attention(None) if place == "attention" else getattr(state, place)
    raise AssertionError


@pytest.fixture
def others():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


@torch.no_grad()
def test_without_edits_the_formulas_stand(model, images, by_hand):
    expected = by_hand(model, images)
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model(images, edits=[]), expected)


# --- each edit is what the formulas say -------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("place", PLACES)
def test_a_change_of_any_place_runs_on_from_there(model, images, by_hand, place):
    edit = change(LAYER, place, lambda value, state: value.flip(-1))
    expected = by_hand(model, images, at(LAYER, place, lambda value: value.flip(-1)))
    found = model(images, edits=[edit])
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, model(images))


@torch.no_grad()
@pytest.mark.parametrize("head", [HEAD, -1, [0, 2]])
def test_ablation_by_zero(model, images, by_hand, head):
    heads = [head] if isinstance(head, int) else head
    expected = by_hand(model, images, at(LAYER, "head_outputs", put((slice(None), heads), 0.0)))
    torch.testing.assert_close(model(images, edits=[ablate_head(LAYER, head)]), expected)
    from_the_end = model(images, edits=[ablate_head(LAYER - 3, head)])
    torch.testing.assert_close(from_the_end, expected)


@torch.no_grad()
def test_ablation_by_mean_and_by_another_image(model, images, others, by_hand):
    rows = stood_there(model, others, "head_outputs")
    of = Recording("head_outputs", {LAYER: rows})
    place = (slice(None), HEAD)
    mean = by_hand(model, images, at(LAYER, "head_outputs", put(place, rows.mean(0)[HEAD])))
    torch.testing.assert_close(model(images, [ablate_head(LAYER, HEAD, "mean", of)]), mean)

    found = model(images, [ablate_head(LAYER, HEAD, "resample", of, seed=3)])
    choices = [
        by_hand(model, images, at(LAYER, "head_outputs", put(place, rows[[a, b], HEAD])))
        for a in range(3)
        for b in range(3)
    ]
    assert sum(torch.allclose(found, one) for one in choices) == 1
    again = model(images, [ablate_head(LAYER, HEAD, "resample", of, seed=3)])
    assert torch.equal(found, again)


@torch.no_grad()
def test_ablation_by_noise_keeps_the_size_of_each_token(model, images):
    was = stood_there(model, images, "head_outputs")
    drawn = []
    for seed in (0, 0, 1):
        edit = ablate_head(LAYER, HEAD, "noise", seed=seed)
        state = next(s for s in model.unroll(images, [edit]) if s.index == LAYER)
        drawn.append(state.head_outputs)
        kept = [head for head in range(3) if head != HEAD]
        assert torch.equal(state.head_outputs[:, kept], was[:, kept])
        torch.testing.assert_close(state.head_outputs.norm(dim=-1), was.norm(dim=-1))
        assert not torch.allclose(state.head_outputs, was)
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["crate", "crate-alpha", "crate-soft"], indirect=True)
def test_in_mssa_a_head_without_projections_is_a_head_that_hands_on_nothing(model, images):
    none = change(LAYER, "projections", lambda value, _: put((slice(None), HEAD), 0.0)(value))
    torch.testing.assert_close(model(images, [none]), model(images, [ablate_head(LAYER, HEAD)]))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["crate-mhsa", "vit", "vit-registers"], indirect=True)
def test_without_keys_a_head_averages_its_values_evenly(model, images):
    none = change(LAYER, "projections", lambda value, _: put((slice(None), HEAD), 0.0)(value))
    state = next(s for s in model.unroll(images, [none]) if s.index == LAYER)
    even = torch.full_like(state.attention(None)[:, HEAD], 1 / state.tokens.shape[1])
    torch.testing.assert_close(state.attention(None)[:, HEAD], even)
    evenly = change(LAYER, "attention", lambda value, _: put((slice(None), HEAD), even)(value))
    torch.testing.assert_close(model(images, [none]), model(images, [evenly]))


@torch.no_grad()
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rows", [1, 2])
def test_patching_all_some_tokens_and_some_heads(model, images, others, by_hand, place, rows):
    new = stood_there(model, others, place)[:rows]
    tokens = stood_there(model, images, "tokens").shape[1]
    headed = place in ("projections", "attention", "head_outputs")
    every = (slice(None),)
    mask = torch.zeros(2, tokens, dtype=torch.bool)
    mask[0, 3] = mask[1, [0, 5]] = True
    for asked in (None, [4, 0], slice(-3, None), 7, mask):
        chosen = torch.zeros(2, tokens, dtype=torch.bool)
        chosen[
            mask if asked is mask else (slice(None), slice(None) if asked is None else asked)
        ] = 1
        where = chosen[:, None, :, None] if headed else chosen[..., None]

        def function(value, where=where):
            return torch.where(where, new, value)

        expected = by_hand(model, images, at(LAYER, place, function))
        found = model(images, [patch(LAYER, place, new, tokens=asked)])
        torch.testing.assert_close(found, expected)
    if headed:
        expected = by_hand(model, images, at(LAYER, place, put((*every, HEAD), new[:, HEAD])))
        torch.testing.assert_close(model(images, [patch(LAYER, place, new, heads=HEAD)]), expected)
        both = model(images, [patch(LAYER, place, new, tokens=[1, 2], heads=[0, 1])])
        some = put((*every, slice(0, 2), slice(1, 3)), new[:, :2, 1:3])
        torch.testing.assert_close(both, by_hand(model, images, at(LAYER, place, some)))


@torch.no_grad()
def test_the_last_output_of_another_run_gives_its_logits(model, images, others):
    new = stood_there(model, others[:2], "output", layer=2)
    torch.testing.assert_close(model(images, [patch(2, "output", new)]), model(others[:2]))


@torch.no_grad()
def test_frozen_attention_looks_where_it_looked_whatever_it_is_shown(
    model, images, others, by_hand
):
    pattern = stood_there(model, others[:2], "attention")
    expected = by_hand(model, images, at(LAYER, "attention", lambda value: pattern))
    torch.testing.assert_close(model(images, [freeze_attention(LAYER, pattern)]), expected)
    state = [
        s for s in model.unroll(images, [freeze_attention(LAYER, pattern)]) if s.index == LAYER
    ]
    assert torch.equal(state[0].attention(None), pattern)
    assert torch.equal(state[0].attention([3]), pattern[:, :, [3]])
    one = by_hand(model, images, at(LAYER, "attention", put((slice(None), 1), pattern[:, 1])))
    torch.testing.assert_close(model(images, [freeze_attention(LAYER, pattern, heads=1)]), one)
    # its own pattern changes nothing, even after another layer was changed it stays
    own = stood_there(model, images, "attention")
    torch.testing.assert_close(model(images, [freeze_attention(LAYER, own)]), model(images))


@torch.no_grad()
def test_cut_atoms_write_nothing(model, images, by_hand):
    for atom in (3, [0, 7], -1):
        expected = by_hand(model, images, at(LAYER, "codes", put((..., atom), 0.0)))
        torch.testing.assert_close(model(images, [cut_atom(LAYER, atom)]), expected)


@torch.no_grad()
@pytest.mark.parametrize("factor", [0, 0.5, -1, 3])
def test_half_steps_are_skipped_and_scaled(model, images, by_hand, factor):
    layer = next(s for s in model.unroll(images) if s.index == LAYER)
    tokens, half = layer.tokens, layer.half
    start = half if model.config.nonlinearity in ("mlp", "ista_overcomplete") else layer.normed_half
    compression = by_hand(
        model, images, at(LAYER, "half", lambda value: tokens + factor * (value - tokens))
    )
    sparsification = by_hand(
        model, images, at(LAYER, "output", lambda value: start + factor * (value - start))
    )
    found = model(images, [scale(LAYER, "compression", factor)])
    torch.testing.assert_close(found, compression)
    torch.testing.assert_close(
        model(images, [scale(LAYER, "sparsification", factor)]), sparsification
    )
    if factor == 0:
        torch.testing.assert_close(model(images, [skip(LAYER, "compression")]), compression)
        torch.testing.assert_close(model(images, [skip(LAYER, "sparsification")]), sparsification)


@torch.no_grad()
@pytest.mark.parametrize("by", ["derived", "measured", "turned", "random"])
def test_a_replaced_step_is_as_long_as_the_learned_one(model, images, by):
    was = next(s for s in model.unroll(images) if s.index == LAYER)
    edit = replace_step(LAYER, by)
    state = next(s for s in model.unroll(images, [edit]) if s.index == LAYER)
    learned, new = was.half - was.tokens, state.half - state.tokens
    length = new.norm(dim=(1, 2))
    torch.testing.assert_close(length, learned.norm(dim=(1, 2)))
    assert torch.equal(state.tokens, was.tokens)
    if by in ("random", "turned"):
        other = next(s for s in model.unroll(images, [replace_step(LAYER, by, seed=1)]) if s.index)
        assert not torch.allclose(other.half, state.half)
        return
    if by == "derived":  # d/dZ of 1/2 logdet(I + c V^T V), V = U^T Z, at the normalised tokens
        keys = state.projections.double()
        c = keys.shape[-1] / (keys.shape[-2] * 0.01)
        inverse = torch.linalg.inv(torch.eye(4).double() + c * keys.mT @ keys)
        gradient = torch.einsum("hdp,bhtp->btd", state.subspaces.double(), c * keys @ inverse)
    else:
        from crate_analysis.measures import coding_rate

        with torch.enable_grad():
            tokens = state.tokens.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(coding_rate(state.project(tokens)).sum(), tokens)
    down = -gradient / gradient.norm(dim=(1, 2), keepdim=True)
    expected = down * length[:, None, None]
    torch.testing.assert_close(new, expected, atol=1e-4, rtol=1e-3)


# --- how edits go together --------------------------------------------------------------------


@torch.no_grad()
def test_edits_of_one_place_act_in_the_order_given(model, images, by_hand):
    double = change(LAYER, "half", lambda value, _: 2 * value)
    add = change(LAYER, "half", lambda value, _: value + 1)
    for edits, function in (
        ([double, add], lambda value: 2 * value + 1),
        ([add, double], lambda value: 2 * (value + 1)),
    ):
        expected = by_hand(model, images, at(LAYER, "half", function))
        torch.testing.assert_close(model(images, edits), expected)


@torch.no_grad()
def test_edits_of_several_places_and_layers_act_in_the_network_s_order(model, images, by_hand):
    edits = [skip(2, "compression"), cut_atom(0, 1), ablate_head(0, HEAD), ablate_head(1, 0)]
    tokens = {}

    def hook(layer, place, value):
        if place == "output":
            tokens[layer + 1] = value
        return {
            (0, "codes"): put((..., 1), 0.0),
            (0, "head_outputs"): put((slice(None), HEAD), 0.0),
            (1, "head_outputs"): put((slice(None), 0), 0.0),
            (2, "half"): lambda value: tokens[2],
        }.get((layer, place), lambda value: value)(value)

    torch.testing.assert_close(model(images, edits), by_hand(model, images, hook))
    torch.testing.assert_close(model(images, edits[::-1]), by_hand(model, images, hook))


@torch.no_grad()
def test_what_comes_before_an_edit_stays_and_only_its_stage_leaves_the_fast_path(
    model, images, monkeypatch
):
    def refuse(*_):
        raise AssertionError("the whole matrix was built")

    monkeypatch.setattr("crate_analysis.models.unrolled.softmax_rows", refuse)
    plain = list(model.unroll(images))
    edited = list(model.unroll(images, [ablate_head(LAYER, HEAD), cut_atom(LAYER, 0)]))
    assert torch.equal(plain[0].output, edited[0].output)
    assert torch.equal(plain[1].projections, edited[1].projections)
    with pytest.raises(AssertionError, match="whole matrix"):
        model(images, [change(0, "attention", lambda value, _: value)])


def test_gradients_pass_to_what_is_left_and_to_what_is_put_there(model, images, by_hand):
    torch.manual_seed(3)
    new = stood_there(model, images, "head_outputs").detach().clone().requires_grad_()
    edits = [patch(LAYER, "head_outputs", new, heads=0), ablate_head(LAYER, HEAD), cut_atom(0, 2)]

    def hook(layer, place, value):
        if (layer, place) == (0, "codes"):
            return put((..., 2), 0.0)(value)
        if (layer, place) == (LAYER, "head_outputs"):
            return put((slice(None), HEAD), 0.0)(put((slice(None), 0), new[:, 0])(value))
        return value

    parameters = [new, *model.parameters()]
    sums = model(images, edits).square().sum(), by_hand(model, images, hook).square().sum()
    found, expected = (torch.autograd.grad(s, parameters, allow_unused=True) for s in sums)
    assert found[0][:, 0].abs().sum() > 0 and not found[0][:, 1:].any()
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "edit",
    [
        ablate_head(LAYER, HEAD, "noise"),
        scale(LAYER, "compression", 0.5),
        skip(LAYER, "sparsification"),
        replace_step(LAYER),
        replace_step(LAYER, "random"),
        freeze_attention(LAYER, torch.full((1, 3, 17, 17), 1 / 17)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["crate", "vit"], indirect=True)
def test_gradients_reach_the_weights_below_an_edit(model, images, edit):
    model(images, [edit]).square().sum().backward()
    below = model.layers[0].parameters()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in below)


# --- what is refused --------------------------------------------------------------------------

NOTHING = torch.zeros(1, 17, 12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ablate_head(0, []), ValueError, r"head=\[\] names none"),
        (lambda: ablate_head(0, [1, 1]), ValueError, "names one twice"),
        (lambda: ablate_head(0, 1.5), TypeError, r"head=1\.5 must be an int"),
        (lambda: ablate_head(0, True), TypeError, "head=True must be an int"),
        (lambda: ablate_head(0, 1, "mode"), ValueError, "by='mode' is not one of zero, mean"),
        (lambda: ablate_head(0, 1, "mean"), ValueError, "by='mean' needs of=record"),
        (lambda: ablate_head(0, 1, "zero", Recording("half", {})), ValueError, "no use for `of`"),
        (
            lambda: ablate_head(0, 1, "mean", Recording("half", {0: NOTHING})),
            ValueError,
            "of is a record of half; ablate_head needs one of head_outputs",
        ),
        (lambda: patch(0, "here", NOTHING), ValueError, "place='here' is not one of projections"),
        (lambda: patch(0, "half", NOTHING, tokens=[]), ValueError, r"tokens=\[\] names none"),
        (lambda: patch(0, "half", NOTHING, heads=1), ValueError, "half have no heads"),
        (
            lambda: patch(
                0, "half", NOTHING, tokens=torch.eye(2, 17).bool().logical_not()[:1] & False
            ),
            ValueError,
            "tokens name none of image 0",
        ),
        (lambda: patch(0, "half", NOTHING, tokens=torch.tensor([1])), ValueError, "give a bool"),
        (
            lambda: patch(0, "half", Recording("codes", {0: NOTHING})),
            ValueError,
            "record of codes, but the place is half",
        ),
        (
            lambda: freeze_attention(0, torch.ones(1, 3, 17, 17)),
            ValueError,
            "pattern is no attention: its rows must be 0 or more and sum to 1",
        ),
        (lambda: cut_atom(0, []), ValueError, "names none"),
        (lambda: scale(0, "compression", 1), ValueError, "1 changes nothing"),
        (lambda: scale(0, "compression", float("nan")), ValueError, "must be a finite number"),
        (lambda: skip(0, "attention"), ValueError, "half_step='attention' is not one of"),
        (lambda: replace_step(0, "newton"), ValueError, "by='newton' is not one of derived"),
        (lambda: change(0, "tokens", lambda v, s: v), ValueError, "place='tokens' is not one of"),
    ],
)
def test_an_edit_that_says_nothing_is_refused_where_it_is_made(unchecked, make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ([ablate_head(3, 0)], ValueError, "layer 3 does not exist: crate has layers 0 to 2"),
        ([ablate_head(-4, 0)], ValueError, "layer -4 does not exist"),
        (lambda: [ablate_head(1.0, 0)], TypeError, r"layer=1\.0 must be an int"),
        (ablate_head(0, 0), TypeError, r"edits=ablate_head\(0, 0\) must be a list"),
        (["ablate_head"], TypeError, "'ablate_head' is no edit; crate_analysis.interventions"),
        (
            [ablate_head(0, 0), skip(0, "compression")],
            ValueError,
            r"ablate_head\(0, 0\) would do nothing: skip\(0, 'compression'\) overwrites it",
        ),
        (
            [skip(-3, "sparsification"), cut_atom(0, 1)],
            ValueError,
            r"cut_atom\(0, 1\) would do nothing",
        ),
        (
            [scale(0, "compression", 2), patch(0, "half", NOTHING)],
            ValueError,
            r"scale\(0, 'compression', 2\) would do nothing: patch",
        ),
    ],
)
def test_edits_that_do_nothing_are_refused_before_anything_runs(
    unchecked, build_tiny, images, edits, error, message
):
    with pytest.raises(error, match=message):
        build_tiny("crate").unroll(images, edits() if isfunction(edits) else edits)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ablate_head(0, 3), "there is no head 3: the layer has heads 0 to 2"),
        (cut_atom(0, 12), "there is no atom 12: the layer has atoms 0 to 11"),
        (patch(0, "half", NOTHING, tokens=17), "there is no token 17"),
        (patch(0, "half", NOTHING, tokens=slice(17, None)), "leave none of the 17 tokens"),
        (patch(0, "half", torch.zeros(1, 10, 12)), r"values has \(10, 12\) an image, but layer 0"),
        (patch(0, "half", torch.zeros(5, 17, 12)), "values are of 5 images, but this batch has 2"),
        (
            patch(0, "half", NOTHING, tokens=torch.ones(3, 17, dtype=torch.bool)),
            r"tokens say it for \(3, 17\), but this batch has 2 images of 17 tokens",
        ),
        (
            ablate_head(0, 0, "mean", Recording("head_outputs", {1: torch.zeros(1, 3, 17, 4)})),
            "layer 0 was not recorded, only 1",
        ),
        (
            ablate_head(0, 0, "mean", Recording("head_outputs", {0: torch.zeros(1, 3, 9, 4)})),
            r"of has \(3, 9, 4\) an image, but layer 0 has \(3, 17, 4\)",
        ),
        (
            change(0, "half", lambda value, _: value[:, 1:], name="shorter"),
            r"shorter gives \(2, 16, 12\) at layer 0, but half are \(2, 17, 12\)",
        ),
    ],
)
def test_what_is_not_there_cannot_be_edited(unchecked, build_tiny, images, edit, message):
    with pytest.raises(ValueError, match=message):
        build_tiny("crate")(images, [edit])


# --- how they are told apart ------------------------------------------------------------------


def test_an_edit_prints_as_the_call_that_makes_it():
    calls = [
        "ablate_head(4, [0, 2], by='noise', seed=3)",
        "cut_atom(-1, 3)",
        "skip(0, 'compression')",
        "scale(1, 'sparsification', 0.5)",
        "replace_step(2, by='random', seed=5)",
    ]
    for call in calls:
        assert repr(eval(call)) == str(eval(call)) == call


def test_fingerprints_tell_edits_and_their_values_apart():
    values = torch.zeros(1, 17, 12), torch.ones(1, 17, 12)
    edits = [
        ablate_head(0, 1),
        ablate_head(0, 1, "noise"),
        ablate_head(0, 1, "noise", seed=1),
        *(patch(0, "half", one) for one in values),
        *(patch(0, "half", values[0], tokens=[n]) for n in (1, 2)),
        *(patch(0, "half", values[0], tokens=torch.eye(17)[[n]].bool()) for n in (1, 2)),
    ]
    prints = [one["fingerprint"] for one in of_edits(edits)]
    assert len(set(prints)) == len(edits)
    assert of_edits([ablate_head(0, 1)]) == of_edits(edits[:1])
    with pytest.raises(ValueError, match="is made by a function"):
        of_edits([change(0, "half", lambda value, _: value)])
