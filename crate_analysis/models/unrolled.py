"""A network as an unrolled optimisation: what every layer offers, and one layer's state.

The measured quantities are those of Yu et al. 2023 (arXiv 2306.01129) and Yu et al. 2024
(arXiv 2308.16271). Axis letters: b images, n patches, t = n + 1 tokens with `[CLS]` first,
d embedding, h heads, p dimension of a head, q queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from crate_analysis.models.config import ModelConfig


class SparseCoding(NamedTuple):
    """What a step of ISTA lowers, 1/2 ||z - D a||^2 + sparsity ||a||_1, and by what step.

    Yu et al. 2023, Sec. 2.4. The code a of a token z starts from a = z.
    """

    dictionary: Float[Tensor, "d d"]
    """D, one atom a column."""
    step_size: float
    """eta."""
    sparsity: float
    """lambda."""


@runtime_checkable
class Layer(Protocol):
    """One step of the optimisation, in the pieces that `LayerState` hands out."""

    def normalize(self, tokens: Tensor) -> Tensor:
        """LN(Z): what attention sees of the tokens, (b,t,d)."""

    def project(self, normed: Tensor) -> Tensor:
        """U_k^T LN(Z) for every head, (b,h,t,p); the keys where queries and keys differ."""

    def attention_rows(self, normed: Tensor, projections: Tensor, query: slice) -> Tensor:
        """Softmax rows of the chosen queries, (b,h,q,t)."""

    def attend(self, tokens: Tensor, normed: Tensor, projections: Tensor) -> Tensor:
        """Z^{l+1/2}, (b,t,d)."""

    def normalize_half(self, half: Tensor) -> Tensor:
        """LN(Z^{l+1/2}): what the second half of the layer sees, (b,t,d)."""

    def transform(self, half: Tensor) -> Tensor:
        """Z^{l+1} from Z^{l+1/2}, (b,t,d)."""

    def subspaces(self) -> Tensor:
        """The bases U_k, (h,d,p)."""

    def sparse_coding(self) -> SparseCoding:
        """The dictionary and settings of ISTA; ValueError in a layer without it."""


class LayerState:
    """One layer of one forward pass; an attribute is computed when it is first read.

    `tokens` is Z^l. The next layer needs `output`, and `output` needs `half`; nothing else is
    computed unless it is asked for.
    """

    def __init__(self, index: int, tokens: Float[Tensor, "b t d"], layer: Layer) -> None:
        self.index = index
        self.tokens = tokens
        self._layer = layer

    @cached_property
    def normed(self) -> Float[Tensor, "b t d"]:
        """LN(Z^l): what attention sees of the tokens."""
        return self._layer.normalize(self.tokens)

    @cached_property
    def projections(self) -> Float[Tensor, "b h t p"]:
        """U_k^T LN(Z^l), one subspace a head; a ViT's keys."""
        return self._layer.project(self.normed)

    @cached_property
    def half(self) -> Float[Tensor, "b t d"]:
        """Z^{l+1/2}: the tokens after attention, the compression step."""
        return self._layer.attend(self.tokens, self.normed, self.projections)

    @cached_property
    def output(self) -> Float[Tensor, "b t d"]:
        """Z^{l+1}: the tokens after the sparsification step."""
        return self._layer.transform(self.half)

    @cached_property
    def normed_half(self) -> Float[Tensor, "b t d"]:
        """LN(Z^{l+1/2}): the tokens z that ISTA codes, or that an MLP sees."""
        return self._layer.normalize_half(self.half)

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

    def attention(self, query: slice = slice(0, 1)) -> Float[Tensor, "b h q t"]:
        """Attention of the chosen queries (default: `[CLS]`) to all tokens; rows sum to 1."""
        return self._layer.attention_rows(self.normed, self.projections, query)

    def project(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t p"]:
        """Any tokens, normalised and seen in this layer's subspaces.

        `state.project(state.half)` measures R^c where the paper places it, after attention;
        `state.projections` is `state.project(state.tokens)`, where the released code measures it.
        """
        return self._layer.project(self._layer.normalize(tokens))


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
        """Z^1: patch tokens with `[CLS]` first and positions added, (b,t,d)."""
        raise NotImplementedError

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits from the last layer's `[CLS]` token."""
        raise NotImplementedError

    def unroll(self, images: Float[Tensor, "b 3 H W"]) -> Iterator[LayerState]:
        """The layers' states in order, one at a time.

        Parameters
        ----------
        images : normalised pictures (see `normalize`) of any size that the patch size divides.

        Raises ValueError for pictures that are not float, not RGB, or that the patch size does not
        divide.
        """
        self.patch_grid(images)
        return self._unroll(images)

    def _unroll(self, images: Tensor) -> Iterator[LayerState]:
        state: LayerState | None = None
        for index, layer in enumerate(self.layers):
            # read only now, so that the last layer's output, too, waits until it is asked for
            tokens = state.output if state else self.embed(images)
            state = LayerState(index, tokens, layer)
            yield state

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b classes"]:
        """Logits; `unroll` to the end."""
        for state in self.unroll(images):
            tokens = state.output
        return self.classify(tokens)

    def patch_grid(self, images: Tensor) -> tuple[int, int]:
        """(gh, gw), the patches along the sides of these pictures.

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

        Raises ValueError for pictures that are not uint8: they may be normalised already.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}, but normalize takes uint8 pixels")
        mean = torch.tensor(self.config.pixel_mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.config.pixel_std, device=images.device).view(3, 1, 1)
        return (images.float() / 255 - mean) / std


def resize_positions(
    positions: Float[Tensor, "1 t d"], grid: tuple[int, int]
) -> Float[Tensor, "1 s d"]:
    """Position embeddings for another patch grid, bicubically, as the released DINO and CRATE code.

    The 0.1 is theirs: it keeps the rounded output size right, and shifts the samples a little.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if grid == (side, side):
        return positions
    patches = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    resized = F.interpolate(
        patches, scale_factor=scale, mode="bicubic", recompute_scale_factor=False
    )
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

    On large pictures that is several times as fast (benchmarks/measures.py). In bfloat16 on a CPU
    the formula is faster, for the small heads of our networks.
    """
    if queries.dtype == torch.bfloat16 and queries.device.type == "cpu":
        return softmax_rows(queries, keys) @ values
    return F.scaled_dot_product_attention(queries, keys, values)
