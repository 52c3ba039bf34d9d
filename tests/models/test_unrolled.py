"""Unrolling: states against a literal re-implementation, and what is computed when."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from crate_analysis.models import unrolled
from crate_analysis.models.crate import CRATE, CrateLayer
from crate_analysis.models.unrolled import resize_positions, weighted_values

METHODS = ("normalize", "project", "attend", "normalize_half", "encode", "decode")


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each piece of a CRATE layer ran."""
    counter: Counter[str] = Counter()

    def counted(name):
        original = getattr(CrateLayer, name)

        def method(self, *args):
            counter[name] += 1
            return original(self, *args)

        return method

    for name in METHODS:
        monkeypatch.setattr(CrateLayer, name, counted(name))
    return counter


# --- values -----------------------------------------------------------------------------------


def literal_layer(model, index, tokens):
    """One layer from the formulas, head by head: projections, attention, half, output."""
    config, w = model.config, {k: v for k, v in model.state_dict().items()}
    p = config.dim // config.heads
    if config.family == "crate":
        stem, bias = f"transformer.layers.{index}.", 0
        norms = ("0.norm", "1.norm")
        qkv, out = w[stem + "0.fn.qkv.weight"], "0.fn.to_out.0"
        mlp = ("1.fn.fc1", "1.fn.fc2")
    else:
        stem, bias = f"blocks.{index}.", w[f"blocks.{index}.attn.qkv.bias"]
        norms, mlp = ("norm1", "norm2"), ("mlp.fc1", "mlp.fc2")
        qkv, out = w[stem + "attn.qkv.weight"], "attn.proj"

    eps = 1e-6 if config.family == "vit" or not config.output_bias else 1e-5
    scales = [w.get(f"{stem}ls{half}.gamma", 1) for half in (1, 2)]

    def norm(z, name):
        z = (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True, correction=0) + eps).sqrt()
        return z * w[stem + name + ".weight"] + w[stem + name + ".bias"]

    def linear(z, name):
        return z @ w[stem + name + ".weight"].T + w.get(stem + name + ".bias", 0)

    mapped = norm(tokens, norms[0]) @ qkv.T + bias
    query, key, value = mapped.chunk(3, -1) if config.attention == "mhsa" else [mapped] * 3
    attention, mixed = [], []
    for k in range(config.heads):
        head = slice(k * p, (k + 1) * p)
        logits = query[..., head] @ key[..., head].transpose(1, 2) / p**0.5
        attention.append(logits.exp() / logits.exp().sum(-1, keepdim=True))
        mixed.append(attention[-1] @ value[..., head])
    mixed = torch.cat(mixed, -1)
    half = tokens + scales[0] * (mixed if config.heads == 1 else linear(mixed, out))
    z = norm(half, norms[1])
    if config.nonlinearity == "mlp":
        output = half + scales[1] * linear(F.gelu(linear(z, mlp[0])), mlp[1])
    elif config.nonlinearity == "ista_overcomplete":  # Yang et al. 2024, atom by atom
        d, d1, eta, lam = w[stem + "1.fn.D"], w[stem + "1.fn.D1"], 0.1, 0.1
        first = (eta * torch.einsum("da,btd->bta", d, z) - eta * lam).clamp(min=0)
        misfit = torch.einsum("da,bta->btd", d, first) - z
        second = first - eta * torch.einsum("da,btd->bta", d, misfit) - eta * lam
        output = half + torch.einsum("da,bta->btd", d1, second.clamp(min=0))
    else:
        d, eta, lam = w[stem + "1.fn.weight"], config.step_size, config.sparsity
        code = z + eta * ((z - z @ d.T) @ d)
        if config.nonlinearity == "ista":
            output = (code - eta * lam).clamp(min=0)
        else:
            output = code.sign() * (code.abs() - eta * lam).clamp(min=0)
    projections = torch.stack(key.split(p, -1), 1)
    return projections, torch.stack(attention, 1), half, output


@torch.no_grad()
def test_states_are_the_formulas(model, images):
    count = 0
    for state in model.unroll(images):
        projections, attention, half, output = literal_layer(model, state.index, state.tokens)
        torch.testing.assert_close(state.projections, projections)
        torch.testing.assert_close(state.attention(slice(None)), attention)
        torch.testing.assert_close(state.half, half)
        torch.testing.assert_close(state.output, output)
        assert state.index == count
        count += 1
    assert count == 3
    torch.testing.assert_close(model(images), model.classify(output))


@torch.no_grad()
def test_each_layer_starts_where_the_last_one_ended(model, images):
    states = list(model.unroll(images))
    torch.testing.assert_close(states[0].tokens, model.embed(images))
    for state, following in pairwise(states):
        assert following.tokens is state.output


@torch.no_grad()
def test_attention_rows_sum_to_one_and_are_those_of_the_queries(model, images):
    for state in model.unroll(images):
        full = state.attention(slice(None))
        torch.testing.assert_close(full.sum(-1), torch.ones_like(full[..., 0]))
        torch.testing.assert_close(state.attention(), full[:, :, :1])
        torch.testing.assert_close(state.attention(slice(2, 7, 2)), full[:, :, 2:7:2])


@torch.no_grad()
def test_project_sees_any_tokens_in_the_same_subspaces(model, images):
    state = next(model.unroll(images))
    torch.testing.assert_close(state.project(state.tokens), state.projections)
    moved, *_ = literal_layer(model, 0, state.half)
    torch.testing.assert_close(state.project(state.half), moved)


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(model, images):
    torch.testing.assert_close(model(images)[1:], model(images[1:]))


def test_every_weight_gets_a_gradient(model, images):
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# --- what is computed when --------------------------------------------------------------------


def test_nothing_is_computed_before_it_is_read(build_tiny, images, calls):
    state = next(build_tiny("crate").unroll(images))
    assert not calls
    _ = state.projections, state.projections
    assert calls == {"normalize": 1, "project": 1}
    state.attention()
    assert calls == {"normalize": 1, "project": 1}
    _ = state.half, state.half
    assert calls == {"normalize": 1, "project": 1, "attend": 1}
    _ = state.output, state.output
    assert calls == {method: 1 for method in METHODS}
    _ = state.normed_half, state.head_outputs  # which were let go of on the way
    assert calls == {**{method: 1 for method in METHODS}, "normalize_half": 2}


def test_layers_past_the_stop_are_never_computed(build_tiny, images, calls):
    for state in build_tiny("crate").unroll(images):
        if state.index == 1:
            break
    assert calls == {method: 1 for method in METHODS}  # layer 0 alone


def test_the_last_layer_waits_to_be_read(build_tiny, images, calls):
    for _ in build_tiny("crate").unroll(images):
        pass
    assert calls == {method: 2 for method in METHODS}  # of three layers


def test_a_forward_pass_computes_each_layer_once(build_tiny, images, calls):
    build_tiny("crate")(images)
    assert calls == {method: 3 for method in METHODS}


def test_the_full_attention_matrix_is_built_only_when_asked_for(build_tiny, images, monkeypatch):
    shapes = []
    original = unrolled.softmax_rows

    def recorded(queries, keys):
        rows = original(queries, keys)
        shapes.append(tuple(rows.shape))
        return rows

    state = next(build_tiny("crate").unroll(images))
    monkeypatch.setattr(unrolled, "softmax_rows", recorded)
    state.attention()
    assert shapes == [(2, 3, 1, 17)]


# --- images ---------------------------------------------------------------------------------


@torch.no_grad()
def test_a_forward_pass_builds_no_attention_matrix(model, images, monkeypatch):
    def refuse(queries, keys):
        raise AssertionError("the whole matrix was built")

    monkeypatch.setattr("crate_analysis.models.unrolled.softmax_rows", refuse)
    model(images)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_weighted_values_are_softmax_rows_times_values(dtype, close):
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, n, 8).to(dtype) for n in (5, 7, 7))
    scores = torch.einsum("bhqp,bhtp->bhqt", queries.double(), keys.double()) / 8**0.5
    expected = torch.einsum("bhqt,bhtp->bhqp", scores.softmax(-1), values.double())
    found = weighted_values(queries, keys, values)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=close, rtol=0)


def test_a_picture_of_another_size_has_its_own_grid(model):
    images = torch.randn(2, 3, 24, 8)
    assert model.patch_grid(images) == (6, 2)
    assert next(model.unroll(images)).tokens.shape == (2, 13 + model.config.registers, 12)
    assert model(images).isfinite().all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 30, 42), "30 x 42 pixels, which patch size 4.*resize them to 32 x 40$"),
        (torch.zeros(1, 3, 3, 16), "3 x 16 pixels.*resize them to 4 x 16$"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "uint8.*model.normalize"),
        (torch.zeros(3, 16, 16), r"\(3, 16, 16\), but a model takes \(b, 3, H, W\)"),
        (torch.zeros(1, 1, 16, 16), r"\(1, 1, 16, 16\), but"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(unchecked, build_tiny, images, message):
    with pytest.raises(ValueError, match=message):
        build_tiny("crate")(images)


def test_a_size_that_does_not_fit_fails_at_once_and_not_at_the_first_layer(build_tiny):
    with pytest.raises(ValueError, match="patch size 4 does not divide"):
        build_tiny("crate").unroll(torch.zeros(1, 3, 18, 16))


def test_normalize_by_hand(build_tiny):
    model = build_tiny("crate")
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(model.normalize(pixels).flatten(), torch.tensor(expected))
    config = model.config.override(pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5))
    halved = CRATE(config).normalize(pixels).flatten()
    torch.testing.assert_close(halved, torch.tensor([-1, 1, -0.6]))


def test_normalize_refuses_what_may_be_normalised_already(unchecked, build_tiny):
    with pytest.raises(ValueError, match=r"images are torch\.float32, but normalize takes uint8"):
        build_tiny("crate").normalize(torch.zeros(1, 3, 4, 4))


# --- positions --------------------------------------------------------------------------------


def test_positions_at_the_trained_grid_are_untouched():
    positions = torch.randn(1, 17, 6)
    assert resize_positions(positions, (4, 4)) is positions


def test_resized_positions_keep_cls_and_orientation():
    rows = torch.arange(4.0).repeat_interleave(4)  # a position that tells its row
    positions = torch.cat([torch.tensor([-7.0]), rows]).view(1, 17, 1)
    resized = resize_positions(positions, (8, 2))
    assert resized.shape == (1, 17, 1) and resized[0, 0] == -7
    grid = resized[0, 1:, 0].view(8, 2)
    torch.testing.assert_close(grid[:, 0], grid[:, 1])
    assert (grid[1:, 0] > grid[:-1, 0]).all()


def test_constant_positions_stay_constant():
    resized = resize_positions(torch.full((1, 10, 2), 3.0), (5, 7))
    torch.testing.assert_close(resized, torch.full((1, 36, 2), 3.0))


# --- what a layer is made of ------------------------------------------------------------------


@torch.no_grad()
def test_subspaces_are_what_projects(model, images):
    config, heads = model.config, model.config.heads
    for state in model.unroll(images):
        assert state.subspaces.shape == (heads, config.dim, config.dim // heads)
        seen = torch.einsum("hdp,btd->bhtp", state.subspaces, state.normed)
        if config.family == "vit":  # its keys have a bias, which is no part of a subspace
            bias = model.blocks[state.index].attn.qkv.bias.chunk(3)[1]
            seen = seen + bias.unflatten(0, (heads, 1, -1))
        torch.testing.assert_close(state.projections, seen)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["crate", "crate-soft", "crate-mhsa"])
def test_sparse_coding_is_what_the_second_half_does(build_tiny, kind, images):
    for state in build_tiny(kind).unroll(images):
        dictionary, step_size, sparsity = state.sparse_coding
        z = state.normed_half
        codes = z + step_size * (z - z @ dictionary.T) @ dictionary
        if kind == "crate-soft":
            expected = codes.sign() * (codes.abs() - step_size * sparsity).clamp(min=0)
        else:
            expected = (codes - step_size * sparsity).clamp(min=0)
        torch.testing.assert_close(state.output, expected)


@torch.no_grad()
def test_an_overcomplete_code_is_two_steps_from_zero(build_tiny, images):
    model = build_tiny("crate-alpha")
    for state in model.unroll(images):
        dictionary, step_size, sparsity = state.sparse_coding
        assert dictionary.shape == (12, 48) and state.codes.shape == (2, 17, 48)
        assert torch.equal(state.sparsified, state.codes) and state.has_residual
        codes = state.initial_codes
        assert codes.shape == state.codes.shape and not codes.any()
        for _ in range(2):
            misfit = state.normed_half - codes @ dictionary.T
            codes = (codes + step_size * (misfit @ dictionary - sparsity)).clamp(min=0)
        torch.testing.assert_close(state.codes, codes)
        back = model.transformer.layers[state.index].nonlinearity.fn.D1
        torch.testing.assert_close(state.output, state.half + codes @ back.T)
        assert 0 < (state.codes != 0).float().mean() < 1


@torch.no_grad()
def test_ista_starts_at_the_token_and_its_code_is_the_output(build_tiny, images):
    for state in build_tiny("crate").unroll(images):
        assert torch.equal(state.initial_codes, state.normed_half)
        assert state.sparsified is state.output
    state = next(build_tiny("vit").unroll(images))
    assert state.sparsified is state.output
    with pytest.raises(ValueError, match="no dictionary"):
        _ = state.initial_codes


@torch.no_grad()
def test_registers_are_readable_and_no_patches(build_tiny, images):
    for kind, count in (("vit-dinov2", 2), ("vit", 0), ("crate-alpha", 0)):
        model = build_tiny(kind)
        for state in model.unroll(images):
            assert state.registers.shape == (2, count, 12)
            assert state.attention()[..., state.patches].shape[-1] == 16
        state = next(model.unroll(images))
        if count:
            assert torch.equal(state.registers[0], model.register_tokens[0])


def interpolated(values, to, a):
    """Cubic convolution with parameter a, at the centres of `to` cells laid over `values`."""
    found = []
    for cell in range(to):
        place = (cell + 0.5) * len(values) / to - 0.5
        taps = range(math.floor(place) - 1, math.floor(place) + 3)
        weights = [cubic(abs(place - tap), a) for tap in taps]
        inside = [min(max(tap, 0), len(values) - 1) for tap in taps]
        found.append(sum(w * values[tap] for w, tap in zip(weights, inside, strict=True)))
    return torch.tensor(found)


def cubic(x, a):
    """Keys 1981."""
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def test_positions_are_resized_as_each_source_does():
    rows = torch.tensor([0.0, 1.0, 4.0, 9.0])
    positions = torch.cat([torch.tensor([-7.0]), rows.repeat_interleave(4)]).view(1, 17, 1)

    def column(grid, how):
        resized = resize_positions(positions, grid, how)
        assert resized[0, 0] == -7
        return resized[0, 1:, 0].view(grid)[:, 0]

    by_size = interpolated(rows.tolist(), 7, -0.75)  # torch's parameter
    torch.testing.assert_close(column((7, 4), "size"), by_size)
    smooth = interpolated(rows.tolist(), 7, -0.5)[3]  # Pillow's, where no tap is outside
    torch.testing.assert_close(column((7, 4), "antialias")[3], smooth)
    assert (column((7, 4), "offset") - by_size).abs().max() > 1e-3
    halved = column((2, 4), "antialias")  # averages over cells, where by size four taps are taken
    assert (halved - column((2, 4), "size")).abs().max() > 0.05
    assert torch.equal(resize_positions(positions, (4, 4), "antialias"), positions)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["crate-mlp", "vit"])
def test_an_mlp_has_no_dictionary(build_tiny, kind, images):
    state = next(build_tiny(kind).unroll(images))
    with pytest.raises(ValueError, match="MLP in place of ISTA, and so no dictionary; take"):
        _ = state.sparse_coding
    assert state.normed_half.shape == state.half.shape


# --- states are read-only ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["index", "tokens", "projections", "half", "codes", "output", "patches", "other"]
)
def test_a_state_is_read_only_and_names_edits(build_tiny, images, name):
    state = next(build_tiny("crate").unroll(images))
    for _ in range(2):  # also once it was computed
        with pytest.raises(AttributeError, match=f"{name}.*unroll.images, edits="):
            setattr(state, name, torch.zeros(1))
        _ = state.output
    with pytest.raises(AttributeError, match=f"{name}.*edits="):
        delattr(state, name)


# --- what each stage hands on -----------------------------------------------------------------


@torch.no_grad()
def test_head_outputs_are_what_the_output_map_sees(model, images):
    for state in model.unroll(images):
        normed = literal_norm(model, state)
        values = literal_values(model, state.index, normed)
        torch.testing.assert_close(state.normed, normed)
        torch.testing.assert_close(state.head_outputs, state.attention(None) @ values)
        merged = state.head_outputs.transpose(1, 2).flatten(2)
        if model.config.heads > 1:
            merged = output_map(model, state.index)(merged)
        if model.config.layer_scale:
            merged = merged * model.layers[state.index].ls1.gamma
        torch.testing.assert_close(state.half, state.tokens + merged)


def literal_norm(model, state):
    layer = model.layers[state.index]
    norm = layer.attention.norm if model.config.family == "crate" else layer.norm1
    return F.layer_norm(state.tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def literal_values(model, index, normed):
    layer, heads = model.layers[index], model.config.heads
    qkv = layer.attention.fn.qkv if model.config.family == "crate" else layer.attn.qkv
    values = qkv(normed).chunk(3, -1)[2] if model.config.attention == "mhsa" else qkv(normed)
    return torch.stack(values.chunk(heads, -1), 1)


def output_map(model, index):
    layer = model.layers[index]
    return layer.attention.fn.to_out if model.config.family == "crate" else layer.attn.proj


@torch.no_grad()
def test_codes_are_what_the_second_half_writes(model, images):
    config = model.config
    for state in model.unroll(images):
        if config.nonlinearity == "ista_overcomplete":
            second = model.layers[state.index].nonlinearity.fn.D1
            torch.testing.assert_close(state.output, state.half + state.codes @ second.T)
            continue
        if config.nonlinearity != "mlp":
            assert state.codes is state.output and not state.has_residual
            continue
        layer = model.layers[state.index]
        mlp = layer.nonlinearity.fn if config.family == "crate" else layer.mlp
        hidden = F.gelu(state.normed_half @ mlp.fc1.weight.T + mlp.fc1.bias)
        assert hidden.shape[-1] == 4 * config.dim and state.has_residual
        torch.testing.assert_close(state.codes, hidden)
        wrote = hidden @ mlp.fc2.weight.T + mlp.fc2.bias
        if config.layer_scale:
            wrote = wrote * layer.ls2.gamma
        torch.testing.assert_close(state.output, state.half + wrote)


# --- which tokens ask -------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (None, range(17)),
        (slice(None), range(17)),
        (slice(-2, None), [15, 16]),
        (slice(8, 2, -3), [8, 5]),
        (slice(14, 99), [14, 15, 16]),
        (0, [0]),
        (5, [5]),
        (-1, [16]),
        ([3, 0, -1, 3], [3, 0, 16, 3]),
        ([torch.tensor(4), True + 1], [4, 2]),
    ],
)
@pytest.mark.parametrize("kind", ["crate", "vit"], indirect=True)
def test_every_way_to_ask_keeps_the_axis_of_queries(unchecked, model, images, query, rows):
    state = next(model.unroll(images))
    full = torch.stack([state.attention(slice(n, n + 1))[:, :, 0] for n in range(17)], 2)
    found = state.attention(query)
    assert found.shape == (2, 3, len(rows), 17)
    torch.testing.assert_close(found, full[:, :, list(rows)])


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (17, ValueError, "query=17: there is no token 17 among 17"),
        (-18, ValueError, "there is no token -18 among 17"),
        ([0, 99], ValueError, r"query=\[0, 99\]: there is no token 99"),
        ([], ValueError, r"query=\[\] names no token"),
        (slice(17, 30), ValueError, "leaves none of the 17 tokens"),
        (slice(5, 5), ValueError, "leaves none"),
        ((0, 1), TypeError, r"query=\(0, 1\) is not a slice, a token"),
        (torch.tensor([0, 1]), TypeError, "is not a slice"),
        (1.0, TypeError, r"query=1\.0 is not a slice"),
        ("0", TypeError, "query='0' is not a slice"),
        (True, TypeError, "query=True is not a slice"),
        ([0, False], TypeError, "is not a slice"),
        (..., TypeError, "is not a slice"),
        ([[0]], TypeError, "is not a slice"),
    ],
)
def test_anything_else_is_no_query_and_never_another_axis(
    unchecked, build_tiny, images, query, error, message
):
    state = next(build_tiny("crate").unroll(images))
    with pytest.raises(error, match=message):
        state.attention(query)


# --- registers --------------------------------------------------------------------------------


@torch.no_grad()
def test_registers_stand_after_cls_without_a_position(build_tiny, images):
    plain, model = build_tiny("vit"), build_tiny("vit-registers")
    model.load_state_dict(plain.state_dict(), strict=False)
    state = next(model.unroll(images))
    assert state.tokens.shape == (2, 1 + 2 + 16, 12)
    assert model.patches == state.patches == slice(3, None)
    without = plain.embed(images)
    assert torch.equal(state.tokens[:, state.patches], without[:, 1:])
    assert torch.equal(state.tokens[:, 0], without[:, 0])
    assert torch.equal(state.tokens[:, 1:3], model.register_tokens.expand(2, -1, -1))
    assert plain.patches == slice(1, None)


def test_only_a_vit_has_registers(build_tiny):
    with pytest.raises(ValueError, match="registers=2, but a crate model has none"):
        build_tiny("crate").config.override(registers=2)
    with pytest.raises(ValueError, match="registers=-1 must be a whole number"):
        build_tiny("vit").config.override(registers=-1)
