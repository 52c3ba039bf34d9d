"""The named architectures, and building one untrained."""

from __future__ import annotations

from typing import Any

from crate_analysis.models.config import ModelConfig, PositionResize
from crate_analysis.models.crate import CRATE
from crate_analysis.models.unrolled import UnrolledModel
from crate_analysis.models.vit import ViT
from crate_analysis.names import nearest


def _crate(
    dim: int, heads: int, patch: int, classes: int, depth: int = 12, **fields: Any
) -> ModelConfig:
    return ModelConfig("crate", 224, patch, dim, depth, heads, classes, **fields)


def _alpha(dim: int, heads: int, depth: int, patch: int, classes: int) -> ModelConfig:
    fields = {"stem": "conv", "output_bias": False, "norm_eps": 1e-6}
    return _crate(dim, heads, patch, classes, depth, nonlinearity="ista_overcomplete", **fields)


def _mae(dim: int, heads: int, depth: int = 12) -> ModelConfig:
    return _crate(dim, heads, 16, 0, depth, stem="conv", sparsity=0.5, head_eps=1e-6)


def _vit(
    dim: int, heads: int, patch: int, classes: int = 1000, depth: int = 12, **fields: Any
) -> ModelConfig:
    return ModelConfig("vit", 224, patch, dim, depth, heads, classes, "mhsa", "mlp", **fields)


def _dinov2(dim: int, heads: int, depth: int, registers: int) -> ModelConfig:
    resize: PositionResize = "antialias" if registers else "offset"
    fields = {"layer_scale": True, "registers": registers, "position_resize": resize}
    return _vit(dim, heads, 14, 0, depth, **fields).override(image_size=518)


def _simdino(dim: int, heads: int, depth: int, **fields: Any) -> ModelConfig:
    return _vit(dim, heads, 16, 0, depth, **fields)


VIT_SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
"""Width and number of heads, in DINO and timm alike."""
DINOV2_SIZES = {"small": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 16, 24)}
ALPHA_SIZES = {"base": (768, 12, 12), "large": (1024, 16, 24)}
"""Width, number of heads and depth."""
HALF = (0.5, 0.5, 0.5)

ARCHS: dict[str, ModelConfig] = {
    # Yu et al. 2024 (arXiv 2308.16271): ImageNet-21k, patch 8
    "crate_tiny_patch8_224.cpal24": _crate(192, 3, 8, 21842),
    "crate_small_patch8_224.cpal24": _crate(384, 6, 8, 21842),
    "crate_base_patch8_224.cpal24": _crate(768, 12, 8, 21842),
    # the public demo checkpoint: 6 heads of 128, and a projector before its classifier
    "crate_base_patch8_224.demo": _crate(768, 6, 8, 21842, projector_dim=768),
    # Yu et al. 2023 (arXiv 2306.01129): ImageNet-1k, patch 16
    "crate_tiny_patch16_224.neurips23": _crate(384, 6, 16, 1000),
    "crate_small_patch16_224.neurips23": _crate(576, 12, 16, 1000),
    "crate_base_patch16_224.neurips23": _crate(768, 12, 16, 1000),
    "crate_large_patch16_224.neurips23": _crate(1024, 16, 16, 1000, depth=24),
    # CRATE-alpha, Yang et al. 2024 (arXiv 2405.20299): ImageNet-1k, and ImageNet-21k before it
    "crate_base_patch16_224.alpha": _alpha(*ALPHA_SIZES["base"], 16, 1000),
    "crate_large_patch14_224.alpha": _alpha(*ALPHA_SIZES["large"], 14, 1000),
    **{
        f"crate_{size}_patch{patch}_224.alpha_in21k": _alpha(*ALPHA_SIZES[size], patch, 19167)
        for size, patches in (("base", (8, 16, 32)), ("large", (8, 14, 32)))
        for patch in patches
    },
    # CRATE-MAE, Pai et al. 2024 (arXiv 2404.02446): the encoder, without a classifier
    "crate_tiny_patch16_224.mae": _mae(384, 6),
    "crate_small_patch16_224.mae": _mae(576, 12),
    "crate_base_patch16_224.mae": _mae(768, 12),
    "crate_large_patch16_224.mae": _mae(1024, 16, 24),
    # Dosovitskiy et al. 2021
    **{
        f"vit_{size}_patch{patch}_224": _vit(dim, heads, patch)
        for patch in (8, 16)
        for size, (dim, heads) in VIT_SIZES.items()
    },
    # Caron et al. 2021 (arXiv 2104.14294): backbones without a classifier
    **{
        f"vit_{size}_patch{patch}_224.dino": _vit(*VIT_SIZES[size], patch, 0)
        for patch in (8, 16)
        for size in ("small", "base")
    },
    # Oquab et al. 2023 (arXiv 2304.07193); Darcet et al. 2024 (arXiv 2309.16588), with registers
    **{
        f"vit_{size}_patch14_518.{name}": _dinov2(*sizes, registers)
        for name, registers in (("dinov2", 0), ("dinov2_reg4", 4))
        for size, sizes in DINOV2_SIZES.items()
    },
    # Wu et al. 2025 (arXiv 2502.10385); the second as DINOv2 with registers, trained at 224 pixels
    **{
        f"vit_{size}_patch16_224.{name}": _simdino(*DINOV2_SIZES[size], **fields)
        for name, fields in (
            ("simdino", {}),
            ("simdinov2", {"layer_scale": True, "registers": 4}),
        )
        for size in ("base", "large")
    },
    # Steiner et al. 2021 (arXiv 2106.10270), as timm has them: pixels from -1 to 1
    **{
        f"vit_{size}_patch{patch}_224.augreg_in21k": _vit(
            *VIT_SIZES[size], patch, 21843, pixel_mean=HALF, pixel_std=HALF
        )
        for size, patch in (("tiny", 16), ("small", 16), ("base", 16), ("base", 8))
    },
    # ours: small enough to train on a laptop
    "crate_micro_patch6_72.creatures": ModelConfig("crate", 72, 6, 128, 6, 4, 12),
    "vit_micro_patch6_72.creatures": ModelConfig("vit", 72, 6, 128, 6, 4, 12, "mhsa", "mlp"),
}


def arch_config(arch: str) -> ModelConfig:
    """The config behind a name. Raises ValueError with the nearest name for one that is unknown."""
    if arch in ARCHS:
        return ARCHS[arch]
    near = nearest(arch, ARCHS)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(ARCHS)}"
    raise ValueError(f"there is no architecture {arch!r}; {hint}")


def from_config(config: ModelConfig) -> UnrolledModel:
    """An untrained model, its weights drawn from torch's global generator."""
    return {"crate": CRATE, "vit": ViT}[config.family](config)


def build_model(arch: str, **overrides: Any) -> UnrolledModel:
    """An untrained model of a named architecture, any field of its config changed by `overrides`.

    Weights come from torch's global generator: call `torch.manual_seed` first for a set start.
    Raises ValueError for an unknown name (the nearest is suggested), field or value.
    """
    model = from_config(arch_config(arch).override(**overrides))
    model.name = arch
    return model
