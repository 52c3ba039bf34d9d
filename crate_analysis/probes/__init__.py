"""Reading layers of a model: attention maps and patch features."""

from crate_analysis.probes.artifacts import (
    artifact_frame,
    longest_patches,
    outlier_patches,
    without_patches,
)
from crate_analysis.probes.attention import (
    cls_attention,
    cls_maps,
    deepest_patch,
    papers_layer,
    patch_attention,
)
from crate_analysis.probes.collect import collect
from crate_analysis.probes.controls import accuracy_under, mirror, pixel_features, shuffle_patches
from crate_analysis.probes.features import patch_features, patch_keys
from crate_analysis.probes.maps import (
    attention_share,
    effective_patches,
    kept_similarity,
    map_frame,
    map_numbers,
    map_similarity,
    regrid,
)
from crate_analysis.probes.noise import embedding_change, under_noise
from crate_analysis.probes.parts import (
    adjusted_rand,
    balanced_accuracy,
    cluster_patches,
    linear_probe,
    patch_labels,
    separation_auc,
)
from crate_analysis.probes.pca import component_auc, pca_rgb, pca_scores
from crate_analysis.probes.separation import pca_separation
from crate_analysis.probes.versions import compare_maps

__all__ = [
    "accuracy_under",
    "adjusted_rand",
    "artifact_frame",
    "attention_share",
    "balanced_accuracy",
    "cls_attention",
    "cls_maps",
    "cluster_patches",
    "collect",
    "compare_maps",
    "component_auc",
    "deepest_patch",
    "effective_patches",
    "embedding_change",
    "kept_similarity",
    "linear_probe",
    "longest_patches",
    "map_frame",
    "map_numbers",
    "map_similarity",
    "mirror",
    "outlier_patches",
    "papers_layer",
    "patch_attention",
    "patch_features",
    "patch_keys",
    "patch_labels",
    "pca_rgb",
    "pca_scores",
    "pca_separation",
    "pixel_features",
    "regrid",
    "separation_auc",
    "shuffle_patches",
    "under_noise",
    "without_patches",
]
