"""Reading layers of a model: attention maps and patch features."""

from crate_analysis.probes.attention import cls_attention, papers_layer
from crate_analysis.probes.collect import collect
from crate_analysis.probes.features import patch_features

__all__ = ["cls_attention", "collect", "papers_layer", "patch_features"]
