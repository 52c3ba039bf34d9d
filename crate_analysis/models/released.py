"""Which public checkpoints there are of the paper's systems and their kin, and how each is loaded.

The facts were read in the documents that each row names, as they stood when we read them. No link
was opened by us: a row says what its source says, not that a download works today.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from crate_analysis.models.config import ModelConfig
from crate_analysis.models.registry import ARCHS
from crate_analysis.specs import HUB_PREFIX

LISTED = "listed"
"""Its publisher lists the file."""
OBTAINED = "reported to be had"
"""A user reports that the publisher's link gave the file."""
DEAD = "link reported dead"
"""Users report that the publisher's link fails."""
ANNOUNCED = "announced only"
"""The publisher's table has a place for it, and no file."""
NOT_FOUND = "not found"
"""We found no file of it."""

TRAINING = "state_dict, module."
"""As CRATE's training code saves: under `state_dict`, each key after `module.`."""
DEMO = "model, extra head"
"""As CRATE's demo reads: under `model`, with a classifier `head` after `mlp_head`."""
PLAIN = "plain"
"""Weights alone."""
TEACHER = "teacher and student"
"""DINO's training checkpoint, with projection heads; the teacher is read."""
ENCODER = "model, encoder and decoder"
"""A masked autoencoder under `model`; the encoder is read."""
CHUNKS = "teacher, in chunks of blocks"
"""DINOv2's training checkpoint of a teacher, its blocks numbered twice; the backbone is read."""
HUB_DINOV2 = "plain, with a mask token"
"""DINOv2's backbone, as its authors' hub code loads it."""
TRANSFORMERS = "transformers"
"""As the transformers library saves; `config.json` and the scale of pixels are read beside it."""

CRATE_PAGE = "https://github.com/Ma-Lab-Berkeley/CRATE"
DEMO_PAGE = "https://colab.research.google.com/drive/1rYn_NlepyW7Fu5LDliyBDmFZylHco7ss"
DINO_FOLDER = "https://dl.fbaipublicfiles.com/dino"
HUB_PAGE = "https://huggingface.co"

CRATE_README = "README of Ma-Lab-Berkeley/CRATE"
CRATE_ISSUE = "issue 30 of Ma-Lab-Berkeley/CRATE"
DEMO_CODE = "crate.py of LeslieTrue/crate-emergence-notebooks"
DINO_README = "README (00e1bcc) and hubconf.py (144f705) of facebookresearch/dino"
ALPHA_README = "README of UCSC-VLAA/CRATE-alpha (092e9f1) and its page on the hub"
SIMDINO_README = "README of RobinWu218/SimDINO (2c3fbe1)"
SIMDINO_PAGE = "https://github.com/RobinWu218/SimDINO"
DINOV2_README = "README and hubconf.py of facebookresearch/dinov2"
DINOV2_FOLDER = "https://dl.fbaipublicfiles.com/dinov2"
TIMM_CODE = "timm/models/vision_transformer.py (9456764)"
TIMM_PAGE = f"the hub's page, {TIMM_CODE}"


class Checkpoint(NamedTuple):
    """One file, or the want of one."""

    system: str
    arch: str
    """What the weights leave open: see `ARCHS`."""
    training_data: str
    status: str
    read_in: str
    file: str = ""
    """What `load_model` takes before `@`; empty without a file, FILE where its name is not told."""
    layout: str = ""
    licence: str = ""
    """As told beside the file or, with `(code)`, by the repository; empty where we read none."""
    published: str = ""

    @property
    def name(self) -> str:
        """FILE@ARCH, the spec to type; nothing without a file."""
        return f"{self.file}@{self.arch}" if self.file else ""


def released_checkpoints() -> pd.DataFrame:
    """One row a file, and one for each system of the papers that has none.

    Columns: system; arch; training data; status (listed by its publisher, reported by users to be
    had or dead, announced only, not found); file; layout; name (FILE@ARCH, as `load_model` takes
    it); of a file also, as that arch says, classes, image size, pixel mean and pixel sd (of R, G
    and B, as shares of 255); licence; published (an address); read in (where this was read).
    """
    rows = []
    for found in (*_crate(), *_alpha(), *_dino(), *_dinov2(), *_vit()):
        rows.append(
            {
                "system": found.system,
                "arch": found.arch,
                "training data": found.training_data,
                "status": found.status,
                "file": found.file,
                "layout": found.layout,
                "name": found.name,
                **(_expected(ARCHS[found.arch]) if found.file else {}),
                "licence": found.licence,
                "published": found.published,
                "read in": found.read_in,
            }
        )
    return pd.DataFrame(rows).astype({"classes": "Int64", "image size": "Int64"})


def _expected(config: ModelConfig) -> dict[str, Any]:
    """The columns that follow from the architecture."""
    return {
        "classes": config.num_classes,
        "image size": config.image_size,
        "pixel mean": config.pixel_mean,
        "pixel sd": config.pixel_std,
    }


def _crate() -> Iterator[Checkpoint]:
    """Yu et al. 2024, with patch 8 and ImageNet-21k; Yu et al. 2023, with 16 and ImageNet-1k."""
    yield Checkpoint(
        "CRATE-B/8, demo",
        "crate_base_patch8_224.demo",
        "ImageNet-21k",
        OBTAINED,
        f"{CRATE_ISSUE} (April 2026), {DEMO_CODE}",
        "crate-demo.pth",
        DEMO,
        "MIT (code)",
        DEMO_PAGE,
    )
    for size in ("tiny", "small", "base"):
        arch = f"crate_{size}_patch8_224.cpal24"
        read_in = f"{CRATE_README}, {DEMO_CODE}"
        yield Checkpoint(f"CRATE-{_letter(size)}/8", arch, "ImageNet-21k", NOT_FOUND, read_in)
    yield Checkpoint(
        "CRATE-S/16",
        "crate_small_patch16_224.neurips23",
        "ImageNet-1k",
        DEAD,
        f"{CRATE_README}, its main.py (359ef26), {CRATE_ISSUE} (April 2025)",
        "FILE",
        TRAINING,
        "MIT (code)",
        CRATE_PAGE,
    )
    for size in ("tiny", "base", "large"):
        arch = f"crate_{size}_patch16_224.neurips23"
        yield Checkpoint(f"CRATE-{_letter(size)}/16", arch, "ImageNet-1k", ANNOUNCED, CRATE_README)


def _alpha() -> Iterator[Checkpoint]:
    """Yang et al. 2024, and Pai et al. 2024: an overcomplete code, and a masked autoencoder."""
    hub = "UCSC-VLAA/CRATE-alpha"
    page = f"{HUB_PAGE}/{hub}"
    for size, patch in (("base", 16), ("large", 14)):
        arch = f"crate_{size}_patch{patch}_224.alpha"
        file = f"{HUB_PREFIX}{hub}/torch/crate_alpha_{_letter(size)}{patch}.pth"
        told = ("ImageNet-1k", LISTED, ALPHA_README, file, PLAIN, "Apache 2.0", page)
        yield Checkpoint(f"CRATE-alpha-{_letter(size)}/{patch}", arch, *told)
    for size, patch, ending in (
        ("base", 8, "_IN21K"),
        ("base", 16, "_IN21K"),
        ("large", 8, "_IN21K"),
        ("large", 14, "_IN21K"),
        ("base", 32, "_in21k.pth"),
        ("large", 32, "_in21k.pth"),
    ):
        arch = f"crate_{size}_patch{patch}_224.alpha_in21k"
        stem = f"crate_alpha_{_letter(size)}{patch}{ending}"
        file = f"{HUB_PREFIX}{hub}/torch/in21k_Pretrain/{stem}"
        told = ("ImageNet-21k", LISTED, ALPHA_README, file, PLAIN, "Apache 2.0", page)
        yield Checkpoint(f"CRATE-alpha-{_letter(size)}/{patch}", arch, *told)
    data = "ImageNet-1k, no labels"
    arch = "crate_base_patch16_224.mae"
    about = (data, LISTED, CRATE_README, "FILE", ENCODER, "MIT (code)", CRATE_PAGE)
    yield Checkpoint("CRATE-MAE-B/16", arch, *about)
    arch = "crate_small_patch16_224.mae"
    yield Checkpoint("CRATE-MAE-S/16", arch, data, ANNOUNCED, CRATE_README)


def _dino() -> Iterator[Checkpoint]:
    """Caron et al. 2021, from the authors, and again in timm's layout."""
    for size, patch, stem in (
        ("small", 8, "dino_deitsmall8_pretrain"),
        ("base", 8, "dino_vitbase8_pretrain"),
        ("small", 16, "dino_deitsmall16_pretrain"),
        ("base", 16, "dino_vitbase16_pretrain"),
    ):
        what = (f"DINO ViT-{_letter(size)}/{patch}", f"vit_{size}_patch{patch}_224.dino")
        told = (*what, "ImageNet-1k, no labels", LISTED)
        for ending, layout in ((".pth", PLAIN), ("_full_checkpoint.pth", TEACHER)):
            file = stem + ending
            page = f"{DINO_FOLDER}/{stem}/{file}"
            yield Checkpoint(*told, DINO_README, file, layout, "Apache 2.0 (code)", page)
        yield Checkpoint(*told, TIMM_PAGE, *_on_hub(what[1], "Apache 2.0"))
    for size, patch in (("small", 8), ("base", 8), ("small", 16), ("base", 16)):
        arch = f"vit_{size}_patch{patch}_224.dino"
        yield _of_facebook(
            f"DINO ViT-{_letter(size)}/{patch}",
            arch,
            "ImageNet-1k, no labels",
            f"dino-vit{size[0]}{patch}",
        )
    for version, layout in (("", TEACHER), ("v2", CHUNKS)):
        for size in ("base", "large"):
            arch = f"vit_{size}_patch16_224.simdino{version}"
            system, data = f"SimDINO{version} ViT-{_letter(size)}/16", "ImageNet-1k, no labels"
            about = (data, LISTED, SIMDINO_README, "FILE", layout, "", SIMDINO_PAGE)
            yield Checkpoint(system, arch, *about)


def _dinov2() -> Iterator[Checkpoint]:
    """Oquab et al. 2023, and with registers Darcet et al. 2024; the giants' MLP is not read."""
    for registers, tag, ending in (("", "dinov2", ""), ("_reg4", "dinov2_reg4", "-with-registers")):
        for size in ("small", "base", "large"):
            arch = f"vit_{size}_patch14_518.{tag}"
            system = f"DINOv2{' with registers' if registers else ''} ViT-{_letter(size)}/14"
            stem = f"dinov2_vit{size[0]}14"
            file = f"{stem}{registers}_pretrain.pth"
            page = f"{DINOV2_FOLDER}/{stem}/{file}"
            data = "LVD-142M, no labels"
            told = (data, LISTED, DINOV2_README, file, HUB_DINOV2, "Apache 2.0", page)
            yield Checkpoint(system, arch, *told)
            yield _of_facebook(system, arch, data, f"dinov2{ending}-{size}")


def _of_facebook(system: str, arch: str, data: str, name: str) -> Checkpoint:
    """A file in the transformers library's layout."""
    page = f"{HUB_PAGE}/facebook/{name}"
    file = f"{HUB_PREFIX}facebook/{name}"
    read_in = "the hub's page"
    return Checkpoint(system, arch, data, LISTED, read_in, file, TRANSFORMERS, "Apache 2.0", page)


def _vit() -> Iterator[Checkpoint]:
    """Steiner et al. 2021, in timm's layout; the paper's own ViT-S/8 is among none of them."""
    data = "ImageNet-21k"
    yield Checkpoint("ViT-S/8", "vit_small_patch8_224", data, NOT_FOUND, TIMM_CODE)
    for size, patch, licence, read_in in (
        ("base", 8, "Apache 2.0", TIMM_PAGE),
        ("tiny", 16, "Apache 2.0", TIMM_PAGE),
        ("small", 16, "", TIMM_CODE),
        ("base", 16, "Apache 2.0", TIMM_PAGE),
    ):
        arch = f"vit_{size}_patch{patch}_224.augreg_in21k"
        system = f"ViT-{_letter(size)}/{patch}, augreg"
        yield Checkpoint(system, arch, data, LISTED, read_in, *_on_hub(arch, licence))


def _on_hub(arch: str, licence: str) -> tuple[str, str, str, str]:
    """The last four fields of a file of timm's, whose repositories are called as our archs."""
    return f"{HUB_PREFIX}timm/{arch}", PLAIN, licence, f"{HUB_PAGE}/timm/{arch}"


def _letter(size: str) -> str:
    return size[0].upper()
