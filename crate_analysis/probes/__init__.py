"""Reading one layer of a model: attention maps and patch features."""

from crate_analysis.probes.attention import cls_attention
from crate_analysis.probes.features import patch_features

__all__ = ["cls_attention", "patch_features"]
