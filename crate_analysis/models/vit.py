"""The Vision Transformer (Dosovitskiy et al. 2021), under the parameter names of DINO and timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crate_analysis.models.config import ModelConfig
from crate_analysis.models.crate import MLP
from crate_analysis.models.unrolled import (
    Layer,
    SparseCoding,
    UnrolledModel,
    head_bases,
    merge_heads,
    resize_positions,
    split_heads,
)

NO_DICTIONARY = (
    "a ViT's layer has an MLP in place of ISTA, and so no dictionary; "
    "take a crate model with nonlinearity='ista', 'ista_soft' or 'ista_overcomplete'"
)
INITIAL_SCALE = 1e-5
"""Of LayerScale before training, as DINOv2's authors start it."""


class Attention(nn.Module):
    """Multi-head self-attention with biases; one matrix holds queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def part(self, normed: Tensor, index: int) -> Tensor:
        """The queries (index 0), keys (1) or values (2), (b,h,t,p)."""
        weight, bias = self.qkv.weight.chunk(3)[index], self.qkv.bias.chunk(3)[index]
        return split_heads(F.linear(normed, weight, bias), self.heads)


class LayerScale(nn.Module):
    """What a half adds, weighted channel by channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), INITIAL_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """The product with gamma."""
        return x * self.gamma


class Block(nn.Module):
    """One pre-norm layer, each half with its residual."""

    has_residual = True
    has_dictionary = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        scale = LayerScale if config.layer_scale else nn.Identity
        self.norm1 = nn.LayerNorm(config.dim, eps=config.layer_eps)
        self.attn = Attention(config.dim, config.heads)
        self.ls1 = scale(config.dim)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.layer_eps)
        self.mlp = MLP(config.dim, config.hidden_dim)
        self.ls2 = scale(config.dim)

    def normalize(self, tokens: Tensor) -> Tensor:
        """LN(Z)."""
        return self.norm1(tokens)

    def project(self, normed: Tensor) -> Tensor:
        """The keys."""
        return self.attn.part(normed, 1)

    def queries(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The queries of the tokens given."""
        return self.attn.part(normed, 0)

    def values(self, normed: Tensor, projections: Tensor) -> Tensor:
        """The values."""
        return self.attn.part(normed, 2)

    def attend(self, tokens: Tensor, head_outputs: Tensor) -> Tensor:
        """Z + MHSA(LN(Z))."""
        return tokens + self.ls1(self.attn.proj(merge_heads(head_outputs)))

    def normalize_half(self, half: Tensor) -> Tensor:
        """LN(Z^{l+1/2})."""
        return self.norm2(half)

    def subspaces(self) -> Tensor:
        """The bases of the keys."""
        return head_bases(self.attn.qkv.weight.chunk(3)[1], self.attn.heads)

    def sparse_coding(self) -> SparseCoding:
        """Refused: a ViT has no dictionary."""
        raise ValueError(NO_DICTIONARY)

    def initial_codes(self, normed_half: Tensor) -> Tensor:
        """Refused, as `sparse_coding`."""
        raise ValueError(NO_DICTIONARY)

    def encode(self, normed_half: Tensor) -> Tensor:
        """The MLP's hidden activations."""
        return self.mlp.encode(normed_half)

    def decode(self, half: Tensor, codes: Tensor) -> Tensor:
        """Z + MLP(LN(Z))."""
        return half + self.ls2(self.mlp.decode(codes))


class PatchEmbed(nn.Module):
    """Holds the patch convolution under its released name."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)


class ViT(UnrolledModel):
    """A ViT classifier, or, with `num_classes=0`, a backbone such as DINO's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(config.patch_size, config.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.classifier_eps)
        self.head = (
            nn.Linear(config.dim, config.num_classes) if config.num_classes else nn.Identity()
        )
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if config.registers:
            nn.init.trunc_normal_(self.register_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @property
    def layers(self) -> Sequence[Layer]:
        """The blocks."""
        return cast(Sequence[Layer], tuple(self.blocks))

    @property
    def classifier_name(self) -> str:
        """The linear layer."""
        return "head"

    def embed(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b t d"]:
        """Z^1: `[CLS]`, the registers and the embedded patches; only registers have no position."""
        patches = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        grid, how = self.patch_grid(images), self.config.position_resize
        tokens = tokens + resize_positions(self.pos_embed, grid, how)
        if not self.config.registers:
            return tokens
        registers = self.register_tokens.expand(len(images), -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)

    def classify(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b classes"]:
        """Logits from `[CLS]`, through LayerNorm and a linear layer."""
        return self.head(self.norm(tokens[:, 0]))
