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
# # Does each layer compress and sparsify?
#
# **The claim.** A layer of CRATE is one step on an objective
# ([the introduction](../book/index.md)): its attention
# lowers the coding rate $R^c(Z \mid U_{[K]})$ of the tokens in its subspaces, its ISTA block lowers
# their share of non-zero entries. Both are reported to fall from layer to layer, on training and on
# validation images alike, with exceptions towards the last layers
# ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox)).
#
# **The test.** Each quantity is measured in every layer, in the trained network and in its twin before
# training. What the twin shows too is the design's doing, not the training's. A step of attention is
# compared with the same step turned in a random direction.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 256
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.interventions import change
from crate_analysis.measures import (
    MEASURES,
    measure_layers,
    paired_difference,
    rate_change,
    turned,
)
from crate_analysis.plotting import layer_curves, reference_line
from crate_analysis.study import Finding, Study

study = Study(globals(), "02-compression")

# %% [markdown]
# ## The measurement
#
# One pass over the images gives all quantities for every layer: $R^c$ of $U_k^\top \mathrm{LN}(Z^\ell)$
# where the released code measures it, before attention; the share of non-zero entries
# $\lVert Z^{\ell+1} \rVert_0 / (d\,t)$; the rate reduction $R - R^c$; and what one attention step, and
# the same step turned at random, do to $R^c$. A ViT has no subspaces of this kind; its keys stand in.

# %%
measures = {
    **MEASURES,
    "attention step": lambda state: rate_change(state, state.half - state.tokens),
    "turned step": lambda state: rate_change(state, turned(state.half - state.tokens, seed)),
}
values = study.each(
    lambda network: measure_layers(network.model, network.images, measures, reading=study.reading),
    untrained=True,
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
keys = ["model", "weights", "image", "layer"]
wide = values.pivot_table(index=keys, columns="measure", values="value").reset_index()
image = ["model", "weights", "image"]
first = wide[wide.layer == 0].set_index(image)
last = wide[wide.layer == wide.groupby("model").layer.transform("max")].set_index(image)
by_depth = last - first

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Attention lowers the rate in {main} by {main[attention lowers R^c by].mean:.3g} nats a layer, "
    "the same step turned at random by {main[the step turned at random lowers R^c by].mean:.3g}: "
    "the direction of the step {main[due to its direction]:matters|hurts|cannot be told to matter}.",
    "From the first layer to the last, R^c "
    "{main[R^c falls by]:falls|rises|does not clearly change} by {main[R^c falls by]} nats; before "
    "training it falls by {main[R^c falls by, untrained]}.",
    "The non-zero share {main[non-zero share falls by]:falls|rises|does not clearly change} by "
    "{main[non-zero share falls by]}, before training by {main[non-zero share falls by, untrained]}; "
    "what training adds is {main[non-zero share falls by, training adds]}.",
    "The objective's R - R^c changes by {main[R - R^c rises by]} nats with depth, before training "
    "by {main[R - R^c rises by, untrained]}.",
)
def findings():
    """Falls are positive; one value an image."""
    per_image = wide.groupby(image)[["attention step", "turned step"]].mean()
    for name in study.labels:
        steps = per_image.loc[name, "trained"]
        claim = name == study.labels[0]
        yield Finding(name, "attention lowers R^c by", -steps["attention step"])
        yield Finding(name, "the step turned at random lowers R^c by", -steps["turned step"])
        ahead = steps["turned step"] - steps["attention step"]
        yield Finding(name, "due to its direction", ahead, "compression" if claim else "")
        for quantity, column, sign, of in (
            ("R^c falls by", "coding_rate", -1, "compression"),
            ("non-zero share falls by", "nonzero_fraction", -1, "sparsification"),
            ("R - R^c rises by", "rate_reduction", 1, ""),
        ):
            trained, twin = (sign * by_depth.loc[name, w][column] for w in ("trained", "untrained"))
            yield Finding(name, quantity, trained, of if claim else "")
            yield Finding(name, f"{quantity}, untrained", twin)
            added = paired_difference(trained, twin)
            yield Finding(name, f"{quantity}, training adds", added, of if claim else "")


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs. *Training adds* is the
# trained network less its twin, image by image.
#
# ## Compression
#
# [Figure 1](#fig-rate) follows $R^c$ through the layers.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Coding rate $R^c$ in each layer's own subspaces, before its attention. Mean and one standard "
    "deviation over images. Lower is more compressed.",
    alt="Line plot of the coding rate against the layer for each network, trained and untrained.",
)
def rate():
    """By layer."""
    rows = wide.assign(value=wide.coding_rate)
    _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    style = {"style": "weights", "styles": ["trained", "untrained"]}
    layer_curves(rows, study.colours, **style, ylabel="$R^c$ before attention (nats)", ax=ax)
    return rows[[*keys, "value"]]


# %% [markdown]
# From one layer to the next the subspaces change, so a curve over layers compares lengths measured
# with different rulers. [Figure 2](#fig-step) keeps the layer's subspaces and asks what its attention
# step does to the rate there: below zero, the step compresses. A step of this length lowers the rate
# in almost any direction, before training too, so the test is how much lower it goes than when it is
# turned at random.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "What one attention step does to $R^c$ in its layer's subspaces (left) and the same step turned "
    "in a random direction (right). Mean and one standard deviation over images.",
    alt="Two line plots of the change of the coding rate by layer: the step, and the turned step.",
)
def step():
    """The step and its control, on one scale."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    style = {"style": "weights", "styles": ["trained", "untrained"]}
    for ax, name in zip(axes, ("attention step", "turned step"), strict=True):
        layer_curves(wide.assign(value=wide[name]), study.colours, **style, ax=ax)
        ax.set_title(name, pad=26, fontsize="medium")
        ax.set_ylabel("change of $R^c$ (nats)")
        reference_line(0, "no change", ax)
    axes[1].get_legend().remove()
    return wide[[*keys, "attention step", "turned step"]]


# %% [markdown]
# The objective is not low $R^c$ alone, which collapsed tokens would have too, but a high rate
# reduction $R - R^c$ ([Figure 3](#fig-reduction)). Both rates are taken of the same tokens of unit
# length, on one scale, as the objective has it; the curve of $R^c$ above scales each projection anew,
# as the released code does, and cannot be subtracted from $R$. Neither paper plots this.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Left: the total rate $R$ of the tokens that the attention of a layer sees. Right: the rate "
    "reduction $R - R^c$. Mean and one standard deviation over images.",
    alt="Two line plots against the layer: the total coding rate and the rate reduction.",
)
def reduction():
    """Of the tokens before attention."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    style = {"style": "weights", "styles": ["trained", "untrained"]}
    labels = {"total_coding_rate": "$R$ (nats)", "rate_reduction": "$R - R^c$ (nats)"}
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        layer_curves(wide.assign(value=wide[name]), study.colours, **style, ylabel=label, ax=ax)
    axes[1].get_legend().remove()
    return wide[[*keys, *labels]]


# %% [markdown]
# ## Sparsification
#
# [Figure 4](#fig-sparsity) counts the entries that are not exactly zero. Only ISTA's ReLU makes exact
# zeros; the residual stream of a ViT has none, so its curve lies at 1 by construction.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Share of non-zero entries after each layer, $\\lVert Z^{\\ell+1} \\rVert_0 / (d\\,t)$. Mean and "
    "one standard deviation over images. Lower is sparser.",
    alt="Line plot of the share of non-zero entries against the layer.",
)
def sparsity():
    """By layer."""
    rows = wide.assign(value=wide.nonzero_fraction)
    _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    style = {"style": "weights", "styles": ["trained", "untrained"]}
    layer_curves(rows, study.colours, **style, ylabel="share of non-zero entries", ax=ax)
    ax.set_ylim(0, 1.05)
    return rows[[*keys, "value"]]


# %% [markdown]
# About half of the entries of a normalised token are negative whatever the dictionary is, and ISTA's
# ReLU sets them to zero. [Figure 5](#fig-zeros) therefore takes the dictionary out of the finished
# network, as with a step size $\eta$ of 0: each layer then ends in
# $\mathrm{ReLU}(\mathrm{LN}(Z^{\ell+1/2}))$. Where the curves are close, the zeros say little about a
# learned sparse code. [The dictionary](04-dictionary.ipynb) goes on from here.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
def without_dictionary(network):
    """The non-zero share where each layer ends in ReLU(LN(Z))."""
    if network.model.config.nonlinearity != "ista":
        return None
    edits = [
        change(layer, "codes", lambda _, state: state.normed_half.relu(), name="no dictionary")
        for layer in range(len(network.model.layers))
    ]
    share = {"nonzero_fraction": MEASURES["nonzero_fraction"]}
    return measure_layers(network.model, network.images, share, reading=study.reading, edits=edits)


without = study.each(without_dictionary, untrained=True)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Share of non-zero entries after each layer, with the dictionary step and with its step size set "
    "to 0. Mean and one standard deviation over images.",
    alt="Line plot of the non-zero share against the layer, with and without the dictionary step.",
    needs=without,
)
def zeros():
    """With and without the dictionary."""
    with_step = wide[wide.model.isin(without.model)].assign(value=wide.nonzero_fraction)
    rows = pd.concat(
        [
            with_step.assign(setting=with_step.weights),
            without.assign(setting=without.weights + ", η = 0"),
        ]
    )[[*keys, "setting", "value"]]
    _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    colours = {name: study.colours[name] for name in rows.model.unique()}
    settings = ["trained", "trained, η = 0", "untrained", "untrained, η = 0"]
    layer_curves(rows, colours, "setting", settings, ylabel="share of non-zero entries", ax=ax)
    ax.set_ylim(0, None)
    return rows


# %% [markdown]
# ## Training and validation images
#
# [Figure 6](#fig-splits-apart) sets images that the networks were trained on beside images that they were
# not. If compression were memorised, the two would part.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
paper = {name: MEASURES[name] for name in ("coding_rate", "nonzero_fraction")}
splits = study.each(
    lambda network: (
        measure_layers(network.model, network.train_images, paper, reading=study.reading)
        if study.has("train")
        else None
    )
)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Trained networks on training and on validation images: coding rate before attention (left) and "
    "share of non-zero entries (right). Mean and one standard deviation over images.",
    alt="Two line plots against the layer, with lines for training and validation images.",
    needs=splits,
)
def splits_apart():
    """Both quantities on both splits."""
    own = values[(values.weights == "trained") & values.measure.isin(paper)]
    rows = pd.concat([own.assign(split="validation"), splits.assign(split="training")])
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    labels = {"coding_rate": "$R^c$ (nats)", "nonzero_fraction": "share of non-zero entries"}
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        style = {"style": "split", "styles": ["validation", "training"]}
        layer_curves(rows[rows.measure == name], study.colours, **style, ylabel=label, ax=ax)
    axes[1].get_legend().remove()
    return rows


# %% [markdown]
# ## The paper's own account
#
# [Yu et al. 2023](../book/bibliography.md#yu2023whitebox) show these curves for CRATE on ImageNet-1k:
# both measures fall over most of the layers, in training as in validation. They show no ViT, no
# untrained network and no measurement within a layer; those are ours. How both measures develop along
# training is in [Along training](15-training.ipynb).
#
# ## How our setting differs
#
# The papers measure networks of 12 layers trained on ImageNet. Ours are far smaller and trained on
# drawn animals ([Models and data](01-models-and-data.ipynb)).
#
# ## What would have disproved the claim
#
# - A trained CRATE whose $R^c$ does not fall with depth, or falls no more than before training.
# - Attention steps that lower the rate no further than a step in a random direction.
# - A share of non-zero entries that does not fall, or falls just as far before training, or without
#   the dictionary.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
