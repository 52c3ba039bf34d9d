"""What the objective of a white-box transformer is made of, measured layer by layer."""

from crate_analysis.measures.choice import cross_fit
from crate_analysis.measures.coding_rate import coding_rate, rate_reduction, total_coding_rate
from crate_analysis.measures.dictionary import (
    atom_cosines,
    coding_objective,
    dictionary_change,
    dictionary_frame,
    lasso_objective,
    step_strength,
)
from crate_analysis.measures.layers import MEASURES, Measure, measure_layers
from crate_analysis.measures.sparsity import nonzero_fraction
from crate_analysis.measures.steps import (
    common_share,
    cosine,
    derived_gradient,
    lift,
    measured_gradient,
    random_step,
    rate_change,
    turned,
    turned_cosine,
    with_length_of,
)
from crate_analysis.measures.subspaces import (
    effective_dimension,
    orthogonality_gap,
    principal_cosines,
    subspace_coherence,
    subspace_frame,
    subspace_overlap,
    token_dimension,
)
from crate_analysis.measures.summary import (
    MeanInterval,
    contrast_interval,
    design_interval,
    interval_frame,
    mean_interval,
    paired_difference,
    ratio_interval,
    run_image_interval,
    run_interval,
)

__all__ = [
    "MEASURES",
    "MeanInterval",
    "Measure",
    "atom_cosines",
    "coding_objective",
    "coding_rate",
    "common_share",
    "contrast_interval",
    "cosine",
    "cross_fit",
    "derived_gradient",
    "design_interval",
    "dictionary_change",
    "dictionary_frame",
    "effective_dimension",
    "interval_frame",
    "lasso_objective",
    "lift",
    "mean_interval",
    "measure_layers",
    "measured_gradient",
    "nonzero_fraction",
    "orthogonality_gap",
    "paired_difference",
    "principal_cosines",
    "random_step",
    "rate_change",
    "rate_reduction",
    "ratio_interval",
    "run_image_interval",
    "run_interval",
    "step_strength",
    "subspace_coherence",
    "subspace_frame",
    "subspace_overlap",
    "token_dimension",
    "total_coding_rate",
    "turned",
    "turned_cosine",
    "with_length_of",
]
