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

# %% [markdown]
# # Can the objects be cut out of the features?
#
# **The claim.** MaskCut {cite:p}`wang2023cutler` finds objects without labels, by cutting the graph of
# patches whose features are alike. {cite:t}`yu2024emergence` run it on the features of a CRATE trained
# only to classify and find objects that a ViT trained the same way does not show (their Table 1 and
# Fig. 5), most of all in the deeper layers (Fig. 6). Of the two halves of a layer both are needed
# (Table 2), and detection comes with training (Fig. 10).
#
# **What we find.** On {glue:text}`n_measured` pictures of {glue:text}`dataset`, at
# {glue:text}`which_layer`, {glue:text}`main` has a box AP50 of {glue:text}`main_ap50` and
# {glue:text}`other` of {glue:text}`other_ap50` (in %, 95 % intervals over pictures). Each at its own
# best layer, chosen on other pictures, they have {glue:text}`main_best_ap50` (layer {glue:text}`main_best_layer`) and
# {glue:text}`other_best_ap50` (layer {glue:text}`other_best_layer`). MaskCut on the raw pixels, without
# any network, has {glue:text}`pixels_ap50`; the truth itself, rounded to patches,
# {glue:text}`ceiling_ap50`. **But before training**, with random weights, {glue:text}`main` already has
# {glue:text}`main_initial_ap50` and {glue:text}`other` {glue:text}`other_initial_ap50` (on
# {glue:text}`n_training` pictures, where they end at {glue:text}`main_final_ap50` and
# {glue:text}`other_final_ap50`): where the two numbers of a network do not differ, its training has not
# brought the detection about, and where the second is lower it has taken it away. Of the
# {glue:text}`n_networks` networks the highest is {glue:text}`highest`, at {glue:text}`highest_ap50`.
#
# **How our setting differs.** The paper cuts COCO photographs at 480 x 480 pixels with patches of 8, a
# grid of 60 x 60; here the grid is {glue:text}`grid`. The networks shipped with this book were trained
# on smaller pictures of one drawn animal each and the shipped scenes hold several
# ({doc}`01-models-and-data`). Such scenes are easier than photographs: numbers on them are higher and
# cannot be compared with the paper's one by one. One training run a network, so intervals are over
# pictures only.

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
layer = None  # from 0, or from the end when negative; None for the one the paper reads attention at
layers = None  # a list of those to cut besides that one; None for all
n_masks = 3
tau = 0.15
device = "cpu"
workers = 0  # processes that read pictures, and from two on as many that cut
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    image_size=int,
    n_images=int,
    layer=int | None,
    layers=list[int] | None,
    n_masks=int,
    tau=float,
    device=str,
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
from crate_analysis.notebook import (
    check_pictures,
    save_figure,
    save_results,
    show_provenance,
    table,
)
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
from crate_analysis.probes.collect import check_layer
from crate_analysis.segmentation import (
    baseline_objects,
    best_overlaps,
    coco_average_precision,
    detect_objects,
    true_objects,
)
from crate_analysis.shards import Window

networks = load_models(models, device)
names = list(networks)
colours = model_colours(names)
pictures = load_dataset(dataset, "val", image_size, n_images, seed)
truth = true_objects(pictures)
readable = sorted(truth.sizes)
has_masks = bool((truth.objects.iscrowd == 0).any())
if has_masks:
    check_pictures(len(readable))
else:
    display(Markdown(f"`{dataset}` has no masks: the scores below are left out."))
read_at, cut_at = {}, {}
for name, network in networks.items():
    read_at[name] = papers_layer(network) if layer is None else check_layer(network, layer)
    wanted = range(len(network.layers)) if layers is None else layers
    cut_at[name] = sorted({read_at[name], *(check_layer(network, one) for one in wanted)})
chosen_layer = "the paper's layer" if layer is None else "the layer asked for"
papers = "the layer that the paper reads attention at"
glue("which_layer", papers if layer is None else chosen_layer, display=False)
glue("dataset", dataset, display=False)
glue("n_measured", len(readable), display=False)

# %% [markdown]
# ## Cutting
#
# Two patches are joined where the cosine of their features ($U_k^\top \mathrm{LN}(Z)$ of all heads, a
# ViT's keys) exceeds $\tau$. The second eigenvector of the normalised cut {cite:p}`shi2000normalized`
# splits them in two; the side that stands out most is an object. Its patches are taken out and the
# rest is cut again, {glue:text}`n_masks` times. All layers of a network are read in one pass. What is
# found is written down as it is found, in `detections/` in the output folder: a run that is stopped
# goes on from there.
#
# MaskCut gives no score to its masks, but average precision needs an order; we take that of the cuts.

# %% tags=["hide-input"]
folder = Path(output) / "detections"
how = {"n_masks": n_masks, "tau": tau, "workers": workers, "progress": False}
found = pd.concat(
    detect_objects(network, pictures, folder, cut_at[name], **how).assign(model=name)
    for name, network in networks.items()
)
glue("n_masks", n_masks, display=False)

# %% [markdown]
# {numref}`fig-objects` shows what is cut out of pictures at fixed ranks: ordered by how well the first
# network's masks cover the objects (mean best IoU), the best, the quartiles and the worst. The layer
# is {glue:text}`which_layer`. Colours stand for the order of the cuts: the first is red, then blue, then green.

# %% tags=["hide-input"]
main = found[(found.model == names[0]) & (found.layer == read_at[names[0]])]
chosen = [readable[k] for k in np.linspace(0, len(readable) - 1, min(5, len(readable))).astype(int)]
titles = [f"picture {index + 1}" for index in chosen]
if has_masks:
    ranked = best_overlaps(main, truth).sort_values("mask", ascending=False, ignore_index=True)
    ranks = np.linspace(0, len(ranked) - 1, 5).round().astype(int)
    chosen = ranked.image[ranks].tolist()
    titles = ["best", "upper quartile", "median", "lower quartile", "worst"]
samples = [pictures[index] for index in chosen]
height, width = samples[0].image.shape[1:]


def masks_of(frame, index):
    rows = frame[frame.image == index]
    return np.array([decode(one, height, width).numpy() for one in rows.segmentation], bool)


shown = [sample.image.permute(1, 2, 0).numpy() for sample in samples]
tiles, row_names = [shown], ["picture"]
if has_masks:
    tiles.append([tint(p, s.masks.numpy()) for p, s in zip(shown, samples, strict=True)])
    row_names.append("truth")
for name in names:
    mine = found[(found.model == name) & (found.layer == read_at[name])]
    tiles.append([tint(p, masks_of(mine, i)) for p, i in zip(shown, chosen, strict=True)])
    row_names.append(name.removesuffix("-creatures"))

# %% mystnb={"figure": {"caption": "What MaskCut finds in the features of each network, on pictures at fixed ranks of the first network's mean best IoU. Red, blue, green: first, second and third cut (in the second row: the true objects).", "name": "fig-objects"}, "image": {"alt": "A sheet of pictures, their true objects, and the masks found in the features of each network."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(9, 9 * len(tiles) / len(shown)))
sheet(tiles, titles, row_names, ax)
columns = ["model", "image", "layer", "score", "bbox"]
at_layer = found[found.layer == found.model.map(read_at)]
save_figure(figure, at_layer[at_layer.image.isin(chosen)][columns], output, "fig-objects")

# %% [markdown]
# ## By layer
#
# {numref}`fig-ap-layers` is Fig. 6 of the paper on these pictures: the average precision of boxes
# against the layer whose features are cut, and beside it the share of pictures in which some box is
# right (CorLoc).

# %% tags=["hide-input"]
if has_masks:
    patch = networks[names[0]].config.patch_size
    baselines = baseline_objects(pictures, patch, n_masks, tau, workers)
    parts, overlap_parts = [], []
    both = pd.concat([found, baselines])
    for (name, at), mine in both.groupby(["model", "layer"], sort=False):
        place = {"model": name, "layer": at}
        parts.append(coco_average_precision(mine, truth).assign(**place))
        overlap_parts.append(best_overlaps(mine, truth).assign(**place))
    precision = pd.concat(parts).rename(columns={"value": "mean"})
    precision[["mean", "low", "high"]] *= 100
    level = precision[precision.layer == -1]
    overlaps = pd.concat(overlap_parts)
    overlaps[["corloc", "mask"]] *= 100
    correct = overlaps[overlaps.layer >= 0].groupby(["model", "layer"]).corloc
    correct = correct.apply(lambda v: mean_interval(v)._asdict()).unstack().reset_index()
    glue("grid", f"{height // patch} x {width // patch}", display=False)

# %% mystnb={"figure": {"caption": "MaskCut on the features of each layer: AP50 of boxes (left, 95 % interval over pictures) and the share of pictures with a right box (right). Dotted: MaskCut on raw pixels.", "name": "fig-ap-layers"}, "image": {"alt": "Two line plots against the layer for each network: average precision of boxes at IoU 0.5, and CorLoc."}} tags=["hide-input"]
if has_masks:
    curves = precision[(precision.kind == "box") & (precision.metric == "AP50")]
    curves = curves[curves.layer >= 0]
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
    save_figure(figure, precision[precision.layer >= 0], output, "fig-ap-layers")

# %% [markdown]
# ## Table 1
#
# {numref}`fig-ap` has every network at two layers: {glue:text}`which_layer` (the paper's is the last but
# one; a ViT's last), and the one whose masks cover the objects best in the first half of the
# pictures, scored on the second half. The table has all six of COCO's numbers at the former, with the
# paper's own below it.

# %% tags=["hide-input"]
if has_masks:
    early, late = readable[: len(readable) // 2], readable[len(readable) // 2 :]
    cover = overlaps[overlaps.image.isin(early)].groupby(["model", "layer"])["mask"].mean()
    best = {name: int(cover[name].idxmax()) for name in names}
    rows = []
    for name in names:
        mine = found[(found.model == name) & (found.layer == best[name]) & found.image.isin(late)]
        scored = coco_average_precision(mine, truth.subset(late))
        scored = scored.rename(columns={"value": "mean"})
        scored[["mean", "low", "high"]] *= 100
        rows.append(scored.assign(model=name, layer=best[name], place="best layer"))
    here = precision[precision.layer == precision.model.map(read_at)]
    scores = pd.concat(
        [
            here.assign(place=chosen_layer),
            level.assign(place=chosen_layer),
            *rows,
            level.assign(place="best layer"),
        ]
    )
    scores = scores.assign(label=scores.model)

# %% mystnb={"figure": {"caption": "Box AP50 with its 95 % interval over pictures, at the layer that is read (left), and at the layer that was best on other pictures (right). Grey: no network, and the truth on the patch grid.", "name": "fig-ap"}, "image": {"alt": "Two dot plots of box AP50 with confidence intervals, for each network and three baselines."}} tags=["hide-input"]
if has_masks:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.9), sharey=True, layout="constrained")
    boxes = scores[(scores.kind == "box") & (scores.metric == "AP50")]
    for ax, (place, part) in zip(panels, boxes.groupby("place", sort=False), strict=True):
        interval_dots(part, colours, xlabel=f"box AP50 (%), {place}", ax=ax, digits=1)
    save_figure(figure, scores, output, "fig-ap")

# %% tags=["hide-input"]
if has_masks:
    ours = scores[scores.place == chosen_layer]
    wide = ours.pivot(index="model", columns=["kind", "metric"], values="mean")
    systems = [*names, *level.model.unique()]
    wide = wide.loc[systems]
    wide.columns = [" ".join(column) for column in wide.columns]
    at_read = overlaps.layer.isin([-1]) | (overlaps.layer == overlaps.model.map(read_at))
    extra = overlaps[at_read].groupby("model")
    wide["CorLoc"] = extra.corloc.mean()
    wide["mean best IoU"] = extra["mask"].mean()
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
# *Source: {cite:t}`yu2024emergence`, Table 1. Not measured by us. `params/coco2017.yml` holds the
# parameters for the same measurement, to be given with a released checkpoint.*
#
# ## Table 2: which half is needed
#
# The four combinations of attention and nonlinearity, ours at the layer read and at each network's
# best, beside **the paper's** for its own networks of size S on COCO. {doc}`13-variants` has the same
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
                f"box AP50, {chosen_layer}": mine[chosen_layer],
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
# the first {glue:text}`n_training` pictures, at {glue:text}`which_layer` (Fig. 10, left).

# %% tags=["hide-input"]
few = Window(pictures, 0, 40)
few_true = truth.subset(range(len(few)))
glue("n_training", len(few_true.sizes), display=False)
rows = []
for given, name in zip(models, names, strict=True):
    for step, snapshot in load_snapshots(given, device) if has_masks else ():
        mine = detect_objects(snapshot, few, folder, [read_at[name]], **how)
        scored = coco_average_precision(mine, few_true).assign(model=name, step=step)
        rows.append(scored.rename(columns={"value": "mean"}))
if rows:
    along = pd.concat(rows, ignore_index=True)
    along[["mean", "low", "high"]] *= 100
else:
    display(Markdown("No snapshots, or no masks: the curve over training is left out."))

# %% mystnb={"figure": {"caption": "Box AP50 of MaskCut at the layer that is read against training step, with its 95 % interval over pictures. Steps double from mark to mark.", "name": "fig-ap-training"}, "image": {"alt": "Line plot of box AP50 against the training step for each network that has snapshots."}} tags=["hide-input"]
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
    there = told.loc[chosen_layer].loc[names]
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
            for place in (chosen_layer, "best layer")
        }
        glue(f"{role}_ap50", text[chosen_layer], display=False)
        glue(f"{role}_best_ap50", text["best layer"], display=False)
        glue(f"{role}_best_layer", best.get(name, -1) + 1, display=False)

# %% tags=["hide-input"]
results = []
if has_masks:
    ending = {chosen_layer: "", "best layer": ", best layer"}
    for row in scores[(scores.place == chosen_layer) | (scores.layer >= 0)].to_dict("records"):
        quantity = f"{row['kind']} {row['metric']}{ending[row['place']]}"
        results.append((row["model"], quantity, row["mean"], row["low"], row["high"]))
    for column, quantity in {"corloc": "CorLoc", "mask": "mean best IoU"}.items():
        for name in systems:
            results.append((name, quantity, *mean_interval(extra[column].get_group(name))))
if rows:
    for row in part[part.step == 0].to_dict("records"):
        results.append((row["model"], "box AP50, untrained", row["mean"], row["low"], row["high"]))
save_results(results, output, "11-detection")

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
# {numref}`fig-ap` tests the first two, {numref}`fig-ap-training` the third, which on these pictures it
# does disprove where the end of a curve lies no higher than its beginning.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
show_provenance("11-detection", parameters, models, [pictures])
