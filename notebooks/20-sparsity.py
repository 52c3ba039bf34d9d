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
# # Is sparsity learned?
#
# **The claim.** The second half of a CRATE layer makes tokens sparse. How sparse is set by $\lambda$, the
# price of a non-zero code; the paper takes $\lambda = 0.1$ and reports that codes get sparser along
# training ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox)). CRATE-alpha codes in an overcomplete
# dictionary instead ([Yang et al. 2024](../book/bibliography.md#yang2024scaling)).
#
# **The test.** The same network trained at $\lambda$ from 0 to 10, and with CRATE-alpha's step, over
# several trainings each. If sparsity is learned, the share of non-zero codes falls from before training to
# after it; if $\lambda$ does what the derivation says, it falls further where $\lambda$ is larger.

# %% tags=["parameters"]
models: list[str] = [
    "crate-lambda0-creatures",
    "crate-lambda01-creatures",
    "crate-lambda1-creatures",
    "crate-lambda3-creatures",
    "crate-alpha-creatures",
]
runs: str = "sparsity"  # the trainings: a shipped table of runs, a file, or nothing
dataset: str = "creatures"
n_images: int = 64
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
gate: float = 0.85  # least accuracy of a training that counts, declared before the runs
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.measures import MEASURES, MeanInterval, measure_layers, run_interval
from crate_analysis.plotting import heat, model_colours, run_dots, sheet
from crate_analysis.probes import collect
from crate_analysis.study import Finding, Study
from crate_analysis.training.measured import (
    Criterion,
    by_seed,
    criteria_frame,
    each_run,
    gate_criteria,
    measured,
)

study = Study(globals(), "20-sparsity")
trainings = measured(runs)
SHARE = "non-zero share"
BEFORE = "non-zero share before training"
CHANGE = "non-zero share, training's change"
MOVED = "dictionary's change"
IOU = "image-specific IoU"


def name_of(cell):
    """How a cell is called in figures."""
    return cell.replace("lambda-", "λ = ").replace("alpha", "CRATE-alpha")


cells = {cell: name_of(cell) for cell in dict.fromkeys(trainings.cell)}
lambdas = {cell: float(cell[7:]) for cell in cells if cell.startswith("lambda-")}


def interval(cell, quantity):
    """The mean over trainings that pass the gate, and its interval."""
    values = by_seed(trainings, cell, quantity, gate)
    return run_interval(values) if len(values) else MeanInterval(np.nan, np.nan, np.nan)


# %% [markdown]
# ## What was declared
#
# Before the first run, `params/experiments/sparsity.yml` settled the runs, the number and what would
# count:
#
# - **The number.** The share of non-zero codes on validation images, mean over layers, after training
#   less before it. Beside it: how far the dictionary moved, the image-specific IoU and the accuracy.
# - **The gate.** More than 85 % of the validation images named rightly.
# - **Success.** A curve over $\lambda$, and at least one $\lambda$ above 0.1 whose share of non-zero
#   codes is lower than before training at an accuracy that passes the gate.
#
# The table of all trainings is shipped with the book, and the weights of the first of each kind that passes.
#
# ## The measurement
#
# A code is non-zero where the ReLU that ends the step lets it through. Here the share is counted for the
# networks in `models`, by layer, before training and after.

# %%
shares = study.each(
    lambda network: (
        measure_layers(
            network.model,
            network.images,
            {SHARE: MEASURES["nonzero_fraction"]},
            reading=study.reading,
        )
        if network.model.config.family == "crate" and network.model.config.nonlinearity != "mlp"
        else None
    ),
    untrained=True,
)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "At λ = 0.1, which the paper takes, training changes the share of non-zero codes by "
    "{by[λ = 0.1][non-zero share, training's change]}, at λ = 1 by "
    "{by[λ = 1][non-zero share, training's change]} and at λ = 3 by "
    "{by[λ = 3][non-zero share, training's change]}.",
    "The share is {by[λ = 0][non-zero share].mean:.2f} at λ = 0 and {by[λ = 3][non-zero share].mean:.2f} at "
    "λ = 3; before training it is {by[λ = 0][non-zero share before training].mean:.2f} and "
    "{by[λ = 3][non-zero share before training].mean:.2f}.",
    "The dictionary moves by {by[λ = 0.1][dictionary's change].mean:.0%} of its size at λ = 0.1 and by "
    "{by[λ = 3][dictionary's change].mean:.0%} at λ = 3.",
    "The best head's image-specific IoU is {by[λ = 0][image-specific IoU]} without a price on codes, "
    "{by[λ = 0.1][image-specific IoU]} at λ = 0.1 and {by[λ = 3][image-specific IoU]} at λ = 3.",
    "At λ = 10, {by[λ = 10][trainings that pass the gate].mean:.0f} of "
    "{by[λ = 10][trainings].mean:.0f} trainings learn to classify.",
    "In CRATE-alpha, training changes the share by {by[CRATE-alpha][non-zero share, training's change]} and "
    "moves the dictionary by {by[CRATE-alpha][dictionary's change].mean:.0%}; its image-specific IoU is "
    "{by[CRATE-alpha][image-specific IoU]}.",
    needs=shares,
)
def findings():
    """Over trainings; without a table of them, of each network over images."""
    for cell, name in cells.items():
        accuracy = by_seed(trainings, cell, "accuracy")
        yield Finding(name, "trainings", float(len(accuracy)))
        yield Finding(name, "trainings that pass the gate", float((accuracy > gate).sum()))
        yield Finding(name, "accuracy", accuracy.mean())
        claim = "sparsity" if lambdas.get(cell, 0) > 0 else ""
        for quantity in (SHARE, BEFORE, CHANGE, MOVED, IOU):
            values = by_seed(trainings, cell, quantity, gate)
            found = run_interval(values) if len(values) else []
            decides = claim if quantity == CHANGE else ""
            yield Finding(name, quantity, found, decides, expected="below")
    for name in [] if cells else dict.fromkeys(shares.model):
        own = shares[shares.model == name].groupby(["weights", "image"]).value.mean()
        yield Finding(name, SHARE, own["trained"])
        yield Finding(name, CHANGE, own["trained"] - own["untrained"])


# %% [markdown]
# Intervals are over trainings that pass the gate, not over images.
#
# ## Every training
#
# [Figure 1](#fig-every-training) is the declared curve: from top to bottom the price of a code rises.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Every training, a dot each, filled where it passes the gate. Share of non-zero codes after "
    "training; that share less the share before training; relative change of the dictionary; "
    "image-specific IoU of the best head; accuracy. Lines: the mean over trainings that pass and its 95 % "
    "interval.",
    alt="Five panels with a row of dots for each lambda and for CRATE-alpha.",
    needs=trainings,
)
def every_training():
    """A panel for each quantity."""
    quantities = {
        SHARE: SHARE,
        CHANGE: "its change by training",
        MOVED: MOVED,
        IOU: IOU,
        "accuracy": "accuracy",
    }
    colours = model_colours(list(cells.values()))
    _, axes = plt.subplots(
        1, len(quantities), figsize=(11, 0.55 * len(cells) + 1), sharey=True, layout="constrained"
    )
    rows = []
    for ax, (quantity, label) in zip(axes, quantities.items(), strict=True):
        dots = each_run(trainings, cells, quantity, gate)
        means = {name: interval(cell, quantity) for cell, name in cells.items()}
        run_dots(dots, means, colours, label, ax)
        if quantity == CHANGE:
            ax.axvline(0, color="0.35", linestyle=":", linewidth=1)
        rows.append(dots.assign(quantity=quantity))
    return pd.concat(rows)


# %% [markdown]
# ## By layer
#
# The claim is also one on depth: codes are said to get sparser from layer to layer.
# [Figure 2](#fig-by-layer) has the networks in `models`, one training of each kind.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Share of non-zero codes by layer, a panel for each network: after training (solid) and before it "
    "(dashed). Mean over images.",
    alt="A line plot against the layer for each network, with a solid and a dashed line.",
    needs=shares,
)
def by_layer():
    """Before and after."""
    names = list(dict.fromkeys(shares.model))
    across = min(3, len(names))
    down = -(-len(names) // across)
    _, axes = plt.subplots(
        down, across, figsize=(10, 2.5 * down + 0.3), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    means = shares.groupby(["model", "weights", "layer"]).value.mean()
    for ax, name in zip(axes.flat, names, strict=False):
        for weights, line in (("trained", "-"), ("untrained", "--")):
            curve = means[name, weights]
            ax.plot(curve.index + 1, curve, f"o{line}", color=study.colours[name], markersize=4)
        ax.set_title(name, fontsize="medium")
        ax.set_ylim(0, 1)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    for ax in axes[:, 0]:
        ax.set_ylabel(SHARE)
    return means.reset_index()


# %% [markdown]
# ## Where codes are spent
#
# A sparse code spends its non-zeros where there is something to say. [Figure 3](#fig-where) shows for
# each patch how many codes of the last layer are not zero.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Images, and below them for each network the share of non-zero codes of each patch at the last "
    "layer; colours go from the smallest to the largest share of each map. Printed: the row's range.",
    alt="A row of images of animals, and below it a row of maps for each network.",
    needs=shares,
    pick={"first_image": study.starts(8)},
)
def where(first_image=0):
    """A row of maps for each network."""
    shown = study.indices(8, first_image)
    tiles, rows, data = [study.networks[0].pixels(shown)], [""], []
    for network in study.networks:
        if network.label not in set(shares.model):
            continue
        patches = network.model.patches
        readers = {SHARE: lambda state, at=patches: (state.codes[:, at] != 0).float().mean(-1)}
        last = len(network.model.layers) - 1
        found = collect(network.model, network.samples(shown), readers, [last])[SHARE][:, 0]
        grid = network.model.patch_grid(network.inputs(shown[:1]))
        maps = found.reshape(len(shown), *grid).cpu().numpy()
        tiles.append([heat(one - one.min(), tiles[0][0].shape[:2]) for one in maps])
        rows.append(f"{network.label}\n{maps.min():.2f} to {maps.max():.2f}")
        data += [(network.label, index, one.mean()) for index, one in zip(shown, maps, strict=True)]
    _, ax = plt.subplots(figsize=(9, 9 / 8 * len(tiles) + 0.2))
    sheet(tiles, rows=rows, ax=ax)
    return pd.DataFrame(data, columns=["model", "image", SHARE])


# %% [markdown]
# ## The declared criteria
#
# [Table 1](#tab-declared) answers the declaration in its own words.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("What was declared, and what the trainings show.", needs=trainings)
def declared():
    """In the words of the declaration."""
    rows = gate_criteria(trainings, cells, gate)
    lower = [
        name_of(cell)
        for cell, price in lambdas.items()
        if price > 0.1 and interval(cell, CHANGE).high < 0
    ]
    declared = "a lower share than before training, at an accuracy that passes"
    rows.append(Criterion("a λ above 0.1", declared, ", ".join(lower) or "none", bool(lower)))
    return criteria_frame(rows)


# %% [markdown]
# ## How our setting differs
#
# The paper's networks are wider (384 at least), trained far longer, and on photographs. Ours learn the
# animals within one epoch of 20,000 images.
#
# ## What would have disproved the claim
#
# - Shares of non-zero codes that training leaves as they were, or raises.
# - A share that does not fall where $\lambda$ rises.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
