"""The layouts of model files: how each names its weights, as one table.

A layout is recognised by its names alone, under any wrapper (`module.`, `backbone.`, ...), and its
weights are given the names of our CRATE or ViT. The next layout is one more entry of `LAYOUTS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from crate_analysis.models.config import Family
from crate_analysis.models.files import fault_of

HEADS_OF_64 = {384: 6, 768: 12, 1024: 16}
"""Width and number of heads of the published networks whose heads all have 64 dimensions."""


@dataclass(frozen=True)
class Layout:
    """How one source names its weights. All patterns match whole names, without the wrapper."""

    name: str
    family: Family
    anchor: str
    """A weight that is always there."""
    marks: tuple[str, ...]
    """Patterns, each of which some other weight matches."""
    names: tuple[tuple[str, str], ...] = ()
    """Patterns, and our name for each: ``\\1`` as in `re`, and ``[q]``, ``[k]``, ``[v]`` at its end
    for what is stacked. What matches none keeps its name."""
    unused: tuple[str, ...] = ()
    """Patterns of what no measurement needs."""
    settles: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Config fields that follow from the source, where a weight matches the pattern."""
    heads: Mapping[int, int] = field(default_factory=dict)
    """Number of heads by width, where all published networks of the layout agree."""
    reads_config: bool = False
    """Whether a `config.json` beside the file is of the transformers library."""


_ANY = r".*"
_HF_LAYER = r"(?:encoder\.)?layers?\.(\d+)\."
_HF_NAMES = (
    (r"embeddings\.(cls_token|register_tokens)", r"\1"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (_HF_LAYER + r"attention\.(?:attention\.query|q_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2[q]"),
    (_HF_LAYER + r"attention\.(?:attention\.key|k_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2[k]"),
    (_HF_LAYER + r"attention\.(?:attention\.value|v_proj)\.(\w+)", r"blocks.\1.attn.qkv.\2[v]"),
    (_HF_LAYER + r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (_HF_LAYER + r"(?:layernorm_before|norm1)\.(\w+)", r"blocks.\1.norm1.\2"),
    (_HF_LAYER + r"(?:layernorm_after|norm2)\.(\w+)", r"blocks.\1.norm2.\2"),
    (_HF_LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (_HF_LAYER + r"(?:output\.dense|mlp\.fc2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (_HF_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
)
_BLOCKS = (
    (r"blocks\.\d+\.(\d+\..*)", r"blocks.\1"),
    (r"blocks\.(\d+)\.gamma_([12])", r"blocks.\1.ls\2.gamma"),
    (r"reg_token", "register_tokens"),
)
_HF_UNUSED = (
    r"pooler\..*",
    r"embeddings\.mask_token",
    r"decoder\..*",
    r"(?:cls|distillation)_classifier\..*",
)
_PROJECTION_HEADS = (
    r"head\.(?:mlp|last_layer|\d+)\..*",
    r"(?:dino|ibot)_(?:head|loss|patch_loss)\..*",
    r"(?:predictor|projector|prototypes)\..*",
)
_MASKING = (r"mask(?:_token|ed_embed)", r"decoder_.*", r"decoder\..*")

LAYOUTS = (
    Layout(
        "CRATE",
        "crate",
        anchor="to_patch_embedding.2.weight",
        marks=(r"transformer\.layers\.\d+\..*",),
        unused=_PROJECTION_HEADS,
    ),
    Layout(
        "CRATE-alpha",
        "crate",
        anchor="conv1.weight",
        marks=(r"transformer\.layers\.\d+\.[01]\.(?:norm|fn)\..*",),
        unused=_PROJECTION_HEADS,
        settles=((_ANY, {"norm_eps": 1e-6}),),
        heads={768: 12, 1024: 16},
    ),
    Layout(
        "CRATE-MAE",
        "crate",
        anchor="patch_embed.proj.weight",
        marks=(r"blocks\.\d+\.layers\.0\.[01]\.(?:norm|fn)\..*",),
        names=(
            (r"patch_embed\.proj\.(\w+)", r"conv1.\1"),
            (r"pos_embed", "pos_embedding"),
            (r"blocks\.(\d+)\.layers\.0\.([01]\..*)", r"transformer.layers.\1.\2"),
            (r"norm\.(\w+)", r"mlp_head.0.\1"),
            (r"head\.(\w+)", r"mlp_head.1.\1"),
        ),
        unused=_MASKING,
        settles=((_ANY, {"sparsity": 0.5, "head_eps": 1e-6}),),
        heads={384: 6, 576: 12, 768: 12, 1024: 16},
    ),
    Layout(
        "DINOv2, trained in chunks of blocks",
        "vit",
        anchor="patch_embed.proj.weight",
        marks=(r"blocks\.\d+\.\d+\.ls1\.gamma",),
        names=_BLOCKS,
        unused=(*_MASKING, *_PROJECTION_HEADS),
        heads=HEADS_OF_64,
    ),
    Layout(
        "DINOv2",
        "vit",
        anchor="patch_embed.proj.weight",
        marks=(r"blocks\.\d+\.ls1\.gamma", "mask_token"),
        unused=(*_MASKING, *_PROJECTION_HEADS),
        settles=(("register_tokens", {"position_resize": "antialias"}),),
        heads=HEADS_OF_64,
    ),
    Layout(
        "timm ViT with LayerScale",
        "vit",
        anchor="patch_embed.proj.weight",
        marks=(r"blocks\.\d+\.(?:ls1\.gamma|gamma_1)",),
        names=_BLOCKS,
        unused=_PROJECTION_HEADS,
        settles=((_ANY, {"position_resize": "antialias"}),),
        heads=HEADS_OF_64,
    ),
    Layout(
        "DINO or timm ViT",
        "vit",
        anchor="patch_embed.proj.weight",
        marks=(r"blocks\.(?:\d+\.)?\d+\.(?:attn\.qkv|attn\.proj|norm1)\..*",),
        names=_BLOCKS,
        unused=(*_MASKING, *_PROJECTION_HEADS),
        settles=(("reg_token", {"position_resize": "antialias"}),),
    ),
    Layout(
        "transformers DINOv2",
        "vit",
        anchor="embeddings.patch_embeddings.projection.weight",
        marks=(_HF_LAYER + r"layer_scale1\.lambda1",),
        names=_HF_NAMES,
        unused=_HF_UNUSED,
        settles=(
            (_ANY, {"norm_eps": 1e-6, "position_resize": "size"}),
            (r"embeddings\.register_tokens", {"position_resize": "antialias"}),
        ),
        heads=HEADS_OF_64,
        reads_config=True,
    ),
    Layout(
        "transformers ViT",
        "vit",
        anchor="embeddings.patch_embeddings.projection.weight",
        marks=(_HF_LAYER + r"(?:attention|layernorm_before)\..*",),
        names=_HF_NAMES,
        unused=_HF_UNUSED,
        settles=((_ANY, {"norm_eps": 1e-12, "position_resize": "size"}),),
        reads_config=True,
    ),
)

REFUSED = (
    (
        "DINOv3",
        r"(?:.*\.)?(?:rope_embed\.periods|storage_tokens|embeddings\.patch_embeddings\.weight)|"
        r"(?!.*encoder\.layer)(?:.*\.)?layer\.\d+\.attention\.[qkvo]_proj\.\w+",
        "its positions are rotary; take a DINOv2, such as hf:facebook/dinov2-small",
    ),
    (
        "CLIP, or another network with a text tower",
        r"(?:.*\.)?(?:text_model|text_projection|vision_model|text|token_embedding|class_embedding|"
        r"logit_scale|transformer\.resblocks|ln_pre|visual_projection)(?:\..*)?",
        "only networks of images alone are; take CRATE-alpha's torch/crate_alpha_B16.pth, say",
    ),
    (
        "a ViT with SwiGLU, as DINOv2's giant",
        r".*\.mlp\.(?:w12|w1|w3|weights_in|fc1_g)\.\w+",
        "its MLP has a gate; take a size without one, such as hf:facebook/dinov2-large",
    ),
    (
        "Swin, BEiT or another network with relative positions",
        r"(?:.*\.)?(?:relative_position_.*|rel_pos_.*|layers\.\d+\.blocks\.\d+\..*|.*q_bias)",
        "attention to all patches with absolute positions is; take a ViT",
    ),
    (
        "a network with rotary positions",
        r"(?:.*\.)?(?:rope|inv_freq|freqs_cis|freqs)(?:\..*)?",
        "its positions are in no table; take a ViT with a position table",
    ),
    (
        "a convolutional network",
        r"(?:.*\.)?(?:layer[1-4]\.\d+\.(?:conv|bn)\d\..*|stages\.\d+\..*|downsample_layers\..*|"
        r"features\.\d+\..*|conv_stem\..*|patch_embed\.backbone\..*)",
        "transformers are; take a CRATE or a ViT",
    ),
    (
        "a language model",
        r"(?:.*\.)?(?:word_embeddings|embed_tokens|wte|lm_head)(?:\..*)?",
        "networks of images are",
    ),
    (
        "an adapter (LoRA)",
        r".*\.lora_[AB]\..*",
        "merge it into its network first, and save that",
    ),
)
"""Networks that are recognised and not read: what each is, a pattern of one of its weights, why."""

PREFERRED = ("teacher", "model_ema", "ema", "target_encoder", "student", "base_encoder")
"""Of several networks in one file, the one under such a wrapper is taken, the first of these."""


@dataclass(frozen=True)
class Found:
    """A file's weights under our names, and how they were found."""

    layout: Layout
    weights: dict[str, Tensor]
    settled: dict[str, Any]
    """Config fields that follow from the source; the shapes, records and callers come before."""
    notes: tuple[str, ...]
    """How the file was read, for who wants to know: layout, wrapper, what was left aside."""
    theirs: Mapping[str, str]
    """Their names, by our names with every number as `N`."""

    def name(self, ours: str) -> str:
        """What the file calls, or would call, one of our weights."""
        numbers = re.findall(r"(?<=\.)\d+(?=\.)", ours)
        pattern = self.theirs.get(_numberless(ours))
        if pattern is None or pattern.count("\0") > len(numbers):
            return ours
        for number in numbers[: pattern.count("\0")]:
            pattern = pattern.replace("\0", number, 1)
        return pattern


def recognise(weights: Mapping[str, Tensor]) -> Found:
    """The layout of a file's weights, and the weights under our names.

    Raises ValueError for a network that is not read (named, where it is known) and for weights
    that are left over outside of the network.
    """
    _refuse(weights)
    for layout in LAYOUTS:
        if prefixes := _prefixes(layout, weights):
            return _convert(layout, _choose(prefixes), prefixes, weights)
    raise ValueError(
        f"no known network: {listing(list(weights), 'weights')}; "
        f"read are {', '.join(layout.name for layout in LAYOUTS)}"
    )


def _refuse(keys: Iterable[str]) -> None:
    for name, pattern, why in REFUSED:
        found = re.compile(pattern)
        if mark := next((key for key in keys if found.fullmatch(key)), None):
            raise ValueError(f"this is {name} ({mark}), which is not read; {why}")


def _prefixes(layout: Layout, weights: Mapping[str, Tensor]) -> list[str]:
    """The wrappers under which a network of this layout stands."""
    marks = [re.compile(mark) for mark in layout.marks]
    anchored = [
        key.removesuffix(layout.anchor)
        for key in weights
        if key == layout.anchor or key.endswith(f".{layout.anchor}")
    ]
    found = []
    for prefix in anchored:
        names = [key[len(prefix) :] for key in weights if key.startswith(prefix)]
        if all(any(mark.fullmatch(name) for name in names) for mark in marks):
            found.append(prefix)
    return found


def _choose(prefixes: list[str]) -> str:
    for word in PREFERRED:
        for prefix in prefixes:
            if word in prefix.split("."):
                return prefix
    if len(prefixes) > 1 and "" not in prefixes:
        first = prefixes[0]
        raise ValueError(
            f"holds {len(prefixes)} networks, under {', '.join(map(repr, prefixes))}; save the one "
            f"that is meant: torch.save({{k.removeprefix({first!r}): w for k, w in weights.items() "
            f"if k.startswith({first!r})}}, NEW_FILE)"
        )
    return min(prefixes, key=len)


def _convert(
    layout: Layout, prefix: str, prefixes: list[str], weights: Mapping[str, Tensor]
) -> Found:
    """Every weight under our name, left aside, or named as left over."""
    renames = [(re.compile(pattern), ours) for pattern, ours in layout.names]
    unused = [re.compile(pattern) for pattern in layout.unused]
    parents = _parents(prefix)
    taken: dict[str, tuple[str, Tensor]] = {}
    aside: list[str] = []
    outside: list[str] = []
    for key, weight in weights.items():
        owner = max((p for p in prefixes if key.startswith(p)), key=len, default=None)
        name = key[len(next(parent for parent in parents if key.startswith(parent))) :]
        elsewhere = owner is not None or _is_beside(key, prefix, prefixes)
        if (owner != prefix and elsewhere) or any(p.fullmatch(name) for p in unused):
            aside.append(key)
        else:
            ours = next((p.sub(new, name) for p, new in renames if p.fullmatch(name)), None)
            if (ours is None and owner is None) or (ours or name) in taken:
                outside.append(key)
            elif fault := fault_of(weight):
                raise ValueError(f"{key} {fault}")
            else:
                taken[ours or name] = (key, weight)
    if outside:
        raise ValueError(f"{listing(outside, 'left over')} outside of {prefix or 'the network'}")
    theirs = {_numberless(ours): _numberless(key) for ours, (key, _) in taken.items()}
    inside_names = [key[len(prefix) :] for key in weights if key.startswith(prefix)]
    notes = [f"layout: {layout.name}"]
    if prefix:
        notes.append(f"wrapper: {prefix}")
    if aside:
        notes.append(listing(aside, "left aside"))
    found = Found(
        layout,
        {ours: w for ours, (_, w) in taken.items()},
        _settled(layout, inside_names),
        (),
        theirs,
    )
    named = _stacked(found)
    if layout.family == "vit":
        notes += _tokens(named)
    return replace(found, weights=named, notes=tuple(notes))


def _is_beside(key: str, prefix: str, prefixes: list[str]) -> bool:
    """Whether a weight belongs to a network that was not chosen, such as the student's head."""
    roots = {other.split(".")[0] for other in prefixes if "." in other} - {prefix.split(".")[0]}
    return key.split(".")[0] in roots


def _parents(prefix: str) -> list[str]:
    """`a.b.`, `a.` and nothing: where a head may stand that belongs to what is under `a.b.`."""
    parts = prefix.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]


def _settled(layout: Layout, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pattern, fields in layout.settles:
        match = re.compile(pattern)
        if any(match.fullmatch(name) for name in names):
            found |= fields
    return found


def _stacked(found: Found) -> dict[str, Tensor]:
    """`NAME[q]`, `[k]` and `[v]` as one weight NAME. Raises ValueError where one is missing."""
    stacked = {name: w for name, w in found.weights.items() if not name.endswith("]")}
    for name in {key[:-3]: None for key in found.weights if key.endswith("]")}:
        three = {part: found.weights.get(f"{name}[{part}]") for part in "qkv"}
        missing = [found.name(f"{name}[{part}]") for part in "qkv" if three[part] is None]
        if missing:
            raise ValueError(listing(missing, "missing"))
        parts = [weight for weight in three.values() if weight is not None]
        if len({weight.shape for weight in parts}) > 1:
            shapes = " and ".join(str(tuple(weight.shape)) for weight in parts)
            raise ValueError(f"1 of the wrong shape: {found.name(f'{name}[q]')}: {shapes}")
        stacked[name] = torch.cat(parts)
    return stacked


def _tokens(weights: dict[str, Tensor]) -> list[str]:
    """`[CLS]`, registers and positions as our ViT has them, in place; what was done is said.

    Ours has positions for `[CLS]` and the patches, and none for registers. DeiT's distillation
    token is a token after `[CLS]` that stands for no patch, as a register is, and has a position;
    timm adds the position of `[CLS]` to the token itself, or has one for every register.
    """
    notes = _without_two_classifiers(weights)
    positions = weights.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return notes
    if "dist_token" in weights and "register_tokens" not in weights:
        weights["register_tokens"] = weights.pop("dist_token")
        notes.append("the distillation token is read as a register")
    registers = weights.get("register_tokens")
    count = positions.shape[1]
    extra = registers.shape[1] if registers is not None and registers.ndim == 3 else 0
    if "cls_token" not in weights:
        if _is_square(count):
            raise ValueError(
                "this is I-JEPA, or another ViT without a [CLS] token, which is not read; "
                "its attention has no [CLS] row"
            )
        return notes
    if _is_square(count - 1):
        return notes
    if registers is not None and _is_square(count - 1 - extra):
        weights["register_tokens"] = registers + positions[:, 1 : 1 + extra]
        weights["pos_embed"] = torch.cat([positions[:, :1], positions[:, 1 + extra :]], dim=1)
    elif _is_square(count):
        weights["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
        notes.append("[CLS] holds its position")
    return notes


def _without_two_classifiers(weights: dict[str, Tensor]) -> list[str]:
    """Leaves out classifiers that read more than `[CLS]`, in place, and says so."""
    wide, dim = weights.get("head.weight"), weights.get("cls_token")
    if "head_dist.weight" in weights and "dist_token" in weights:
        why = "it has two classifiers, one on the distillation token"
    elif wide is not None and dim is not None and wide.shape[-1] == 2 * dim.shape[-1]:
        why = "its classifier reads [CLS] and the mean of the patches"
    else:
        return []
    for key in [key for key in weights if key.startswith(("head.", "head_dist."))]:
        del weights[key]
    return [f"{why}; left out, so that the model gives its [CLS] feature"]


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def _numberless(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "\0", name)


def listing(items: list[str], fault: str) -> str:
    """Such as `5 missing: a, b, c, ...`; nothing for none."""
    more = ", ..." if len(items) > 3 else ""
    return f"{len(items)} {fault}: {', '.join(items[:3])}{more}" if items else ""
