# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,mystnb,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is a layer's output a sparse code in a learned dictionary?
#
# **The claim.** The second half of a CRATE layer is a step of ISTA: it codes the tokens
# $z = \mathrm{LN}(Z^{\ell+1/2})$ sparsely in a learned dictionary $D$, which is nearly orthogonal, so
# that coding does not change the rate $R$
# ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox), Sec. 2.4).
#
# **The test.** How far training moved the dictionary from its first, random values; and how far the
# step lowers its own objective, beside the ReLU alone and beside an empty code.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 64
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import torch

from crate_analysis.measures import (
    atom_cosines,
    coding_objective,
    dictionary_frame,
    lasso_objective,
    measure_layers,
    nonzero_fraction,
    orthogonality_gap,
)
from crate_analysis.plotting import layer_curves, reference_line, spectra
from crate_analysis.study import Finding, Study

study = Study(globals(), "04-dictionary")


def has_dictionary(network):
    """Whether the second half of each layer is ISTA."""
    return network.model.config.family == "crate" and network.model.config.nonlinearity != "mlp"


def first_values(network):
    """The network as it was before its training, where that was kept."""
    return next((model for step, model in network.snapshots() if step == 0), None)


by_weights = {"style": "weights", "styles": ["trained", "untrained"]}

# %% [markdown]
# ## The measurement
#
# For tokens $z$ the step is derived from the problem of finding a non-negative code $a$ with a small
#
# $$
# \tfrac{1}{2} \lVert z - D a \rVert^2 + \lambda \lVert a \rVert_1,
# $$
#
# and goes from $a = z$ to the layer's output (in CRATE-alpha from $a = 0$, by two steps). Networks
# whose second half is an MLP have no dictionary and are left out.

# %%
measures = {
    "before": lambda s: coding_objective(s, s.initial_codes),
    "ReLU alone": lambda s: coding_objective(s, s.initial_codes.relu()),
    "after": lambda s: coding_objective(s, s.codes),
    "empty code": lambda s: coding_objective(s, torch.zeros_like(s.codes)),
    "misfit": lambda s: lasso_objective(s.codes, s.normed_half, s.sparse_coding.dictionary, 0.0),
    "non-zero": lambda s: nonzero_fraction(s.codes),
}


values = study.each(
    lambda network: (
        measure_layers(network.model, network.images, measures, reading=study.reading)
        if has_dictionary(network)
        else None
    ),
    untrained=True,
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
atoms = study.each(
    lambda network: (
        dictionary_frame(network.model, first_values(network)) if has_dictionary(network) else None
    ),
    untrained=True,
)
keys = ["model", "weights", "image", "layer"]
wide = values if values.empty else values.pivot_table(
    index=keys, columns="measure", values="value"
).reset_index()  # fmt: skip
colours = {name: study.colours[name] for name in study.labels if name in set(values.model)}
generator = torch.Generator().manual_seed(seed)
dim = study.networks[0].model.config.dim
gaussian = torch.randn(dim, dim, generator=generator)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "The dictionary of {main} moved by {main[relative change of the dictionary].mean:.0%} of its "
    "size from its first, random values; an atom's cosine with its first value is "
    "{main[cosine with the first values].mean:.3f}.",
    "Its distance from orthogonal is {main[distance from orthogonal].mean:.2f}, that of a Gaussian "
    "matrix {main[distance from orthogonal, Gaussian matrix].mean:.2f}.",
    "The step lowers its objective by {main[ISTA lowers its objective by].mean:.3g} a token, "
    "untrained by {main[ISTA lowers its objective by, untrained].mean:.3g}; what it arrives at is "
    "{main[an empty code is better by]:worse than|better than|as good as} an empty code "
    "({main[an empty code is better by]}).",
    needs=values,
)
def findings():
    """Over layers; one value an image, or one a layer for what the weights say."""
    per_image = wide.groupby(["model", "weights", "image"]).mean(numeric_only=True)
    for label in colours:
        claim = "dictionary" if label == study.labels[0] else ""
        own = atoms[(atoms.model == label) & (atoms.weights == "trained")]
        moved = own.dropna(subset="change")
        for quantity, values in (
            ("relative change of the dictionary", moved.change),
            ("cosine with the first values", moved.cosine),
        ):
            yield Finding(label, quantity, values.mean() if len(values) else values)
        yield Finding(label, "distance from orthogonal", own.gap.mean())
        random = orthogonality_gap(gaussian).item()
        yield Finding(label, "distance from orthogonal, Gaussian matrix", random)
        for weights, ending in (("trained", ""), ("untrained", ", untrained")):
            of = per_image.loc[label, weights]
            yield Finding(label, f"ISTA lowers its objective by{ending}", of.before - of.after)
        trained, twin = (per_image.loc[label, weights] for weights in ("trained", "untrained"))
        added = (trained.before - trained.after) - (twin.before - twin.after)
        yield Finding(label, "training lowers it further by", added, claim)
        empty = trained.after - trained["empty code"]
        yield Finding(label, "an empty code is better by", empty, claim, expected="below")
        yield Finding(
            label, "share of the objective that is misfit", trained.misfit / trained.after
        )
        yield Finding(label, "non-zero share", trained["non-zero"])


# %% [markdown]
# Intervals are over images. Statements on the trained dictionary of a network that moved little from
# its first values are statements on a random matrix.
#
# ## The dictionary
#
# The coherence of $d$ atoms in $d$ dimensions could be 0, so orthogonality is there for the taking.
# [Figure 1](#fig-dictionaries) asks how near a dictionary is, beside a Gaussian matrix, and how far it moved.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The dictionaries of all layers. Mean cosine of two atoms; distance from the nearest multiple of "
    "an orthogonal matrix, relative to the size of $D^\\top D$ (0 is orthogonal); relative change from "
    "the first values (0 is none); singular values, one line a layer. Dotted: a Gaussian matrix.",
    alt="Four plots by layer: cosine of atoms, distance from orthogonal, change, singular values.",
    needs=atoms,
)
def dictionaries():
    """By layer."""
    _, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    levels = {
        "mean_cosine": ("mean $|\\cos|$ of two atoms", atom_cosines(gaussian).mean()),
        "gap": ("distance from orthogonal", orthogonality_gap(gaussian)),
        "change": ("relative change", None),
    }
    by_layer = atoms.drop_duplicates(["model", "weights", "layer"])
    for ax, (column, (label, level)) in zip(axes.flat, levels.items(), strict=False):
        rows = by_layer.assign(value=by_layer[column]).dropna(subset="value")
        if rows.empty:  # of a network whose first values were not kept
            ax.set_axis_off()
            continue
        layer_curves(rows, colours, **by_weights, ylabel=label, ax=ax)
        if level is not None:
            reference_line(level.item(), "Gaussian", ax)
        ax.set_ylim(0, None)
    spectra(atoms, colours, **by_weights, ylabel="singular value", ax=axes.flat[3])
    for ax in axes.flat[1:]:
        if ax.get_legend():
            ax.get_legend().remove()
    return atoms


# %% [markdown]
# ## What ISTA does to its objective
#
# A step with $\eta \lVert D \rVert^2 < 2$ cannot raise the objective if it shrinks from both sides;
# the ReLU also sets every negative entry to zero, and may. [Figure 2](#fig-objective) shows the
# objective before and after, and two levels to judge it by: what the ReLU does alone, without the
# dictionary, and what it costs to write nothing at all.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The objective of ISTA, mean over tokens, at the code it starts from, after the ReLU alone, after "
    "the step, and at the empty code. Mean and one standard deviation over images.",
    alt="Line plots of the sparse coding objective against the layer, at four codes.",
    needs=values,
)
def objective():
    """Trained and not, a row a network."""
    places = ["before", "ReLU alone", "after", "empty code"]
    code_colours = dict(zip(places, ("#cc78bc", "#029e73", "black", "0.6"), strict=True))
    _, axes = plt.subplots(
        len(colours), 2, figsize=(10, 4 * len(colours)), sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    shown = pd.concat(wide[keys].assign(code=place, value=wide[place]) for place in places)
    for row, name in zip(axes, colours, strict=True):
        for ax, weights in zip(row, ("trained", "untrained"), strict=True):
            part = shown[(shown.model == name) & (shown.weights == weights)]
            layer_curves(part.assign(model=part.code), code_colours, ax=ax)
            ax.set_title(f"{name}, {weights}", pad=26, fontsize="medium")
        row[0].set_ylabel("objective per token")
        row[0].set_ylim(0, None)
        row[1].get_legend().remove()
    return shown


# %% [markdown]
# A short gradient step on any dictionary lowers the objective, a random one included. A code that is
# sparse *and* explains its token would lie below the empty code; where the step ends above it, the
# layer's output is not a sparse code of its input in the sense of this objective.
#
# ## How our setting differs
#
# Ours are small networks trained on drawn animals ([Models and data](01-models-and-data.ipynb)), with
# $\eta = \lambda = 0.1$ as in the papers. Other values of $\lambda$, and an
# overcomplete dictionary, are experiment D, which is declared and not yet run.
#
# ## What would have disproved the claim
#
# - A dictionary that training does not move, or moves no nearer to orthogonal than a random one.
# - A step that lowers its objective no further than before training, or no further than the ReLU.
# - A code that is worse than none.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
