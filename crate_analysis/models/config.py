"""What a model is made of: one frozen record, from which it is built and with which it is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from crate_analysis.names import nearest

Family = Literal["crate", "vit"]
Attention = Literal["mssa", "mhsa"]
Nonlinearity = Literal["ista", "ista_soft", "ista_overcomplete", "mlp"]
Stem = Literal["linear", "conv"]
PositionResize = Literal["offset", "size", "antialias"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST = 2**31
"""No size of a network is larger."""
LEAST_STD = 1e-6
"""Of a channel's pixels as shares of 255; no image has less contrast."""
SMALLEST = 1e-30
"""What is divided by is no smaller: float32 holds it."""
FLOATS = {
    "step_size": 0,
    "sparsity": 0,
    "mlp_ratio": 0,
    "norm_eps": SMALLEST,
    "head_eps": SMALLEST,
}
"""The fields that are numbers, and the least of each."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one network.

    `attention` and `nonlinearity` are the two factors of the paper's ablation (Yu et al. 2024,
    Table 2): CRATE is mssa + ista, CRATE-MLP mssa + mlp, CRATE-MHSA mhsa + ista, CRATE-sth
    mssa + ista_soft. CRATE-alpha (Yang et al. 2024, arXiv 2405.20299) is mssa + ista_overcomplete,
    with a convolution as its stem and no bias after attention. A `vit` is always mhsa + mlp, with
    the parameter names of DINO and timm.
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
    """Width of an MLP's hidden layer, or of overcomplete codes, as a multiple of `dim`."""
    projector_dim: int = 0
    """Width of the linear layer that CRATE's public demo has before its classifier; 0 for none."""
    registers: int = 0
    """Learned tokens after `[CLS]` that stand for no patch (Darcet et al. 2024); a ViT's only."""
    layer_scale: bool = False
    """Whether each half of a ViT's layer is weighted, channel by channel, before it is added."""
    stem: Stem | None = None
    """How patches are embedded: `linear`, LayerNorm - linear - LayerNorm, as CRATE; or `conv`, a
    convolution, as CRATE-alpha and every ViT. None for the family's own."""
    output_bias: bool = True
    """Whether the linear map after CRATE's attention has a bias; CRATE-alpha's has none."""
    norm_eps: float | None = None
    """LayerNorm's epsilon in the layers. None for the family's own, 1e-5 in CRATE and 1e-6 in a
    ViT; CRATE-alpha has 1e-6, the transformers library's ViTs 1e-12."""
    head_eps: float | None = None
    """LayerNorm's epsilon before the classifier. None for 1e-5 in CRATE, `norm_eps` in a ViT."""
    position_resize: PositionResize = "offset"
    """How positions reach another patch grid, bicubically: by a factor with DINO's `offset` of 0.1,
    as CRATE, DINO and DINOv2; by `size`, as the transformers library; or by size with `antialias`,
    as DINOv2 with registers and timm."""
    pixel_mean: Sequence[float] = IMAGENET_MEAN
    pixel_std: Sequence[float] = IMAGENET_STD
    """Mean and deviation of the training images' channels, as shares of 255."""

    def __post_init__(self) -> None:
        self._fill_in()
        for name, choices in (
            ("family", get_args(Family)),
            ("attention", get_args(Attention)),
            ("nonlinearity", get_args(Nonlinearity)),
            ("stem", get_args(Stem)),
            ("position_resize", get_args(PositionResize)),
            ("layer_scale", (False, True)),
            ("output_bias", (False, True)),
        ):
            value = getattr(self, name)
            if not isinstance(value, str | bool) or value not in choices:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(map(str, choices))}")
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
            if value > LARGEST:
                raise ValueError(f"{name}={value!r} is more than any network has")
        for name, low in FLOATS.items():
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= LARGEST:
                raise ValueError(f"{name}={value!r} must be a number of at least {low}")
        if not 1 <= self.dim * self.mlp_ratio <= LARGEST:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves an MLP no hidden width")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} cannot be shared by heads={self.heads}")
        self._check_family()
        for name in ("pixel_mean", "pixel_std"):
            value = getattr(self, name)
            value = tuple(value) if isinstance(value, list | tuple) else value  # JSON gives lists
            three = isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))
            low = LEAST_STD if name == "pixel_std" else -LARGEST
            if not three or not all(low <= one <= LARGEST for one in value):
                raise ValueError(
                    f"{name}={value!r} must be one number for each of R, G, B"
                    + (f", of at least {LEAST_STD}" if name == "pixel_std" else "")
                )
            object.__setattr__(self, name, value)

    def _fill_in(self) -> None:
        """What the family settles where nobody says."""
        is_vit = self.family == "vit"
        for name, value in (
            ("stem", "conv" if is_vit else "linear"),
            ("norm_eps", 1e-6 if is_vit else 1e-5),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.head_eps is None:
            object.__setattr__(self, "head_eps", self.norm_eps if is_vit else 1e-5)

    def _check_family(self) -> None:
        if self.family == "vit":
            if (self.attention, self.nonlinearity) != ("mhsa", "mlp"):
                raise ValueError(
                    "a vit has attention='mhsa' and nonlinearity='mlp'; "
                    "take a crate arch to change either"
                )
            other = {"stem": "conv", "output_bias": True, "projector_dim": 0}
        else:
            other = {"registers": 0, "layer_scale": False}
        for name, only in other.items():
            if getattr(self, name) != only:
                other_family = "crate" if self.family == "vit" else "vit"
                raise ValueError(
                    f"{name}={getattr(self, name)!r}, but a {self.family} model has "
                    f"{only or 'none'}; take a {other_family} arch"
                )

    @property
    def head_dim(self) -> int:
        """p, the dimension of one head's subspace."""
        return self.dim // self.heads

    @property
    def hidden_dim(self) -> int:
        """Width of an MLP's hidden layer, or of overcomplete codes."""
        return round(self.dim * self.mlp_ratio)

    @property
    def layer_eps(self) -> float:
        """LayerNorm's epsilon in the layers, settled."""
        return cast(float, self.norm_eps)

    @property
    def classifier_eps(self) -> float:
        """LayerNorm's epsilon before the classifier, settled."""
        return cast(float, self.head_eps)

    @property
    def grid(self) -> int:
        """Patches along one side of an image of `image_size`."""
        return self.image_size // self.patch_size

    def override(self, **changes: Any) -> ModelConfig:
        """The same config with some fields changed; ValueError for an unknown field or value."""
        changes = checked_fields(changes)
        if changes.get("family", self.family) != self.family:
            changes = dict.fromkeys(("stem", "norm_eps", "head_eps")) | changes
        return replace(self, **changes)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; ValueError for an unknown field or value, or one missing."""
        changes = checked_fields(record)
        missing = [
            one.name for one in fields(cls) if one.default is MISSING and one.name not in changes
        ]
        if missing:
            raise ValueError(f"a model config lacks {', '.join(missing)}")
        return cls(**changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record, the inverse of `from_dict`."""
        return asdict(self)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST


def checked_fields(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields, whole numbers as floats where a field is one, lists as tuples.

    Raises ValueError for a name that is no config field.
    """
    check_field_names(changes)
    found: dict[str, Any] = {}
    for name, value in changes.items():
        if name in FLOATS:
            value = _as_float(value)
        elif isinstance(value, list | tuple):
            value = tuple(_as_float(one) for one in value)
        found[name] = value
    return found


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) <= LARGEST else value


def check_field_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no config field; the nearest one is suggested."""
    known = [field.name for field in fields(ModelConfig)]
    for name in names:
        if name not in known:
            near = nearest(name, known, 0.6)
            hint = f"did you mean {near!r}?" if near else f"fields: {', '.join(known)}"
            raise ValueError(f"a model config has no field {name!r}; {hint}")
