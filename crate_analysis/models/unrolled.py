"""A network as an unrolled optimisation: what every layer offers, and one layer's state.

The measured quantities are those of Yu et al. 2023 (arXiv 2306.01129) and Yu et al. 2024
(arXiv 2308.16271). Axis letters: b images, n patches, r registers, t = 1 + r + n tokens with
`[CLS]` first and then the registers, d embedding, h heads, p dimension of a head, q queries,
c codes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from crate_analysis.models.config import ModelConfig, PositionResize


class SparseCoding(NamedTuple):
    """What a step of ISTA lowers, 1/2 ||z - D a||^2 + sparsity ||a||_1, and by what step.

    Yu et al. 2023, Sec. 2.4. The code a of a token z starts from a = z, and takes one step; in
    CRATE-alpha's overcomplete dictionary it starts from 0 and takes two (`state.initial_codes`).
    """

    dictionary: Float[Tensor, "d c"]
    """D, one atom a column; c = d but for CRATE-alpha."""
    step_size: float
    """eta."""
    sparsity: float
    """lambda."""


@runtime_checkable
class Layer(Protocol):
    """One step of the optimisation, in the pieces that `LayerState` hands out, in their order.

    A network is added by writing these; `LayerState`, edits and all that reads states then work.
    """

    has_residual: bool
    """Whether the second half adds to Z^{l+1/2}, as an MLP does, or takes its place, as ISTA."""

    has_dictionary: bool
    """Whether the second half is a step of ISTA."""

    def normalize(self, tokens: Tensor) -> Tensor:
        """LN(Z): what attention sees of the tokens, (b,t,d)."""

    def project(self, normed: Tensor) -> Tensor:
        """U_k^T LN(Z) for every head, (b,h,t,p); the keys where queries and keys differ."""

    def queries(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The queries of the tokens given, (b,h,q,p) from their (b,q,d) and (b,h,q,p)."""

    def values(self, normed: Tensor, projections: Tensor) -> Tensor:
        """What attention averages, (b,h,t,p)."""

    def attend(self, tokens: Tensor, head_outputs: Tensor) -> Tensor:
        """Z^{l+1/2} from Z^l and what the heads hand on, through the output map, (b,t,d)."""

    def normalize_half(self, half: Tensor) -> Tensor:
        """LN(Z^{l+1/2}): what the second half of the layer sees, (b,t,d)."""

    def encode(self, normed_half: Tensor) -> Tensor:
        """The codes that the second half writes in, (b,t,c)."""

    def decode(self, half: Tensor, codes: Tensor) -> Tensor:
        """Z^{l+1} from Z^{l+1/2} and the codes, (b,t,d)."""

    def initial_codes(self, normed_half: Tensor) -> Tensor:
        """Where ISTA starts, (b,t,c); ValueError in a layer without it."""

    def subspaces(self) -> Tensor:
        """The bases U_k, (h,d,p)."""

    def sparse_coding(self) -> SparseCoding:
        """The dictionary and settings of ISTA; ValueError in a layer without it."""


Place = Literal["projections", "attention", "head_outputs", "half", "codes", "output"]
"""Where an edit may stand, in the order in which a layer computes them."""

PLACES: tuple[Place, ...] = get_args(Place)


@runtime_checkable
class Edit(Protocol):
    """One thing changed on the way; `crate_analysis.interventions` makes them."""

    @property
    def layer(self) -> int:
        """Which, from 0, or from the end when negative."""

    @property
    def place(self) -> Place:
        """What is changed."""

    @property
    def overwrites(self) -> Sequence[Place]:
        """The places of its layer whose edits have no effect beside it."""

    def __call__(self, value: Tensor, state: LayerState) -> Tensor:
        """What stands at the place instead of `value`, of the same shape.

        `state` may be asked for what comes before the place, as it is after the edits before it.
        """


class LayerState:
    """One layer of one forward pass; an attribute is computed when it is first read.

    `tokens` is Z^l. The next layer needs `output`, and `output` needs `half`; nothing else is kept
    unless it is asked for. A state is read-only, and so are its tensors: what is to run
    differently is named by `edits` of `unroll`. Each attribute is what it is after the edits.
    """

    index: int
    """The layer, from 0."""
    tokens: Float[Tensor, "b t d"]
    """Z^l: what the layer is given."""
    patches: slice
    """The patch tokens: those after `[CLS]` and the registers, as in
    ``state.attention()[..., state.patches]``."""
    _layer: Layer
    _edits: tuple[Edit, ...]

    def __init__(
        self,
        index: int,
        tokens: Float[Tensor, "b t d"],
        layer: Layer,
        patches: slice = slice(1, None),
        edits: Sequence[Edit] = (),
    ) -> None:
        vars(self).update(
            index=index, tokens=tokens, patches=patches, _layer=layer, _edits=tuple(edits)
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a layer's state is read-only, so {name!r} cannot be set: to run on with something "
            "changed, pass edits, as in model.unroll(images, edits=[...]); "
            "see crate_analysis.interventions"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(
            f"a layer's state is read-only, so {name!r} cannot be deleted: to run on with "
            "something changed, pass edits, as in model.unroll(images, edits=[...])"
        )

    @cached_property
    def normed(self) -> Float[Tensor, "b t d"]:
        """LN(Z^l): what attention sees of the tokens."""
        return self._layer.normalize(self.tokens)

    @cached_property
    def projections(self) -> Float[Tensor, "b h t p"]:
        """U_k^T LN(Z^l), one subspace a head; a ViT's keys."""
        return self._edited("projections", self._layer.project(self.normed))

    @cached_property
    def head_outputs(self) -> Float[Tensor, "b h t p"]:
        """What each head hands on: its values averaged by its attention, before the output map."""
        queries = self._layer.queries(self.normed, self.projections)
        values = self._layer.values(self.normed, self.projections)
        if self._has_edit("attention"):
            mixed = self._edited_attention @ values
        else:
            mixed = weighted_values(queries, self.projections, values)
        return self._edited("head_outputs", mixed)

    @cached_property
    def half(self) -> Float[Tensor, "b t d"]:
        """Z^{l+1/2}: the tokens after attention, the compression step."""
        half = self._layer.attend(self.tokens, self._passing("head_outputs"))
        return self._edited("half", half)

    @cached_property
    def normed_half(self) -> Float[Tensor, "b t d"]:
        """LN(Z^{l+1/2}): the tokens z that ISTA codes, or that an MLP sees."""
        return self._layer.normalize_half(self.half)

    @cached_property
    def codes(self) -> Float[Tensor, "b t c"]:
        """What the second half writes each token in, c numbers a token.

        ISTA's output itself (c = d); an overcomplete step's code before the dictionary on the way
        back; an MLP's hidden activations after GELU, which weigh the columns of its second matrix
        as a code weighs atoms, though nothing makes them sparse.
        """
        return self._edited("codes", self._layer.encode(self._passing("normed_half")))

    @cached_property
    def output(self) -> Float[Tensor, "b t d"]:
        """Z^{l+1}: the tokens after the sparsification step."""
        return self._edited("output", self._layer.decode(self.half, self._passing("codes")))

    @property
    def registers(self) -> Float[Tensor, "b r d"]:
        """The register tokens among `tokens`, which stand for no patch; r = 0 in most networks."""
        return self.tokens[:, 1 : self.patches.start]

    @property
    def initial_codes(self) -> Float[Tensor, "b t c"]:
        """Where ISTA's step starts: the token itself, or 0 in an overcomplete dictionary.

        Raises ValueError in a layer without a dictionary, as `sparse_coding`.
        """
        return self._layer.initial_codes(self.normed_half)

    @property
    def sparsified(self) -> Float[Tensor, "b t c"]:
        """What the paper counts the non-zero entries of: ISTA's code, another layer's output.

        In CRATE these are one, in CRATE-alpha the code has four times as many entries as a token.
        """
        overcomplete = self._layer.has_dictionary and self.has_residual
        return self.codes if overcomplete else self.output  # in ISTA one, but for its edits

    @property
    def has_residual(self) -> bool:
        """Whether the second half adds to `half`; else what it writes takes its place."""
        return self._layer.has_residual

    @property
    def subspaces(self) -> Float[Tensor, "h d p"]:
        """The bases U_k, one a head, as learned (not orthonormal); of a ViT's and MHSA's keys.

        `projections` is U_k^T `normed`, plus the bias that a ViT's keys have.
        """
        return self._layer.subspaces()

    @property
    def sparse_coding(self) -> SparseCoding:
        """The dictionary D, step size and sparsity of the ISTA step.

        Raises ValueError in a layer without one: a ViT's, or one with an MLP.
        """
        return self._layer.sparse_coding()

    def attention(
        self, query: slice | int | list[int] | None = slice(0, 1)
    ) -> Float[Tensor, "b h q t"]:
        """Attention of the chosen queries (default: `[CLS]`) to all tokens; rows sum to 1.

        Parameters
        ----------
        query : which tokens ask: a slice, a list of tokens, one token (which keeps its axis,
            q = 1), or None for all. Negative numbers count from the end, as in any sequence.

        Raises TypeError for anything else, and ValueError for a token that is not there and where
        no token is left.
        """
        chosen = _chosen(query, self.tokens.shape[1])
        if self._has_edit("attention"):
            return self._edited_attention[:, :, chosen]
        return self._rows(chosen)

    def project(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t p"]:
        """Any tokens, normalised and seen in this layer's subspaces; no edit has a part in it.

        `state.project(state.half)` measures R^c where the paper places it, after attention;
        `state.projections` is `state.project(state.tokens)`, where the released code measures it.
        """
        return self._layer.project(self._layer.normalize(tokens))

    def check_edits_read(self) -> None:
        """Raise ValueError where an edit stands after all that was read: it has done nothing."""
        for edit in self._edits:
            read = "_edited_attention" if edit.place == "attention" else edit.place
            if read not in vars(self):
                raise ValueError(
                    f"{edit} has done nothing: of layer {self.index}, the last that is read, "
                    f"nothing was read that depends on {edit.place}"
                )

    def _rows(self, query: slice | list[int]) -> Tensor:
        """Softmax rows of the chosen queries, (b,h,q,t)."""
        asked = self._layer.queries(self.normed[:, query], self.projections[:, :, query])
        return softmax_rows(asked, self.projections)

    @cached_property
    def _edited_attention(self) -> Tensor:
        """The whole matrix, (b,h,t,t): the one stage that is not built without an edit of it."""
        return self._edited("attention", self._rows(slice(None)))

    def _has_edit(self, place: Place) -> bool:
        return any(edit.place == place for edit in self._edits)

    def _edited(self, place: Place, value: Tensor) -> Tensor:
        """The value after the edits of its place, in the order in which they were given."""
        for edit in self._edits:
            if edit.place == place:
                changed = edit(value, self)
                if changed.shape != value.shape:
                    raise ValueError(
                        f"{edit} gives {tuple(changed.shape)} at layer {self.index}, but "
                        f"{place} are {tuple(value.shape)}"
                    )
                value = changed
        return value

    def _passing(self, name: str) -> Tensor:
        """A stage on the way to the next: one already read or edited is kept, another is not."""
        if self._edits or name in vars(self):
            return getattr(self, name)
        return getattr(type(self), name).func(self)


def _check_effect(edits: Sequence[Edit]) -> None:
    """Raise ValueError where one of a layer's edits overwrites another."""
    for count, edit in enumerate(edits):
        for other_count, other in enumerate(edits):
            earlier = other.place != edit.place or other_count < count
            if earlier and other.place in edit.overwrites:
                raise ValueError(f"{other} would do nothing: {edit} overwrites it; leave one out")


def _chosen(query: slice | int | list[int] | None, tokens: int) -> slice | list[int]:
    """The queries as an index that keeps their axis; see `LayerState.attention`."""
    if query is None:
        return slice(None)
    if isinstance(query, slice):
        left = range(tokens)[query]
        if not left:
            raise ValueError(f"query={query} leaves none of the {tokens} tokens")
        return query if left.step > 0 else list(left)
    if query == []:
        raise ValueError("query=[] names no token; None asks for all")
    try:
        places = [_whole(place) for place in (query if isinstance(query, list) else [query])]
    except TypeError as error:
        raise TypeError(
            f"query={query!r} is not a slice, a token (int), a list of tokens, or None for all"
        ) from error
    for place in places:
        if not -tokens <= place < tokens:
            raise ValueError(f"query={query!r}: there is no token {place} among {tokens}")
    return places


def _whole(value: object) -> int:
    """A whole number, also of NumPy or torch. Raises TypeError for another value and a bool."""
    if isinstance(value, bool):
        raise TypeError("a bool counts nothing")
    return operator.index(value)  # type: ignore[arg-type]


class UnrolledModel(nn.Module):
    """A classifier read layer by layer; subclasses give `layers`, `embed` and `classify`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.name: str = config.family
        """What tables call it: the label it was loaded by, or the architecture."""
        self.notes: tuple[str, ...] = ()
        """How its file was read: the layout, what was left aside, what the file does not say."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The steps of the optimisation, in order."""
        raise NotImplementedError

    @property
    def classifier_name(self) -> str:
        """The submodule that gives the logits, which another data set's classes need anew."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Z^1: `[CLS]`, the registers and the patch tokens, with positions added, (b,t,d)."""
        raise NotImplementedError

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits from the last layer's `[CLS]` token."""
        raise NotImplementedError

    @property
    def patches(self) -> slice:
        """The patches among the tokens, those after `[CLS]` and the registers."""
        return slice(1 + self.config.registers, None)

    def unroll(
        self, images: Float[Tensor, "b 3 H W"], edits: Sequence[Edit] = ()
    ) -> Iterator[LayerState]:
        """The layers' states in order, one at a time.

        Parameters
        ----------
        images : normalised images (see `normalize`) of any size that the patch size divides.
        edits : what is changed on the way, see `crate_analysis.interventions`. Edits of one place
            of one layer apply in the order given, each to what the one before it left. Only the
            stages that an edit names leave the fast path.

        Raises ValueError for images that are not float, not RGB, or that the patch size does not
        divide, for an edit of a layer that does not exist or of a place that is none, and for one
        that another overwrites; TypeError for what is no list of edits.
        """
        self.patch_grid(images)
        return self._unroll(lambda: self.embed(images), 0, self._by_layer(edits))

    def resume(
        self, tokens: Float[Tensor, "b t d"], layer: int, edits: Sequence[Edit] = ()
    ) -> Iterator[LayerState]:
        """The states from a layer on, of the tokens that it is given; what came before is saved.

        Raises as `unroll`, and ValueError for an edit of an earlier layer.

        >>> from crate_analysis import build_model
        >>> model = build_model("crate_micro_patch6_72.creatures")
        >>> [state.index for state in model.resume(torch.randn(1, 145, 128), 4)]
        [4, 5]
        """
        first, by_layer = self.layer_index(layer), self._by_layer(edits)
        if by_layer and min(by_layer) < first:
            early = by_layer[min(by_layer)][0]
            raise ValueError(f"{early} would do nothing: layers are run from {first} on")
        return self._unroll(lambda: tokens, first, by_layer)

    def _unroll(
        self, start: Callable[[], Tensor], first: int, edits: Mapping[int, list[Edit]]
    ) -> Iterator[LayerState]:
        state: LayerState | None = None
        for index, layer in enumerate(self.layers[first:], first):
            # read only now, so that the last layer's output, too, waits until it is asked for
            tokens = state.output if state else start()
            state = LayerState(index, tokens, layer, self.patches, edits.get(index, ()))
            yield state

    def _by_layer(self, edits: Sequence[Edit]) -> dict[int, list[Edit]]:
        """The edits of each layer, in order; the errors of `unroll`."""
        if not isinstance(edits, list | tuple):
            raise TypeError(f"edits={edits!r} must be a list, such as [ablate_head(4, 2)]")
        found: dict[int, list[Edit]] = {}
        for edit in edits:
            if not isinstance(edit, Edit):
                raise TypeError(f"{edit!r} is no edit; crate_analysis.interventions makes them")
            if edit.place not in PLACES:
                raise ValueError(f"{edit} has place {edit.place!r}, none of {', '.join(PLACES)}")
            found.setdefault(self.layer_index(edit.layer), []).append(edit)
        for together in found.values():
            _check_effect(together)
        return found

    def layer_index(self, layer: int) -> int:
        """`layer` counted from the front.

        Raises ValueError where the model has no such layer, and TypeError for what is no int.
        """
        has = f"{self.name} has layers 0 to {len(self.layers) - 1}"
        try:
            index = _whole(layer)
        except TypeError as error:
            raise TypeError(f"layer={layer!r} must be an int: {has}") from error
        if not -len(self.layers) <= index < len(self.layers):
            raise ValueError(f"layer {layer} does not exist: {has}")
        return index % len(self.layers)

    def forward(
        self, images: Float[Tensor, "b 3 H W"], edits: Sequence[Edit] = ()
    ) -> Float[Tensor, "b classes"]:
        """Logits; `unroll` to the end."""
        for state in self.unroll(images, edits):
            tokens = state.output
        return self.classify(tokens)

    def patch_grid(self, images: Tensor) -> tuple[int, int]:
        """(gh, gw), the patches along the sides of these images.

        Raises ValueError for what the model cannot take, as `unroll` does.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {tuple(images.shape)}, but a model takes (b, 3, H, W)")
        height, width = images.shape[-2:]
        patch = self.config.patch_size
        if not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype}, but a model takes normalised floats: "
                "pass model.normalize(images)"
            )
        if height % patch or width % patch:
            near = [max(1, round(side / patch)) * patch for side in (height, width)]
            raise ValueError(
                f"images are {height} x {width} pixels, which patch size {patch} does not divide; "
                f"resize them to {near[0]} x {near[1]}"
            )
        return height // patch, width // patch

    def normalize(self, images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
        """Pixels of 0..255 to the model's scale, by the mean and deviation it was trained with.

        Raises ValueError for images that are not uint8: they may be normalised already.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}, but normalize takes uint8 pixels")
        mean = torch.tensor(self.config.pixel_mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.config.pixel_std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std


def resize_positions(
    positions: Float[Tensor, "1 t d"], grid: tuple[int, int], how: PositionResize = "offset"
) -> Float[Tensor, "1 s d"]:
    """Position embeddings for another patch grid, bicubically; `[CLS]`'s stays as it is.

    Parameters
    ----------
    positions : of `[CLS]` and a square grid of patches.
    grid : (gh, gw), that is wanted.
    how : by a factor with an `offset` of 0.1, as the released code of CRATE, DINO and DINOv2, which
        keeps the rounded output size right and shifts the samples a little; by `size`, as the
        transformers library; or by size with `antialias`, as DINOv2 with registers and timm.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if grid == (side, side):
        return positions
    patches = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if how == "offset":
        scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        resized = F.interpolate(
            patches, scale_factor=scale, mode="bicubic", recompute_scale_factor=False
        )
    else:
        resized = F.interpolate(patches, grid, mode="bicubic", antialias=how == "antialias")
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def split_heads(x: Float[Tensor, "b t c"], heads: int) -> Float[Tensor, "b h t p"]:
    """Heads lie side by side in the last axis."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b h t p"]) -> Float[Tensor, "b t c"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def head_bases(weight: Float[Tensor, "c d"], heads: int) -> Float[Tensor, "h d p"]:
    """The bases U_k in a linear layer's weight, whose rows are the stacked U_k^T."""
    return weight.unflatten(0, (heads, -1)).mT


def softmax_rows(
    queries: Float[Tensor, "b h q p"], keys: Float[Tensor, "b h t p"]
) -> Float[Tensor, "b h q t"]:
    """Softmax of scaled inner products, the attention matrix of both families."""
    return (queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(dim=-1)


def weighted_values(
    queries: Float[Tensor, "b h q p"],
    keys: Float[Tensor, "b h t p"],
    values: Float[Tensor, "b h t c"],
) -> Float[Tensor, "b h q c"]:
    """`softmax_rows(queries, keys) @ values`, by torch's fused attention, which has no such matrix.

    On large images that is several times as fast (benchmarks/measures.py). In bfloat16 on a CPU
    the formula is faster, for the small heads of our networks.
    """
    if queries.dtype == torch.bfloat16 and queries.device.type == "cpu":
        return softmax_rows(queries, keys) @ values
    return F.scaled_dot_product_attention(queries, keys, values)
