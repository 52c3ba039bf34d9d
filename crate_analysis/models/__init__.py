"""Networks that are read one layer state at a time."""

from crate_analysis.models.checkpoints import load_model, load_models, load_snapshots, save_model
from crate_analysis.models.config import ModelConfig
from crate_analysis.models.registry import ARCHS, build_model
from crate_analysis.models.released import released_checkpoints
from crate_analysis.models.unrolled import Edit, LayerState, Place, UnrolledModel
from crate_analysis.models.zoo import list_models

__all__ = [
    "ARCHS",
    "Edit",
    "LayerState",
    "ModelConfig",
    "Place",
    "UnrolledModel",
    "build_model",
    "list_models",
    "load_model",
    "load_models",
    "load_snapshots",
    "released_checkpoints",
    "save_model",
]
