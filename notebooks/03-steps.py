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
# # Is attention the step that it was derived from?
#
# **The claim.** In CRATE attention *is* a gradient step on the coding rate $R^c(Z \mid U_{[K]})$, with
# orthonormal bases $U_k$ of incoherent subspaces
# ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox), Sec. 2.3).
# [Compression](02-compression.ipynb) measured what comes out; here we open the layer and hold it
# against its derivation.
#
# **The test.** The cosine of the step with the descent of the rate, beside the same step turned at
# random; and what the step does to the rate, beside the same controls. A right angle to the descent
# would refute the reading of attention as a gradient step.

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
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.measures import (
    cosine,
    derived_gradient,
    lift,
    measure_layers,
    measured_gradient,
    rate_change,
    subspace_frame,
    token_dimension,
    turned,
    turned_cosine,
    with_length_of,
)
from crate_analysis.plotting import (
    chance_band,
    layer_curves,
    pair_map,
    reference_line,
)
from crate_analysis.study import Finding, Study

study = Study(globals(), "03-steps")
by_weights = {"style": "weights", "styles": ["trained", "untrained"]}

# %% [markdown]
# ## The measurement
#
# The gradient of the rate, from which attention is derived, is
#
# $$
# \nabla_Z R^c(Z \mid U_{[K]}) = \sum_{k=1}^{K} c\, U_k V_k \bigl(I + c\, V_k^\top V_k\bigr)^{-1},
# \qquad V_k = U_k^\top Z, \quad c = \frac{p}{N \epsilon^2}.
# $$
#
# The derivation steps down it, replaces the inverse by $I - c\, V_k^\top V_k$ and the product in it by
# a softmax, and reaches $(1 - \kappa c) Z + \kappa c\, \mathrm{MSSA}(Z)$: the tokens shrink, and
# attention is added. The code only adds, and returns from the subspaces by a map $W$ of its own in
# place of $U_k$. We compare a layer's step $Z^{\ell+1/2} - Z^{\ell}$ with two descents:
#
# - *derived*: the gradient above at $Z = \mathrm{LN}(Z^\ell)$, which is what the formula sees;
# - *measured*: the gradient, in $Z^\ell$, of the rate that [Compression](02-compression.ipynb) shows,
#   through LayerNorm and the scaling of every projected token to unit length.
#
# All tokens of an image, `[CLS]` with them, count as one vector.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
own = lru_cache(1)(lambda s: s.half - s.tokens)
attended = lru_cache(1)(lambda s: s.attention(None) @ s.projections)
descents = {
    "derived": lru_cache(1)(lambda s: -derived_gradient(s.subspaces, s.projections)),
    "measured": lru_cache(1)(lambda s: -measured_gradient(s)),
}
steps = {
    "as coded": own,
    "U for W": lambda s: lift(s.subspaces, attended(s)),
    "U, shrinking": lambda s: lift(s.subspaces, attended(s) - s.projections),
}
cosines = {
    f"{kind}, {rate}": lambda s, f=step, g=descent: cosine(f(s), g(s))
    for kind, step in steps.items()
    for rate, descent in descents.items()
} | {f"turned, {rate}": lambda s, g=g: turned_cosine(own(s), g(s)) for rate, g in descents.items()}
changes = {
    "change, as coded": own,
    "change, turned": lambda s: turned(own(s), seed),
    "change, mean alone": lambda s: own(s).mean(1, keepdim=True).expand_as(s.half),
    "change, down the gradient": lambda s: with_length_of(descents["measured"](s), own(s)),
    "change, U for W": lambda s: with_length_of(steps["U for W"](s), own(s)),
}

# %%
measures = cosines | {name: lambda s, f=f: rate_change(s, f(s)) for name, f in changes.items()}
measures["token dimension"] = lambda s: token_dimension(s.projections).mean(-1)


def measure(network):
    """All of it in one pass; what has U in place of W only where there is MSSA."""
    is_mssa = network.model.config.attention == "mssa"
    asked = {name: m for name, m in measures.items() if is_mssa or not name.count("U")}
    return measure_layers(network.model, network.images, asked, reading=study.reading)


values = study.each(measure, untrained=True)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
keys = ["model", "weights", "image", "layer"]
wide = values.pivot_table(index=keys, columns="measure", values="value").reset_index()
bases = study.each(lambda network: subspace_frame(network.model), untrained=True)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "The step of {main} has a cosine of {main[cosine with the measured descent].mean:.3f} with the "
    "descent of the rate, where a right angle has 0 and the same step turned at random "
    "± {main[the same, turned at random].mean:.3f}.",
    "It is the output map that turns it away: with U in place of W the cosine is "
    "{main[cosine with U for W].mean:.3f}, with the derivation's own descent and its shrinkage "
    "{main[cosine with U and shrinking, derived].mean:.3f}.",
    "The rate falls all the same, by {main[attention lowers R^c by].mean:.3g} nats a layer, turned at "
    "random by {main[the turned step lowers R^c by].mean:.3g}, with U in place of W by "
    "{main[the step with U lowers R^c by].mean:.3g}.",
    "Two subspaces overlap by {main[overlap of two subspaces].mean:.3f}, random ones by "
    "{main[overlap of random subspaces].mean:.3f}.",
)
def findings():
    """Means over layers, one value an image."""
    per_image = wide.groupby(["model", "weights", "image"]).mean(numeric_only=True)
    named = {
        "cosine with the measured descent": "as coded, measured",
        "the same, turned at random": "turned, measured",
        "cosine with the derived descent": "as coded, derived",
        "cosine with U for W": "U for W, measured",
        "cosine with U and shrinking, derived": "U, shrinking, derived",
    }
    lowers = {
        "attention lowers R^c by": "change, as coded",
        "the turned step lowers R^c by": "change, turned",
        "the step with U lowers R^c by": "change, U for W",
    }
    for label in study.labels:
        of = per_image.loc[label, "trained"]
        for quantity, column in named.items():
            if column in of and of[column].notna().any():
                yield Finding(label, quantity, of[column])
        if label == study.labels[0]:
            for rate in descents:
                ahead = of[f"as coded, {rate}"] - of[f"turned, {rate}"]
                name = f"cosine with the {rate} descent, beyond the turned step's"
                yield Finding(label, name, ahead, "steps")
        for quantity, column in lowers.items():
            if column in of and of[column].notna().any():
                yield Finding(label, quantity, -of[column])
        own_bases = bases[(bases.model == label) & (bases.weights == "trained")]
        if own_bases.overlap.notna().any():
            config = next(n.model.config for n in study.networks if n.label == label)
            yield Finding(label, "overlap of two subspaces", own_bases.overlap.mean())
            random = config.head_dim / config.dim
            yield Finding(label, "overlap of random subspaces", random)


# %% [markdown]
# Intervals are over images. *Turned at random* is the root mean square of the cosine that the step
# would have, were the $d$ coordinates turned by a random rotation: attention makes steps that vary
# smoothly over tokens, and gradients do so too, so a direction drawn from all $d\,t$ dimensions would
# be too easy a rival.
#
# ## Which way attention steps
#
# [Figure 1](#fig-direction) shows the cosines by layer.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Cosine of attention's step with the descent of the rate. Mean and one standard deviation over "
    "images. Grey: plus and minus two root mean squares of the first network's trained step turned "
    "at random.",
    alt="Two line plots of a cosine against the layer, close to zero, with a grey band around zero.",
)
def direction():
    """Both descents."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    main = wide[(wide.model == study.labels[0]) & (wide.weights == "trained")]
    for ax, rate in zip(axes, descents, strict=True):
        layer_curves(
            wide.assign(value=wide[f"as coded, {rate}"]), study.colours, **by_weights, ax=ax
        )
        level = main.groupby("layer")[f"turned, {rate}"].apply(lambda v: 2 * (v**2).mean() ** 0.5)
        chance_band(level.rename("high").reset_index().assign(low=lambda f: -f.high), ax)
        ax.set_title(f"as {rate}", pad=26, fontsize="medium")
    axes[0].set_ylabel("cosine with the descent")
    axes[1].get_legend().remove()
    return wide[
        [*keys, *(f"{kind}, {rate}" for kind in ("as coded", "turned") for rate in descents)]
    ]


# %% [markdown]
# ### Is it the output map?
#
# [Figure 2](#fig-output-map) puts back what lies between derivation and code, one after the other:
# $\sum_k U_k V_k S_k$ with the layer's own softmax $S_k$, and $\sum_k U_k (V_k S_k - V_k)$, in which
# every token gives up what it was as it takes on what it attends to. The first pulls similar tokens
# together, which lowers a rate of tokens of unit length; in the rate of the derivation tokens get
# cheaper by getting shorter, so only the second can go down there.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
with_mssa = wide[wide.get("U for W, measured", pd.Series(np.nan, wide.index)).notna()]


@study.figure(
    "The same cosines for the step as coded, with $U_k$ in place of the output map $W$, and with the "
    "tokens' shrinkage too, for the first network with MSSA. Mean and one standard deviation over "
    "images.",
    alt="Two line plots of the cosine with the descent against the layer, for three kinds of step.",
    needs=with_mssa,
)
def output_map():
    """Three steps, two descents."""
    rows = with_mssa[with_mssa.model == with_mssa.model.iloc[0]]
    colours = dict(zip(steps, ("black", "#029e73", "#cc78bc"), strict=True))
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    shown = pd.concat(
        rows[keys].assign(model=kind, descent=rate, value=rows[f"{kind}, {rate}"])
        for kind in steps
        for rate in descents
    )
    for ax, rate in zip(axes, descents, strict=True):
        layer_curves(shown[shown.descent == rate], colours, **by_weights, ax=ax)
        reference_line(0, "", ax)
        ax.set_title(f"as {rate}", pad=26, fontsize="medium")
    axes[0].set_ylabel("cosine with the descent")
    axes[1].get_legend().remove()
    return shown


# %% [markdown]
# ## What attention does to the rate
#
# A step at a right angle to the gradient should do nothing, to first order. But one layer is a large
# move, and a cosine says nothing about where such a move ends. [Figure 3](#fig-change) compares the
# step with the same step turned at random; with its mean over tokens alone, given to every token; with
# a step of the same length straight down the measured gradient; and with one that has $U_k$ in place
# of $W$. Attention averages, and hands much the same vector to every token. Add one vector to all
# tokens and normalise, and they are more alike in whatever subspace one looks: this part of the fall
# needs no direction.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Change of $R^c$, in the layer's own subspaces, by attention's step in the trained network and by "
    "its controls, all of the same length but the mean alone. Mean and one standard deviation over "
    "images. Below zero the step compresses.",
    alt="Line plots, one a network, of the change of the coding rate against the layer.",
)
def change():
    """The step and its controls."""
    kinds = ["as coded", "turned", "mean alone", "down the gradient", "U for W"]
    rows = wide[wide.weights == "trained"]
    shown = pd.concat(
        rows[keys].assign(step=kind, value=rows[f"change, {kind}"])
        for kind in kinds
        if f"change, {kind}" in rows
    ).dropna(subset="value")
    colours = dict(zip(kinds, ("black", "0.6", "#cc78bc", "#de8f05", "#029e73"), strict=True))
    _, axes = plt.subplots(
        1, len(study.labels), figsize=(5 * max(2, len(study.labels)), 4), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, name in zip(axes[0], study.labels, strict=True):
        part = shown[shown.model == name]
        layer_curves(part.assign(model=part.step), colours, ylabel="change of $R^c$ (nats)", ax=ax)
        reference_line(0, "", ax)
        ax.set_title(name, pad=26, fontsize="medium")
    axes[0, 0].get_legend().set_in_layout(False)
    for ax in axes[0, 1:]:
        ax.get_legend().remove()
    return shown


# %% [markdown]
# ## The subspaces
#
# The derivation asks for orthonormal bases, $U_k^\top U_k = I$, and for subspaces that are incoherent,
# $U_k^\top U_j \approx 0$. With $K p = d$, as here, all of them could be orthogonal. The *overlap* of
# two subspaces is the mean squared cosine of their principal angles: 0 if they are orthogonal, 1 if
# they are the same, $p / d$ on average if they are random. [Figure 4](#fig-overlap) shows it for every
# pair of heads. A ViT, and CRATE-MHSA, have no subspaces of this kind; there we take those of the keys.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
pairs = bases[bases.overlap.notna()]


@study.figure(
    "Overlap of every two subspaces of a layer. White is the overlap of random subspaces, $p/d$; red "
    "is more, blue less.",
    alt="A grid of small matrices, one a layer, coloured by the overlap of each pair of heads.",
    needs=pairs,
)
def overlap():
    """A matrix for each layer of each network, trained and not."""
    chance = pairs.model.map(
        {n.label: n.model.config.head_dim / n.model.config.dim for n in study.networks}
    )
    reach = (pairs.overlap - chance).abs().max()
    groups = pairs.assign(chance=chance).groupby(["model", "weights"], sort=False)
    depth = pairs.layer.max() + 1
    _, axes = plt.subplots(
        len(groups), depth, figsize=(10, 10 / depth * len(groups) + 0.4), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in axes.flat:
        ax.set_axis_off()
    for row, ((name, weights), part) in zip(axes, groups, strict=True):
        for layer, one in part.groupby("layer"):
            square = one.pivot(index="head", columns="other", values="overlap").to_numpy()
            row[layer].set_axis_on()
            pair_map(square, one.chance.iloc[0], reach, depth <= 8, row[layer])
        row[0].set_ylabel(f"{name},\n{weights}", fontsize="x-small")
    for layer, ax in enumerate(axes[0]):
        ax.set_title(f"layer {layer + 1}", fontsize="small")
    return pairs


# %% [markdown]
# A basis has $p$ columns but may use few directions. Its *effective dimension* is the participation
# ratio of its squared singular values, $(\sum_i s_i^2)^2 / \sum_i s_i^4$: $p$ for orthonormal columns,
# 1 if one direction is all. [Figure 5](#fig-dimension) sets beside it the effective dimension of the
# tokens in the subspaces. Where it falls from layer to layer, the tokens gather in fewer directions,
# which is the compression that the theory promises.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Left: effective dimension of the bases $U_k$ (a ViT's keys); mean and one standard deviation over "
    "heads. Right: effective dimension of the tokens in the subspaces, mean over heads; mean and one "
    "standard deviation over images. Dotted: all dimensions of a head, for the first network.",
    alt="Two line plots against the layer: effective dimension of the bases, and of the tokens.",
)
def dimension():
    """Of bases and tokens."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    of_bases = bases.drop_duplicates(["model", "weights", "layer", "head"])
    layer_curves(of_bases.assign(value=of_bases.dimension), study.colours, **by_weights, ax=axes[0])
    of_tokens = wide.assign(value=wide["token dimension"])
    layer_curves(of_tokens, study.colours, **by_weights, ax=axes[1])
    for ax, name in zip(axes, ("of the bases", "of the tokens in them"), strict=True):
        ax.set_title(name, pad=26, fontsize="medium")
        ax.set_ylabel("effective dimension")
        reference_line(study.networks[0].model.config.head_dim, "$p$", ax)
        ax.set_ylim(0, None)
    axes[1].get_legend().remove()
    return pd.concat([of_bases.assign(of="bases"), of_tokens[[*keys, "value"]].assign(of="tokens")])


# %% [markdown]
# ## How our setting differs
#
# Ours are small networks trained on drawn animals ([Models and data](01-models-and-data.ipynb)). The
# papers measure none of this inside a layer except the curves of
# [Compression](02-compression.ipynb). [Hu et al. 2024](../book/bibliography.md#hu2024indepth) also ask
# whether CRATE optimises its objective, and propose other layers for it. What happens to the class when
# a half step is skipped, or replaced by the exact gradient step, is in
# [Does the head do what it looks at?](18-interventions.ipynb)
#
# ## What would have disproved the claim
#
# - A step that agrees with the descent no better than when turned at random.
# - A rate that falls no further than by the same step turned at random.
# - Subspaces that overlap no less than random ones. This does not touch the objective, but it takes
#   away an assumption that the derivation rests on.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
