"""Edits: one thing changed on the way through a network, to see what rests on it.

An edit names a layer, a place in it and what stands there instead; `model.unroll(images, edits)`,
`model(images, edits)` and all that walks through layers take a list of them. The places, in the
order in which a layer computes them, and what a change there means in each family:

=============  ==================================================================================
projections    U_k^T LN(Z). In MSSA they are query, key and value at once, so that all three
               change; in MHSA and a ViT they are the keys, and queries and values stay.
attention      The softmax rows; the values that they average stay.
head_outputs   What each head hands on before the output map. The only place where a head can be
               taken out alike in every family, and so where `ablate_head` acts. Setting it to zero
               is in MSSA the same as setting the head's projections to zero.
half           Z^{l+1/2}, after attention.
codes          What the second half writes in: ISTA's output, an overcomplete code, or an MLP's
               hidden activations. What is added around it (an MLP's residual) stays.
output         Z^{l+1}.
=============  ==================================================================================

Edits of different places act in this order, whatever the order in which they are given; edits of
one place act in the order given, each on what the one before it left. Later layers see what is
changed. An edit that would do nothing is an error: a layer, head, token or atom that is not there,
none of them named, a factor of 1, an edit that another one overwrites, or one that stands after
all that is read. Gradients pass through an edit to what is left and to the values that stand there.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from crate_analysis.interventions.recording import Recording
from crate_analysis.measures.steps import (
    derived_gradient,
    measured_gradient,
    random_step,
    turned,
    with_length_of,
)
from crate_analysis.models import LayerState, Place
from crate_analysis.models.unrolled import PLACES
from crate_analysis.names import digest

By = Literal["zero", "mean", "resample", "noise"]
HalfStep = Literal["compression", "sparsification"]
Direction = Literal["derived", "measured", "turned", "random"]

_HEADED: tuple[Place, ...] = ("projections", "attention", "head_outputs")
_COMPRESSION: tuple[Place, ...] = ("projections", "attention", "head_outputs", "half")
_ROUNDING = 1e-2  # of a row's sum, in half precision


@dataclass(frozen=True, eq=False, repr=False)
class Change:
    """An edit: what the functions of this module make. Printed, it is the call that made it."""

    layer: int
    """Which, from 0, or from the end when negative."""
    place: Place
    name: str
    act: Callable[[Tensor, LayerState], Tensor]
    """From what would stand there, and the state, to what stands there."""
    overwrites: tuple[Place, ...] = ()
    """Places of the layer whose edits have no effect beside this one."""
    values: tuple[Tensor, ...] = ()
    """Tensors that the name does not tell."""
    made_by_function: bool = False
    """Whether the name and the values do not tell all, as of a `change`."""

    def __call__(self, value: Tensor, state: LayerState) -> Tensor:
        """What stands at the place instead of `value`."""
        return self.act(value, state)

    def __repr__(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        """Tells it from any other, for results that are kept in a file.

        Raises ValueError for a `change`, whose function cannot be told from another.
        """
        if self.made_by_function:
            raise ValueError(f"{self} is made by a function, of which no fingerprint can be taken")
        parts = [one.detach().cpu().float().contiguous().numpy().tobytes() for one in self.values]
        return digest([self.name.encode(), *parts])


def ablate_head(
    layer: int,
    head: int | list[int],
    by: By = "zero",
    of: Recording | None = None,
    seed: int = 0,
) -> Change:
    """Take out one head or several: what they hand on, `head_outputs`, is replaced.

    Parameters
    ----------
    by : what stands there instead.
        ``zero``: nothing. Later layers may see tokens that they never saw in training.
        ``mean``: at each token, the mean over the images of `of`. What is common to all stays.
        ``resample``: that of an image of `of`, drawn for each image of the batch by `seed`.
        ``noise``: at each token, a random direction of the length of what it replaces, the same
        in each batch, drawn by `seed`.
    of : `record` of ``head_outputs``, of other images than those that are asked about.

    Raises ValueError for a head that is not there, an `of` that `by` needs or has no use for, and
    a recording of another place, layer or number of tokens.

    >>> ablate_head(4, head=2)
    ablate_head(4, 2)
    >>> ablate_head(-1, head=[0, 3], by="noise", seed=7)
    ablate_head(-1, [0, 3], by='noise', seed=7)
    """
    heads = _numbers("head", head)
    if by not in get_args(By):
        raise ValueError(f"by={by!r} is not one of {', '.join(get_args(By))}")
    if (of is not None) != (by in ("mean", "resample")):
        need = "needs of=record(model, images)" if of is None else "has no use for `of`"
        raise ValueError(f"by={by!r} {need}")
    if of is not None and of.place != "head_outputs":
        raise ValueError(f"of is a record of {of.place}; ablate_head needs one of head_outputs")

    def act(value: Tensor, state: LayerState) -> Tensor:
        _check_there("head", heads, value.shape[1])
        own = value[:, heads]
        if by == "zero":
            new = torch.zeros_like(own)
        elif by == "noise":
            noise = _noise(own, seed)
            length = own.norm(dim=-1, keepdim=True)
            new = noise * (length / noise.norm(dim=-1, keepdim=True))
        else:
            assert of is not None
            rows = of.at(state.index)
            _check_rows("of", rows.shape[1:], value, state)
            rows = rows[:, heads]
            new = rows.mean(0) if by == "mean" else rows[_draw(len(rows), own, seed)]
        changed = value.clone()
        changed[:, heads] = new.to(value)
        return changed

    shown = _call("ablate_head", layer, head, by=(by, "zero"), seed=(seed, 0))
    return Change(layer, "head_outputs", shown, act, values=_tensors(of))


def patch(
    layer: int,
    place: Place,
    values: Tensor | Recording,
    tokens: int | list[int] | slice | Tensor | None = None,
    heads: int | list[int] | None = None,
) -> Change:
    """Put there what another run had there: all of it, or of some tokens or heads.

    Parameters
    ----------
    values : of the shape of the place, as another run's state gives it
        (``state.head_outputs``), or a `record`ing. Row i is for image i of the batch; one row is
        for all. So over a data set, which is read in batches, give one row.
    tokens : which are replaced: one, a list, a slice, or a bool tensor (b,t) that says it for each
        image; `[CLS]` is 0. Of ``attention``, which tokens' rows. Default all.
    heads : which are replaced, at projections, attention and head_outputs. Default all.

    Raises ValueError for a place that is none, for heads at a place without, for no token, no head,
    or ones that are not there, and for values of another shape.

    >>> import torch
    >>> patch(4, "half", torch.zeros(1, 145, 128), tokens=slice(1, None))
    patch(4, 'half', (1, 145, 128), tokens=slice(1, None, None))
    """
    if place not in PLACES:
        raise ValueError(f"place={place!r} is not one of {', '.join(PLACES)}")
    if heads is not None and place not in _HEADED:
        raise ValueError(f"{place} have no heads; leave heads out, or name {', '.join(_HEADED)}")
    if isinstance(values, Recording) and values.place != place:
        raise ValueError(f"values are a record of {values.place}, but the place is {place}")
    chosen = None if heads is None else _numbers("heads", heads)
    asked = _tokens(tokens)

    def act(value: Tensor, state: LayerState) -> Tensor:
        new = values.at(state.index) if isinstance(values, Recording) else values
        _check_rows("values", new.shape[1:], value, state)
        if len(new) not in (1, len(value)):
            raise ValueError(
                f"values are of {len(new)} images, but this batch has {len(value)}; give one row "
                "for all, or one for each image"
            )
        here = torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
        if chosen is not None:
            _check_there("head", chosen, value.shape[1])
            here[:] = False
            here[:, chosen] = True
        if asked is not None:
            at = _at(asked, len(value), here.shape[-1]).to(here.device)
            here = here & (at[:, None] if place in _HEADED else at)
        return torch.where(here.unsqueeze(-1), new.to(value), value)

    shape = values if isinstance(values, Recording) else tuple(values.shape)
    shown = _call("patch", layer, place, shape, tokens=(_said(tokens), None), heads=(heads, None))
    before = PLACES[: PLACES.index(place) + 1]
    reach = before if place in ("head_outputs", "half", "output") else (place,)
    overwrites = reach if asked is None and chosen is None else ()
    kept = _tensors(values) + ((asked,) if isinstance(asked, Tensor) else ())
    return Change(layer, place, shown, act, overwrites, kept)


def freeze_attention(
    layer: int, pattern: Tensor | Recording, heads: int | list[int] | None = None
) -> Change:
    """Let heads look where they looked in another run, whatever they are shown now.

    Parameters
    ----------
    pattern : (b,h,t,t) or (1,h,t,t), as ``state.attention(None)`` gives it, or a `record` of
        ``attention``. What the heads average, their values, stays that of this run.
    heads : which; default all.

    Raises ValueError as `patch`, and for a pattern whose rows are not distributions.

    >>> import torch
    >>> freeze_attention(2, torch.full((1, 4, 145, 145), 1 / 145), heads=3)
    freeze_attention(2, (1, 4, 145, 145), heads=3)
    """
    for rows in _tensors(pattern):
        if not ((rows >= 0).all() and (rows.sum(-1) - 1).abs().max() < _ROUNDING):
            raise ValueError(
                "pattern is no attention: its rows must be 0 or more and sum to 1, as those of "
                "state.attention(None)"
            )
    made = patch(layer, "attention", pattern, heads=heads)
    shape = pattern if isinstance(pattern, Recording) else tuple(pattern.shape)
    shown = _call("freeze_attention", layer, shape, heads=(heads, None))
    return Change(layer, "attention", shown, made.act, made.overwrites, made.values)


def cut_atom(layer: int, atom: int | list[int]) -> Change:
    """Take atoms out of what the second half writes: their codes become zero in every token.

    In CRATE the code takes the token's place, so that coordinate `atom` of Z^{l+1} is zero; where
    a second dictionary leads back from the codes, or an MLP's second matrix, that column writes
    nothing. The step that finds the other codes stays as it is.

    Raises ValueError for an atom that is not there.

    >>> cut_atom(3, [5, 17])
    cut_atom(3, [5, 17])
    """
    atoms = _numbers("atom", atom)

    def act(value: Tensor, state: LayerState) -> Tensor:
        _check_there("atom", atoms, value.shape[-1])
        keep = torch.ones(value.shape[-1], dtype=value.dtype, device=value.device)
        keep[atoms] = 0
        return value * keep

    return Change(layer, "codes", _call("cut_atom", layer, atom), act)


def skip(layer: int, half_step: HalfStep) -> Change:
    """Leave out half a layer: `scale` by 0.

    Without compression Z^{l+1/2} is Z^l. Without sparsification Z^{l+1} is what the step sets out
    from: Z^{l+1/2} where it has a residual, and LN(Z^{l+1/2}) for ISTA, which codes that.

    >>> skip(5, "sparsification")
    skip(5, 'sparsification')
    """
    scaled = scale(layer, half_step, 0)
    return Change(
        layer, scaled.place, _call("skip", layer, half_step), scaled.act, scaled.overwrites
    )


def scale(layer: int, half_step: HalfStep, factor: float | int) -> Change:
    """Lengthen, shorten or turn round half a layer's step: s + factor (step - s).

    s is where the half step sets out from: see `skip`. Raises ValueError for a factor of 1, which
    would do nothing, and one that is not finite.

    >>> scale(0, "compression", 0.5)
    scale(0, 'compression', 0.5)
    """
    if factor == 1 or not math.isfinite(factor):
        raise ValueError(f"factor={factor} must be a finite number other than 1: 1 changes nothing")

    def compression(value: Tensor, state: LayerState) -> Tensor:
        return state.tokens + factor * (value - state.tokens)

    def sparsification(value: Tensor, state: LayerState) -> Tensor:
        start = state.half if state.has_residual else state.normed_half
        return start + factor * (value - start)

    shown = _call("scale", layer, half_step, factor)
    if _checked(half_step) == "compression":
        return Change(layer, "half", shown, compression, () if factor else _COMPRESSION)
    return Change(layer, "output", shown, sparsification, () if factor else ("codes", "output"))


def replace_step(
    layer: int, by: Direction = "derived", eps2: float = 0.01, seed: int = 0
) -> Change:
    """Compress in another direction, in each image by a step as long as the learned one.

    Parameters
    ----------
    by : the step that takes the place of Z^{l+1/2} - Z^l.
        ``derived``: down the gradient of R^c(Z | U_[K]) that the derivation starts from, of which
        attention is an approximation (`derived_gradient`; of a ViT's keys where it has those).
        ``measured``: down the gradient of the rate that is measured (`measured_gradient`), through
        which no gradient is passed on.
        ``turned``: the learned step with all its tokens turned by one random rotation (`turned`).
        ``random``: in a direction drawn by `seed`, the same in each batch (`random_step`).
    eps2 : of the rate.

    ISTA needs no such edit: it is the exact proximal gradient step of its objective.

    >>> replace_step(2, by="random")
    replace_step(2, by='random')
    """
    if by not in get_args(Direction):
        raise ValueError(f"by={by!r} is not one of {', '.join(get_args(Direction))}")

    def act(value: Tensor, state: LayerState) -> Tensor:
        step = value - state.tokens
        if by == "derived":
            gradient = derived_gradient(state.subspaces, state.projections, eps2)
            step = with_length_of(-gradient, step)
        elif by == "measured":
            step = with_length_of(-measured_gradient(state, eps2), step)
        else:
            step = {"turned": turned, "random": random_step}[by](step, seed)
        return state.tokens + step

    shown = _call("replace_step", layer, by=(by, "derived"), eps2=(eps2, 0.01), seed=(seed, 0))
    return Change(layer, "half", shown, act)


def change(
    layer: int, place: Place, function: Callable[[Tensor, LayerState], Tensor], name: str = ""
) -> Change:
    """Any other edit: a function of what would stand there, and of the layer's state.

    It gives a tensor of the same shape, and writes into neither. `name` is how it is printed.

    >>> change(1, "half", lambda half, state: half.flip(1), name="tokens in reverse")
    tokens in reverse
    """
    if place not in PLACES:
        raise ValueError(f"place={place!r} is not one of {', '.join(PLACES)}")
    shown = name or f"change({layer}, {place!r}, {getattr(function, '__name__', function)})"
    return Change(layer, place, shown, function, made_by_function=True)


def _at(tokens: list[int] | slice | Tensor, images: int, count: int) -> Tensor:
    """Which tokens of which images, (b,t) bool."""
    if isinstance(tokens, Tensor):
        if tokens.shape != (images, count):
            raise ValueError(
                f"tokens say it for {tuple(tokens.shape)}, but this batch has {images} images of "
                f"{count} tokens"
            )
        return tokens
    at = torch.zeros(images, count, dtype=torch.bool)
    if isinstance(tokens, slice):
        if not range(count)[tokens]:
            raise ValueError(f"tokens={tokens} leave none of the {count} tokens")
        at[:, list(range(count)[tokens])] = True
    else:
        _check_there("token", tokens, count)
        at[:, tokens] = True
    return at


def _tokens(
    tokens: int | list[int] | slice | Tensor | None,
) -> list[int] | slice | Tensor | None:
    if tokens is None or isinstance(tokens, slice):
        return tokens
    if not isinstance(tokens, Tensor):
        return _numbers("tokens", tokens)
    if tokens.dtype != torch.bool or tokens.ndim != 2:
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; give a bool tensor of "
            "(images, tokens), a list of tokens, or a slice"
        )
    empty = (~tokens.any(1)).nonzero()
    if len(empty):
        raise ValueError(f"tokens name none of image {int(empty[0])}: leave that image out")
    return tokens


def _numbers(name: str, value: int | list[int]) -> list[int]:
    """One number or several as a list of different ones."""
    several = value if isinstance(value, list | tuple) else [value]
    try:
        found = [operator.index(one) for one in several if not isinstance(one, bool)]
    except TypeError:
        found = []
    if len(found) != len(several):
        raise TypeError(f"{name}={value!r} must be an int or a list of them")
    if not found:
        raise ValueError(f"{name}={value!r} names none")
    if len(set(found)) < len(found):
        raise ValueError(f"{name}={value!r} names one twice")
    return found


def _check_there(name: str, numbers: Sequence[int], count: int) -> None:
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"there is no {name} {number}: the layer has {name}s 0 to {count - 1}")


def _check_rows(name: str, shape: torch.Size, value: Tensor, state: LayerState) -> None:
    if shape != value.shape[1:]:
        raise ValueError(
            f"{name} has {tuple(shape)} an image, but layer {state.index} has "
            f"{tuple(value.shape[1:])} there; take it from the same model and images of this size"
        )


def _checked(half_step: HalfStep) -> HalfStep:
    if half_step not in get_args(HalfStep):
        raise ValueError(f"half_step={half_step!r} is not one of {', '.join(get_args(HalfStep))}")
    return half_step


def _noise(like: Tensor, seed: int) -> Tensor:
    """Standard normal, the same on every device."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def _draw(count: int, like: Tensor, seed: int) -> Tensor:
    return torch.randint(count, (len(like),), generator=torch.Generator().manual_seed(seed))


def _tensors(values: Tensor | Recording | None) -> tuple[Tensor, ...]:
    if isinstance(values, Recording):
        return tuple(values.values.values())
    return () if values is None else (values,)


def _said(tokens: object) -> object:
    return f"bool {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else tokens


def _call(function: str, *given: object, **named: tuple[object, object]) -> str:
    """The call as one would write it: what is at its default is left out."""
    shown = [repr(one) for one in given]
    shown += [f"{name}={value!r}" for name, (value, default) in named.items() if value != default]
    return f"{function}({', '.join(shown)})"
