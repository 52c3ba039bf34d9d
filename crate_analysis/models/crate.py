"""CRATE: attention that compresses (MSSA), then a step of ISTA that sparsifies.

Yu et al. 2023 (arXiv 2306.01129), Yu et al. 2024 (arXiv 2308.16271). Parameter names are those of
the released checkpoints, and where paper and released code differ this follows the code:
`half = z + MSSA(LN(z))`, `output = ISTA(LN(half))`, no residual around ISTA, and the output map of
MSSA is a free linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crate_analysis.models.config import ModelConfig
from crate_analysis.models.unrolled import (
    Layer,
    SparseCoding,
    UnrolledModel,
    head_bases,
    merge_heads,
    resize_positions,
    split_heads,
)


class SubspaceAttention(nn.Module):
    """MSSA: one projection a head serves as query, key and value (Yu et al. 2023, Eq. 13-14)."""

    def __init__(self, dim: int, heads: int, output_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, dim, bias=False)  # rows are the stacked U_k^T
        self.to_out = output_map(dim, heads, output_bias)

    def subspaces(self) -> Tensor:
        """The bases U_k, (h,d,p)."""
        return head_bases(self.qkv.weight, self.heads)

    def project(self, normed: Tensor) -> Tensor:
        """U_k^T LN(Z), (b,h,t,p)."""
        return split_heads(self.qkv(normed), self.heads)

    def queries(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The projections again, (b,h,q,p)."""
        return projections

    def values(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The projections again, (b,h,t,p)."""
        return projections


class MultiHeadAttention(nn.Module):
    """ViT's attention, with separate queries, keys and values, in CRATE's frame (CRATE-MHSA)."""

    def __init__(self, dim: int, heads: int, output_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = output_map(dim, heads, output_bias)

    def _part(self, normed: Tensor, index: int) -> Tensor:
        return split_heads(F.linear(normed, self.qkv.weight.chunk(3)[index]), self.heads)

    def subspaces(self) -> Tensor:
        """The bases of the keys, (h,d,p)."""
        return head_bases(self.qkv.weight.chunk(3)[1], self.heads)

    def project(self, normed: Tensor) -> Tensor:
        """The keys, (b,h,t,p)."""
        return self._part(normed, 1)

    def queries(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The queries of the tokens given, (b,h,q,p)."""
        return self._part(normed, 0)

    def values(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The values, (b,h,t,p)."""
        return self._part(normed, 2)


def output_map(dim: int, heads: int, bias: bool) -> nn.Module:
    """Back from the heads to tokens; the released code leaves it out where there is one head."""
    return nn.Identity() if heads == 1 else nn.Sequential(nn.Linear(dim, dim, bias=bias))


class Coding(nn.Module):
    """The second half of a layer in two steps: into codes, and back to tokens."""

    def encode(self, z: Tensor) -> Tensor:
        """The codes of tokens, (b,t,c)."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """What the codes stand for, (b,t,d)."""
        raise NotImplementedError

    def forward(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Both steps."""
        return self.decode(self.encode(z))


class ISTA(Coding):
    """One step of iterative shrinkage-thresholding: ReLU(z + eta D^T (z - D z) - eta lambda)."""

    def __init__(self, dim: int, step_size: float, sparsity: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))  # the dictionary D
        self.step_size = step_size
        self.sparsity = sparsity
        nn.init.kaiming_uniform_(self.weight)

    def gradient_step(self, z: Tensor) -> Tensor:
        """One step downhill on 1/2 ||z - D a||^2 in the code a, from a = z."""
        return z + self.step_size * F.linear(z - F.linear(z, self.weight), self.weight.T)

    def encode(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The code after the step, non-negative."""
        return F.relu(self.gradient_step(z) - self.step_size * self.sparsity)

    def decode(self, codes: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The code itself: it is the next layer's token."""
        return codes


class SoftISTA(ISTA):
    """ISTA with the two-sided soft threshold: entries may be negative (CRATE-sth)."""

    def encode(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The code after the step, shrunk towards zero from both sides."""
        return F.softshrink(self.gradient_step(z), self.step_size * self.sparsity)


class OvercompleteISTA(Coding):
    """Two non-negative steps of ISTA from zero, in more atoms than dimensions (CRATE-alpha).

    Yang et al. 2024 (arXiv 2405.20299), Sec. 3: a1 = ReLU(eta D^T z - eta lambda),
    a2 = ReLU(a1 - eta D^T (D a1 - z) - eta lambda), and a second dictionary on the way back, D1 a2.
    Its residual belongs to the layer.
    """

    def __init__(self, dim: int, atoms: int, step_size: float, sparsity: float) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.empty(dim, atoms))
        self.D1 = nn.Parameter(torch.empty(dim, atoms))
        self.step_size = step_size
        self.sparsity = sparsity
        nn.init.kaiming_uniform_(self.D)
        nn.init.kaiming_uniform_(self.D1)

    def step(self, codes: Tensor | None, z: Tensor) -> Tensor:
        """One non-negative step of ISTA on the token z, from these codes; None stands for zeros."""
        residual = z if codes is None else z - F.linear(codes, self.D)
        moved = self.step_size * (F.linear(residual, self.D.T) - self.sparsity)
        return F.relu(moved if codes is None else codes + moved)

    def encode(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c"]:
        """The code after two steps, non-negative."""
        return self.step(self.step(None, z), z)

    def decode(self, codes: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        """D1 a, in the second dictionary."""
        return F.linear(codes, self.D1)


class MLP(Coding):
    """ViT's feed-forward block, W2 GELU(W1 z); its residual belongs to the layer."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def encode(self, z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t c"]:
        """The hidden activations, GELU(W1 z)."""
        return F.gelu(self.fc1(z))

    def decode(self, codes: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        """W2 times the hidden activations."""
        return self.fc2(codes)


class PreNorm(nn.Module):
    """A LayerNorm and what follows it, under the released names."""

    def __init__(self, dim: int, eps: float, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.fn: Any = fn


class CrateLayer(nn.ModuleList):
    """[attention, nonlinearity]: a list, because the released names number them 0 and 1."""

    def __init__(self, config: ModelConfig) -> None:
        attention = {"mssa": SubspaceAttention, "mhsa": MultiHeadAttention}[config.attention]
        eps = config.layer_eps
        super().__init__(
            [
                PreNorm(config.dim, eps, attention(config.dim, config.heads, config.output_bias)),
                PreNorm(config.dim, eps, nonlinearity(config)),
            ]
        )
        self.has_dictionary = config.nonlinearity != "mlp"
        self.has_residual = config.nonlinearity in ("mlp", "ista_overcomplete")

    @property
    def attention(self) -> PreNorm:
        """The compression step."""
        return cast(PreNorm, self[0])

    @property
    def nonlinearity(self) -> PreNorm:
        """The sparsification step."""
        return cast(PreNorm, self[1])

    def normalize(self, tokens: Tensor) -> Tensor:
        """LN(Z)."""
        return self.attention.norm(tokens)

    def project(self, normed: Tensor) -> Tensor:
        """U_k^T LN(Z), or MHSA's keys."""
        return self.attention.fn.project(normed)

    def queries(self, normed: Tensor, projections: Tensor) -> Tensor:
        """MSSA's projections, or MHSA's queries."""
        return self.attention.fn.queries(normed, projections)

    def values(self, normed: Tensor, projections: Tensor) -> Tensor:
        """MSSA's projections, or MHSA's values."""
        return self.attention.fn.values(normed, projections)

    def attend(self, tokens: Tensor, head_outputs: Tensor) -> Tensor:
        """Z + MSSA(LN(Z))."""
        return tokens + self.attention.fn.to_out(merge_heads(head_outputs))

    def normalize_half(self, half: Tensor) -> Tensor:
        """LN(Z^{l+1/2})."""
        return self.nonlinearity.norm(half)

    def subspaces(self) -> Tensor:
        """The bases U_k, or those of MHSA's keys."""
        return self.attention.fn.subspaces()

    def sparse_coding(self) -> SparseCoding:
        """ISTA's dictionary and settings."""
        match self.nonlinearity.fn:
            case ISTA() as ista:
                return SparseCoding(ista.weight, ista.step_size, ista.sparsity)
            case OvercompleteISTA() as ista:
                return SparseCoding(ista.D, ista.step_size, ista.sparsity)
        raise ValueError(
            "this layer has an MLP in place of ISTA, and so no dictionary; "
            "take a model with nonlinearity='ista', 'ista_soft' or 'ista_overcomplete'"
        )

    def initial_codes(self, normed_half: Tensor) -> Tensor:
        """The token itself, or with more atoms than dimensions zero."""
        dictionary = self.sparse_coding().dictionary
        if isinstance(self.nonlinearity.fn, ISTA):
            return normed_half
        return normed_half.new_zeros(*normed_half.shape[:-1], dictionary.shape[1])

    def encode(self, normed_half: Tensor) -> Tensor:
        """ISTA's code, or an MLP's hidden activations."""
        return self.nonlinearity.fn.encode(normed_half)

    def decode(self, half: Tensor, codes: Tensor) -> Tensor:
        """ISTA's code itself, without a residual; an overcomplete code and an MLP have one."""
        output = self.nonlinearity.fn.decode(codes)
        return half + output if self.has_residual else output


def nonlinearity(config: ModelConfig) -> Coding:
    """The second half of a layer."""
    match config.nonlinearity:
        case "ista":
            return ISTA(config.dim, config.step_size, config.sparsity)
        case "ista_soft":
            return SoftISTA(config.dim, config.step_size, config.sparsity)
        case "ista_overcomplete":
            return OvercompleteISTA(
                config.dim, config.hidden_dim, config.step_size, config.sparsity
            )
        case "mlp":
            return MLP(config.dim, config.hidden_dim)


class Patches(nn.Module):
    """(b,3,H,W) -> (b,n,3 P^2): each patch flattened row, column, channel, channel fastest."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n c"]:
        """Cut and flatten, row by row of the patch grid."""
        size = self.patch_size
        cells = images.unflatten(2, (-1, size)).unflatten(4, (-1, size))  # b 3 gh P gw P
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class Transformer(nn.Module):
    """Holds the layers under their released name."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrateLayer(config) for _ in range(config.depth))


class CRATE(UnrolledModel):
    """The white-box transformer and, by the two switches of its config, its variants."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.stem == "conv":
            self.conv1 = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size)
        else:
            patch_dim = 3 * config.patch_size**2
            self.to_patch_embedding = nn.Sequential(
                Patches(config.patch_size),
                nn.LayerNorm(patch_dim),
                nn.Linear(patch_dim, config.dim),
                nn.LayerNorm(config.dim),
            )
        self.pos_embedding = nn.Parameter(torch.randn(1, config.grid**2 + 1, config.dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim))
        self.transformer = Transformer(config)
        width = config.projector_dim or config.num_classes
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(config.dim, eps=config.classifier_eps),
            nn.Linear(config.dim, width) if width else nn.Identity(),
        )
        self.head = (
            nn.Linear(width, config.num_classes)
            if config.projector_dim and config.num_classes
            else nn.Identity()
        )

    @property
    def layers(self) -> Sequence[Layer]:
        """The steps of the optimisation."""
        return cast(Sequence[Layer], tuple(self.transformer.layers))

    @property
    def classifier_name(self) -> str:
        """The last linear layer; with a projector that is another one."""
        return "head" if self.config.projector_dim else "mlp_head.1"

    def embed(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b t d"]:
        """Z^1: `[CLS]` and the embedded patches, with positions added."""
        if self.config.stem == "conv":
            patches = self.conv1(images).flatten(2).transpose(1, 2)
        else:
            patches = self.to_patch_embedding(images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        grid, how = self.patch_grid(images), self.config.position_resize
        return tokens + resize_positions(self.pos_embedding, grid, how)

    def classify(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b classes"]:
        """Logits from `[CLS]`, through LayerNorm and a linear layer."""
        return self.head(self.mlp_head(tokens[:, 0]))
