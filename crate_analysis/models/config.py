"""What a model is made of: one frozen record, from which it is built and with which it is saved."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Family = Literal["crate", "vit"]
Attention = Literal["mssa", "mhsa"]
Nonlinearity = Literal["ista", "ista_soft", "mlp"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one network.

    `attention` and `nonlinearity` are the two factors of the paper's ablation (Yu et al. 2024,
    Table 2): CRATE is mssa + ista, CRATE-MLP mssa + mlp, CRATE-MHSA mhsa + ista, CRATE-sth
    mssa + ista_soft. A `vit` is always mhsa + mlp, with the parameter names of DINO and timm.
    """

    family: Family
    image_size: int
    patch_size: int
    dim: int
    depth: int
    heads: int
    num_classes: int
    """Width of the logits; a backbone without a classifier has 0, and gives its `[CLS]` feature."""
    attention: Attention = "mssa"
    nonlinearity: Nonlinearity = "ista"
    step_size: float = 0.1
    """ISTA's eta."""
    sparsity: float = 0.1
    """ISTA's lambda."""
    mlp_ratio: float = 4.0
    """Hidden width of an MLP, as a multiple of `dim`."""
    projector_dim: int = 0
    """Width of the linear layer that CRATE's public demo has before its classifier; 0 for none."""
    registers: int = 0
    """Learned tokens after `[CLS]` that stand for no patch (Darcet et al. 2024); a ViT's only."""
    pixel_mean: Sequence[float] = IMAGENET_MEAN
    pixel_std: Sequence[float] = IMAGENET_STD
    """Mean and deviation of the training pictures' channels, as shares of 255."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("family", get_args(Family)),
            ("attention", get_args(Attention)),
            ("nonlinearity", get_args(Nonlinearity)),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}")
        for name, least in (
            ("image_size", 1),
            ("patch_size", 1),
            ("dim", 1),
            ("depth", 1),
            ("heads", 1),
            ("num_classes", 0),
            ("projector_dim", 0),
            ("registers", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        if self.hidden_dim < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves an MLP no hidden width")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} cannot be shared by heads={self.heads}")
        if self.family == "vit" and (self.attention, self.nonlinearity) != ("mhsa", "mlp"):
            raise ValueError(
                "a vit has attention='mhsa' and nonlinearity='mlp'; "
                "take a crate arch to change either"
            )
        if self.family == "crate" and self.registers:
            raise ValueError(
                f"registers={self.registers}, but a crate model has none; take a vit arch"
            )
        for name in ("pixel_mean", "pixel_std"):
            value = tuple(getattr(self, name))  # JSON gives lists back
            if len(value) != 3 or (name == "pixel_std" and min(value) <= 0):
                raise ValueError(f"{name}={value!r} must be one number for each of R, G, B")
            object.__setattr__(self, name, value)

    @property
    def head_dim(self) -> int:
        """p, the dimension of one head's subspace."""
        return self.dim // self.heads

    @property
    def hidden_dim(self) -> int:
        """Hidden width of an MLP."""
        return round(self.dim * self.mlp_ratio)

    @property
    def grid(self) -> int:
        """Patches along one side of a picture of `image_size`."""
        return self.image_size // self.patch_size

    def override(self, **changes: Any) -> ModelConfig:
        """The same config with some fields changed; ValueError for an unknown field or value."""
        check_field_names(changes)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record, the inverse of `ModelConfig(**record)`."""
        return asdict(self)


def check_field_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no config field; the nearest one is suggested."""
    known = [field.name for field in fields(ModelConfig)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"fields: {', '.join(known)}"
            raise ValueError(f"a model config has no field {name!r}; {hint}")
