"""What the objective of a white-box transformer is made of, measured layer by layer."""

from crate_analysis.measures.coding_rate import coding_rate, total_coding_rate
from crate_analysis.measures.layers import MEASURES, Measure, measure_layers
from crate_analysis.measures.sparsity import nonzero_fraction
from crate_analysis.measures.summary import MeanInterval, mean_interval

__all__ = [
    "MEASURES",
    "MeanInterval",
    "Measure",
    "coding_rate",
    "mean_interval",
    "measure_layers",
    "nonzero_fraction",
    "total_coding_rate",
]
