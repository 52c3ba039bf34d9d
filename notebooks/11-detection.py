# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
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

# %%

# %% [markdown]
# # Can the objects be cut out of the features?
#
# **The claim.** MaskCut {cite:p}`wang2023cutler` finds objects without labels, by cutting the graph of
# patches whose features are alike. {cite:t}`yu2024emergence` run it on the features of a CRATE trained
# only to classify and find objects that a ViT trained the same way does not show (their Table 1 and
# Fig. 5), most of all in the deeper layers (Fig. 6). Of the two halves of a layer both are needed
# (Table 2), and detection comes with training (Fig. 10).
#
# **What we find.** On {glue:text}`n_measured` scenes of one to three animals, at the layer that the paper
# reads attention at, {glue:text}`main` has a box AP50 of {glue:text}`main_ap50` and {glue:text}`other`
# of {glue:text}`other_ap50` (in %, 95 % intervals over scenes). Each at its own best layer, chosen on
# other scenes, they have {glue:text}`main_best_ap50` (layer {glue:text}`main_best_layer`) and
# {glue:text}`other_best_ap50` (layer {glue:text}`other_best_layer`). MaskCut on the raw pixels, without
# any network, has {glue:text}`pixels_ap50`; the truth itself, rounded to patches,
# {glue:text}`ceiling_ap50`. **But before training**, with random weights, {glue:text}`main` already has
# {glue:text}`main_initial_ap50` and {glue:text}`other` {glue:text}`other_initial_ap50` (on
# {glue:text}`n_training` scenes, where they end at {glue:text}`main_final_ap50` and
# {glue:text}`other_final_ap50`): where the two numbers of a network do not differ, its training has not
# brought the detection about, and where the second is lower it has taken it away. Of the
# {glue:text}`n_networks` networks the highest is {glue:text}`highest`, at {glue:text}`highest_ap50`.
#
# **How our setting differs.** The paper cuts COCO photographs at 480 x 480 pixels with patches of 8, a
# grid of 60 x 60. Ours are drawn scenes ({doc}`03-models-and-data`) at twice the side that the
# networks were trained at, and never saw more than one animal in a picture: a grid of
# {glue:text}`grid`. One training run a network, so intervals are over scenes only. Our numbers are
# higher because the scenes are easier, and cannot be compared with the paper's one by one.

# %% tags=["parameters"]
models = [
    "crate-creatures",
    "crate-sth-creatures",
    "crate-mlp-creatures",
    "crate-mhsa-creatures",
    "vit-creatures",
]
dataset = "creatures-scenes"
image_size = 144
n_images = 100
n_masks = 3
tau = 0.15
workers = 2
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    image_size=int,
    n_images=int,
    n_masks=int,
    tau=float,
    workers=int,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.datasets.coco import decode
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models, load_snapshots
from crate_analysis.notebook import save_figure, table
from crate_analysis.plotting import (
    interval_curves,
    interval_dots,
    model_colours,
    reference_line,
    sheet,
    step_axis,
    tint,
)
from crate_analysis.probes import papers_layer
from crate_analysis.segmentation import (
    baseline_objects,
    best_overlaps,
    coco_average_precision,
    detect_objects,
)

networks = load_models(models)
names = list(networks)
colours = model_colours(names)
pictures = load_dataset(dataset, "val", image_size, n_images, seed)
samples = list(pictures)
has_masks = any(len(sample.masks) for sample in samples)
if not has_masks:
    display(Markdown(f"`{dataset}` has no masks: the scores below are left out."))

# %% [markdown]
# ## Cutting
#
# Two patches are joined where the cosine of their features ($U_k^\top \mathrm{LN}(Z)$ of all heads, a
# ViT's keys) exceeds $\tau$. The second eigenvector of the normalised cut {cite:p}`shi2000normalized`
# splits them in two; the side that stands out most is an object. Its patches are taken out and the
# rest is cut again, {glue:text}`n_masks` times. Every layer of a network is read in one pass. What is
# found is written down as it is found, in `detections/` in the output folder: a run that is stopped
# goes on from there.
#
# MaskCut gives no score to its masks, but average precision needs an order; we take that of the cuts.

# %% tags=["hide-input"]
found = pd.concat(
    detect_objects(
        network,
        pictures,
        Path(output) / "detections",
        range(len(network.layers)),
        n_masks,
        tau,
        workers=workers,
        progress=False,
    ).assign(model=name)
    for name, network in networks.items()
)
read_at = {name: papers_layer(network) for name, network in networks.items()}
glue("n_masks", n_masks, display=False)
glue("n_measured", len(samples), display=False)

# %% [markdown]
# {numref}`fig-objects` shows what is cut out of scenes at fixed ranks: ordered by how well the first
# network's masks cover the animals (mean best IoU), the best, the quartiles and the worst. Colours
# stand for the order of the cuts: the first is red, then blue, then green.

# %% tags=["hide-input"]
main = found[(found.model == names[0]) & (found.layer == read_at[names[0]])]
chosen = np.linspace(0, len(samples) - 1, min(5, len(samples))).round().astype(int)
titles = [f"picture {index + 1}" for index in chosen]
if has_masks:
    ranked = best_overlaps(main, samples).sort_values("mask", ascending=False, ignore_index=True)
    ranks = np.linspace(0, len(ranked) - 1, 5).round().astype(int)
    chosen = ranked.image[ranks].tolist()
    titles = ["best", "upper quartile", "median", "lower quartile", "worst"]
height, width = samples[0].image.shape[1:]


def masks_of(frame, index):
    rows = frame[frame.image == index]
    return np.array([decode(one, height, width).numpy() for one in rows.segmentation], bool)


shown = [samples[index].image.permute(1, 2, 0).numpy() for index in chosen]
tiles, row_names = [shown], ["picture"]
if has_masks:
    tiles.append([tint(p, samples[i].masks.numpy()) for p, i in zip(shown, chosen, strict=True)])
    row_names.append("truth")
for name in names:
    mine = found[(found.model == name) & (found.layer == read_at[name])]
    tiles.append([tint(p, masks_of(mine, i)) for p, i in zip(shown, chosen, strict=True)])
    row_names.append(name.removesuffix("-creatures"))

# %% mystnb={"figure": {"caption": "What MaskCut finds at the layer that the paper reads attention at, on scenes at fixed ranks of the first network's mean best IoU. Red, blue, green: first, second and third cut (in the second row: the true objects).", "name": "fig-objects"}, "image": {"alt": "A sheet of scenes, their true objects, and the masks found in the features of each network."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(9, 9 * len(tiles) / len(shown)))
sheet(tiles, titles, row_names, ax)
columns = ["model", "image", "layer", "score", "bbox"]
at_layer = found[found.layer == found.model.map(read_at)]
save_figure(figure, at_layer[at_layer.image.isin(chosen)][columns], output, "fig-objects")

# %% [markdown]
# ## By layer
#
# {numref}`fig-ap-layers` is Fig. 6 of the paper on our scenes: the average precision of boxes against
# the layer whose features are cut, and beside it the share of scenes in which some box is right
# (CorLoc).

# %% tags=["hide-input"]
if has_masks:
    parts, overlap_parts = [], []
    for (name, layer), mine in found.groupby(["model", "layer"], sort=False):
        place = {"model": name, "layer": layer}
        parts.append(coco_average_precision(mine, samples).assign(**place))
        overlap_parts.append(best_overlaps(mine, samples).assign(**place))
    precision = pd.concat(parts).rename(columns={"value": "mean"})
    percent = precision[["mean", "low", "high"]] * 100
    precision[["mean", "low", "high"]] = percent
    overlaps = pd.concat(overlap_parts)
    correct = overlaps.groupby(["model", "layer"]).corloc.apply(
        lambda v: mean_interval(v)._asdict()
    )
    correct = (correct.unstack() * 100).reset_index()
    patch = networks[names[0]].config.patch_size
    baselines = baseline_objects(samples, patch, n_masks, tau)
    level = pd.concat(
        coco_average_precision(mine, samples).assign(model=name)
        for name, mine in baselines.groupby("model", sort=False)
    ).rename(columns={"value": "mean"})
    level[["mean", "low", "high"]] *= 100
    glue("grid", f"{height // patch} x {width // patch}", display=False)

# %% mystnb={"figure": {"caption": "MaskCut on the features of each layer: AP50 of boxes (left, 95 % interval over scenes) and the share of scenes with a right box (right). Dotted: MaskCut on raw pixels.", "name": "fig-ap-layers"}, "image": {"alt": "Two line plots against the layer for each network: average precision of boxes at IoU 0.5, and CorLoc."}} tags=["hide-input"]
if has_masks:
    curves = precision[(precision.kind == "box") & (precision.metric == "AP50")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    interval_curves(curves.assign(layer=curves.layer + 1), colours, "layer", "box AP50 (%)", left)
    pixels = level[(level.model == "raw pixels") & (level.kind == "box")].set_index("metric")[
        "mean"
    ]
    reference_line(pixels["AP50"], "raw pixels", left)
    interval_curves(correct.assign(layer=correct.layer + 1), colours, "layer", "CorLoc (%)", right)
    for ax in (left, right):
        ax.set_ylim(0, None)
    right.legend(frameon=False, fontsize="small")
    save_figure(figure, precision, output, "fig-ap-layers")

# %% [markdown]
# ## Table 1
#
# {numref}`fig-ap` has every network at two layers: the one at which the paper reads attention (the last
# but one; a ViT's last), and the one whose masks cover the objects best in the first half of the
# scenes, scored on the second half. The table has all six of COCO's numbers at the former, with the
# paper's own below it.

# %% tags=["hide-input"]
if has_masks:
    half = len(samples) // 2
    cover = overlaps[overlaps.image < half].groupby(["model", "layer"])["mask"].mean()
    best = {name: int(cover[name].idxmax()) for name in names}
    rows = []
    for name in names:
        mine = found[(found.model == name) & (found.layer == best[name]) & (found.image >= half)]
        mine = mine.assign(image=mine.image - half)
        scored = coco_average_precision(mine, samples[half:]).rename(columns={"value": "mean"})
        scored[["mean", "low", "high"]] *= 100
        rows.append(scored.assign(model=name, layer=best[name], place="best layer"))
    here = precision[precision.layer == precision.model.map(read_at)]
    scores = pd.concat(
        [
            here.assign(place="the paper's layer"),
            level.assign(place="the paper's layer"),
            *rows,
            level.assign(place="best layer"),
        ]
    )
    scores = scores.assign(label=scores.model)

# %% mystnb={"figure": {"caption": "Box AP50 with its 95 % interval over scenes, at the layer that the paper reads attention at (left), and at the layer that was best on other scenes (right). Grey: no network, and the truth on the patch grid.", "name": "fig-ap"}, "image": {"alt": "Two dot plots of box AP50 with confidence intervals, for each network and three baselines."}} tags=["hide-input"]
if has_masks:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True, layout="constrained")
    boxes = scores[(scores.kind == "box") & (scores.metric == "AP50")]
    for ax, (place, part) in zip(panels, boxes.groupby("place", sort=False), strict=True):
        interval_dots(part, colours, xlabel=f"box AP50 (%), {place}", ax=ax, digits=1)
    save_figure(figure, scores, output, "fig-ap")

# %% tags=["hide-input"]
if has_masks:
    ours = scores[scores.place == "the paper's layer"]
    wide = ours.pivot(index="model", columns=["kind", "metric"], values="mean")
    wide = wide.loc[[*names, "raw pixels", "centre prior", "patch ceiling"]]
    wide.columns = [" ".join(column) for column in wide.columns]
    extra = overlaps[overlaps.layer == overlaps.model.map(read_at)].groupby("model")
    wide["CorLoc"] = 100 * extra.corloc.mean()
    wide["mean best IoU"] = 100 * extra["mask"].mean()
    display(table(wide, dict.fromkeys(wide.columns, "{:.1f}"), missing="–"))

# %% [markdown]
# **The paper's**, on COCO val2017 (5,000 photographs), for its own networks:
#
# | patch 8 | box AP50 | AP75 | AP | mask AP50 | AP75 | AP |
# | --- | --- | --- | --- | --- | --- | --- |
# | CRATE-S supervised | 2.9 | 1.0 | 1.1 | 1.8 | 0.7 | 0.8 |
# | CRATE-B supervised | 2.9 | 1.0 | 1.3 | 2.2 | 0.7 | 1.0 |
# | ViT-S supervised | 0.1 | 0.1 | 0.0 | 0.0 | 0.0 | 0.0 |
# | ViT-B supervised | 0.8 | 0.2 | 0.4 | 0.7 | 0.5 | 0.4 |
# | ViT-S DINO | 5.0 | 2.0 | 2.4 | 4.0 | 1.3 | 1.7 |
# | ViT-B DINO | 5.1 | 2.3 | 2.5 | 4.1 | 1.3 | 1.8 |
#
# *Source: {cite:t}`yu2024emergence`, Table 1. Not measured by us. To measure the same, run this chapter
# with `-p dataset coco:ROOT -p image_size 480` on a released checkpoint.*
#
# ## Table 2: which half is needed
#
# The four combinations of attention and nonlinearity, ours at the paper's layer and at each network's
# best, beside **the paper's** for its own networks of size S on COCO. {doc}`07-variants` has the same
# experiment for the attention maps.

# %% tags=["hide-input"]
PAPER = {
    ("mssa", "ista"): 2.1,
    ("mssa", "mlp"): 0.2,
    ("mhsa", "ista"): 0.1,
    ("mhsa", "mlp"): 0.1,
}
if has_masks:
    rows = []
    for name, network in networks.items():
        config = network.config
        mine = boxes[boxes.model == name].set_index("place")[["mean", "low", "high"]]
        mine = mine.apply(lambda row: str(MeanInterval(*row)), axis=1)
        rows.append(
            {
                "network": name,
                "attention": config.attention.upper(),
                "nonlinearity": config.nonlinearity.upper().replace("_", " "),
                "box AP50, the paper's layer": mine["the paper's layer"],
                "box AP50, best layer": mine["best layer"],
                "the paper's, COCO": PAPER.get((config.attention, config.nonlinearity)),
            }
        )
    shown = pd.DataFrame(rows).set_index("network")
    display(table(shown, {"the paper's, COCO": "{:.1f}"}, missing="–"))

# %% [markdown]
# ## While training
#
# {numref}`fig-ap-training` repeats the measurement on the snapshots that were kept along training, on
# the first {glue:text}`n_training` scenes, at the paper's layer (Fig. 10, left).

# %% tags=["hide-input"]
n_training = min(40, len(samples))
glue("n_training", n_training, display=False)
rows, few = [], load_dataset(dataset, "val", image_size, n_training, seed)
for given, name in zip(models, names, strict=True):
    for step, snapshot in load_snapshots(given) if has_masks else ():
        path = Path(output) / "detections"
        layer = read_at[name]
        how = {"workers": workers, "progress": False}
        mine = detect_objects(snapshot, few, path, [layer], n_masks, tau, **how)
        scored = coco_average_precision(mine, samples[:n_training]).assign(model=name, step=step)
        rows.append(scored.rename(columns={"value": "mean"}))
if rows:
    along = pd.concat(rows, ignore_index=True)
    along[["mean", "low", "high"]] *= 100
else:
    display(Markdown("No snapshots, or no masks: the curve over training is left out."))

# %% mystnb={"figure": {"caption": "Box AP50 of MaskCut at the paper's layer against training step, with its 95 % interval over scenes. Steps double from mark to mark.", "name": "fig-ap-training"}, "image": {"alt": "Line plot of box AP50 against the training step for each network that has snapshots."}} tags=["hide-input"]
if rows:
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    part = along[(along.kind == "box") & (along.metric == "AP50")]
    kept = {name: colours[name] for name in part.model.unique()}
    interval_curves(part, kept, "step", "box AP50 (%)", ax)
    step_axis(sorted(part.step.unique().tolist()), ax)
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    save_figure(figure, along, output, "fig-ap-training")

# %% tags=["hide-input"]
if has_masks:
    told = boxes.set_index(["place", "model"])[["mean", "low", "high"]]
    there = told.loc["the paper's layer"].loc[names]
    highest = there["mean"].idxmax()
    glue("highest", highest, display=False)
    glue("highest_ap50", str(MeanInterval(*there.loc[highest])), display=False)
    glue("n_networks", len(names), display=False)
    for role, name in (("main", names[0]), ("other", names[-1])) if rows else ():
        mine = part[part.model == name].sort_values("step")[["mean", "low", "high"]]
        for end, place in (("initial", 0), ("final", -1)) if len(mine) else ():
            glue(f"{role}_{end}_ap50", str(MeanInterval(*mine.iloc[place])), display=False)
    for role, name in (
        ("main", names[0]),
        ("other", names[-1]),
        ("pixels", "raw pixels"),
        ("ceiling", "patch ceiling"),
    ):
        glue(role, name, display=False)
        text = {
            place: str(MeanInterval(*told.loc[place, name]))
            for place in ("the paper's layer", "best layer")
        }
        glue(f"{role}_ap50", text["the paper's layer"], display=False)
        glue(f"{role}_best_ap50", text["best layer"], display=False)
        glue(f"{role}_best_layer", best.get(name, -1) + 1, display=False)

# %% [markdown]
# ## What would have disproved the claim
#
# - A CRATE whose features are cut no better than raw pixels: then MaskCut would do the work, not the
#   network.
# - A ViT that does as well: at the layer that the paper reads, and, for the stronger reading that its
#   features do not hold the objects, at its own best layer too.
# - An average precision that training does not raise: then the features of a network with random
#   weights, which keep patches of like colour alike, would be enough.
#
# {numref}`fig-ap` tests the first two, {numref}`fig-ap-training` the third, which on these scenes it
# does disprove where the end of a curve lies no higher than its beginning.
