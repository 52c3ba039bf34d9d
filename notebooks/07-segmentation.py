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
# # Does attention segment?
#
# **The claim.** {cite:t}`yu2024emergence` report that the `[CLS]` token of a CRATE trained only to
# classify attends to the object in the picture, so that the best head's map is a fair mask of it,
# and that a ViT trained the same way does not get there.
#
# **What we find.** On {glue:text}`n_measured` pictures the best head of {glue:text}`main`, read at
# layer {glue:text}`main_layer` of {glue:text}`main_depth`, reaches a mean IoU of
# {glue:text}`main_iou` with the object (95 % interval over pictures); {glue:text}`other` reaches
# {glue:text}`other_iou` at layer {glue:text}`other_layer`. Picture by picture the difference is
# {glue:text}`difference`. A blob in the middle, the same for every picture, scores
# {glue:text}`centre_iou`; the best of as many random maps scores {glue:text}`random_iou`; the same
# networks before training score {glue:text}`main_initial_iou` and {glue:text}`other_initial_iou`.
# A mask here is {glue:text}`rule`; where it is {glue:text}`second_rule`, the two networks
# score {glue:text}`main_second_iou` and {glue:text}`other_second_iou`, and the blob in the middle
# {glue:text}`centre_second_iou`. With one head for all pictures, chosen on other
# pictures, {glue:text}`main` reaches {glue:text}`main_fixed_iou`.
# At its best layer, {glue:text}`other` scores {glue:text}`other_best_iou` (layer
# {glue:text}`other_best_layer`) and {glue:text}`main` {glue:text}`main_best_iou` (layer
# {glue:text}`main_best_layer`).
#
# **How our setting differs.** The paper trains on ImageNet-21k with 784 tokens a picture and measures
# on PASCAL VOC photographs. The models shipped with this book are small, trained once each on drawn
# animals with exact masks ({doc}`01-models-and-data`); here {glue:text}`main` has
# {glue:text}`main_patches` patches a picture. Intervals are over pictures, not over trainings.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
image_size = None  # pixels a side; None for what each model was trained at
n_images = 400
layer = None  # from 0, or from the end when negative; None for the paper's
rules = ["mass", "entries"]  # how maps become masks; the first gives the headline
keep = 0.6
device = "cpu"
workers = 0  # processes that read pictures; 0 for none but this one
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    image_size=int | None,
    n_images=int,
    layer=int | None,
    rules=list[str],
    keep=float,
    device=str,
    workers=int,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.datasets import batches, stack_images
from crate_analysis.datasets.creatures import PARTS
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models
from crate_analysis.models.registry import from_config
from crate_analysis.notebook import (
    check_pictures,
    save_figure,
    save_results,
    show_provenance,
    table,
)
from crate_analysis.plotting import (
    heat,
    interval_dots,
    layer_curves,
    model_colours,
    overlay,
    reference_line,
    sheet,
)
from crate_analysis.probes import cls_attention, papers_layer
from crate_analysis.probes.collect import check_layer
from crate_analysis.segmentation import (
    attention_iou,
    attention_mask,
    baseline_iou,
    best_head_iou,
    to_pixels,
)

networks = load_models(models, device)
names = list(networks)
colours = model_colours(names)
pictures = {
    name: load_dataset(dataset, "val", image_size or network.config.image_size, n_images, seed)
    for name, network in networks.items()
}
read_at = {
    name: papers_layer(network) if layer is None else check_layer(network, layer)
    for name, network in networks.items()
}
papers = "the paper's: the last but one for CRATE, the last for a ViT"
glue("which_layer", papers if layer is None else "the one that was asked for", display=False)

# %% [markdown]
# ## What the heads look at
#
# {numref}`fig-heads` shows the first pictures of the validation split, not the best ones, and every
# head, not the best ones. Each tile is one head's attention from `[CLS]` to the patches, dark for
# none, bright for that head's largest. The layer, here and below, is {glue:text}`which_layer`.

# %% tags=["hide-input"]
indices, first = next(batches(pictures[names[0]], 8))
maps = {}
for name, network in networks.items():
    shown = stack_images([pictures[name][index] for index in indices]).to(device)
    maps[name] = cls_attention(network, network.normalize(shown), read_at[name]).cpu().numpy()

# %% mystnb={"figure": {"caption": "Attention of `[CLS]` to the patches, all heads, on the first pictures of the validation split. Left to right: the picture, then the heads of each model.", "name": "fig-heads"}, "image": {"alt": "A sheet of pictures of animals, each followed by the attention maps of all heads of each model."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 9.2))
size = first[0].image.shape[1:]
tiles = [
    [sample.image.permute(1, 2, 0).numpy()]
    + [heat(head, size) for name in names for head in maps[name][index]]
    for index, sample in enumerate(first)
]
columns = ["picture"] + [
    f"{name.split('-')[0]}\nhead {head + 1}" for name in names for head in range(len(maps[name][0]))
]
sheet(tiles, columns, ax=ax)
where = [
    (name, read_at[name], head, sample.path)
    for name in names
    for head in range(len(maps[name][0]))
    for sample in first
]
shown_maps = pd.DataFrame(where, columns=["model", "layer", "head", "path"])
save_figure(figure, shown_maps, output, "fig-heads")

# %% [markdown]
# ## From a map to a mask
#
# A map becomes a mask by keeping its brightest patches, and there are two readings of the paper's
# *60 %*: its text keeps 60 % of the patches (*entries*), the DINO code it refers to keeps the patches
# that hold 60 % of the attention (*mass*). {numref}`fig-rules` shows the masks on five pictures,
# chosen by rank: with the pictures ordered by the best head's IoU of the first model, they are the
# best, the three quartiles and the worst.

# %% tags=["hide-input"]
has_masks = any(len(sample.masks) for _, (sample,) in batches(pictures[names[0]], 1))
if has_masks:
    frames = []
    how = {"rules": rules, "workers": workers}
    for name, network in networks.items():
        torch.manual_seed(seed)
        initial = from_config(network.config).eval().to(device)
        for weights, model in (("trained", network), ("initial", initial)):
            frame = attention_iou(model, pictures[name], keep, **how, progress=False)
            frames.append(frame.assign(model=name, weights=weights))
    heads = networks[names[0]].config.heads
    patch = networks[names[0]].config.patch_size
    baselines = baseline_iou(pictures[names[0]], patch, heads, keep, **how, seed=seed)
    iou = pd.concat([*frames, baselines.assign(weights="none")], ignore_index=True)
    keys = ["model", "weights", "layer", "rule", "image"]
    best = iou.groupby([*keys, "mask"]).iou.max().reset_index()
    objects = best[~best["mask"].isin(PARTS)].groupby(keys).iou.mean().reset_index()
else:
    display(Markdown(f"`{dataset}` has no masks: the figures and numbers below are left out."))

# %% tags=["hide-input"]
if has_masks:
    here = objects.query("model == @names[0] and weights == 'trained' and rule == @rules[0]")
    ranked = here[here.layer == read_at[names[0]]].sort_values("iou", ascending=False).image
    chosen = [int(ranked.iloc[round(q * (len(ranked) - 1))]) for q in (0, 0.25, 0.5, 0.75, 1)]
    samples = [pictures[names[0]][index] for index in chosen]
    tiles = [[s.image.permute(1, 2, 0).numpy() for s in samples]]
    tiles.append([overlay(p, s.masks[0].numpy()) for p, s in zip(tiles[0], samples, strict=True)])
    picked = []
    for name, network in networks.items():
        own = [pictures[name][index] for index in chosen]
        images = network.normalize(stack_images(own).to(device))
        attention = cls_attention(network, images, read_at[name]).cpu()
        for rule in rules:
            masks = attention_mask(attention, keep, rule)
            line = []
            for sample, mask, picture in zip(own, masks, tiles[0], strict=True):
                pixels = to_pixels(mask[None], *sample.image.shape[1:])
                truth = sample.masks[None, :1], sample.ignored[None]
                value, head = (found.item() for found in best_head_iou(pixels, *truth))
                line.append(overlay(picture, mask[head].numpy()))
                place = {"path": sample.path, "model": name, "layer": read_at[name]}
                picked.append({**place, "rule": rule, "head": head, "iou": value})
            tiles.append(line)
    labels = ["picture", "truth"] + [f"{name}\n{rule}" for name in names for rule in rules]

# %% mystnb={"figure": {"caption": "Masks of the best head by each rule, on five pictures at fixed ranks of the first model's IoU: the best, the quartiles, the worst.", "name": "fig-rules"}, "image": {"alt": "A sheet with five pictures, their true masks, and the masks of the best head of each model by each rule."}} tags=["hide-input"]
if has_masks:
    figure, ax = plt.subplots(figsize=(8, 9.2))
    sheet(tiles, ["best", "upper quartile", "median", "lower quartile", "worst"], labels, ax=ax)
    save_figure(figure, pd.DataFrame(picked), output, "fig-rules")

# %% [markdown]
# ## How well the best head covers the object
#
# For each picture and each object class in it we take the head whose mask has the highest IoU with
# the truth, average over classes, then over pictures. This is the paper's measure. It looks at the
# truth when it picks the head, so it is an upper bound on what one would get without masks, and any
# set of varied maps profits from the choice. The baselines get the same choice: as many random maps
# as there are heads. The *ceiling* is the truth itself, rounded to patches.

# %% tags=["hide-input"]
if has_masks:
    headline = objects[objects.rule == rules[0]]
    level = headline[headline.weights == "none"].groupby("model").iou.mean()

# %% mystnb={"figure": {"caption": "IoU of the best head with the object, by layer, for masks by the first rule. Mean and one standard deviation over pictures; dotted lines are the baselines.", "name": "fig-iou-layers"}, "image": {"alt": "Line plot of the best head's IoU against the layer for each model, trained and at initialisation, with three reference levels."}} tags=["hide-input"]
if has_masks:
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    curves = headline[headline.weights != "none"].rename(columns={"iou": "value"})
    dashes = {"style": "weights", "styles": ["trained", "initial"]}
    layer_curves(curves, colours, **dashes, ylabel="IoU of the best head", ax=ax)
    for name, value in level.items():
        reference_line(value, name, ax)
    ax.set_ylim(0, None)
    save_figure(figure, headline, output, "fig-iou-layers")

# %% [markdown]
# {numref}`fig-iou` compares all systems at the layers named above, under each rule.

# %% tags=["hide-input"]
if has_masks:
    rows = []
    for rule in rules:
        by_system = objects[objects.rule == rule].set_index(["model", "weights", "layer"]).iou
        for name in names:
            for weights, label in (("trained", name), ("initial", f"{name}, initial")):
                cell = by_system.loc[name, weights, read_at[name]]
                rows.append((rule, label, name, weights, *mean_interval(cell)))
        for name in ("random maps", "centre prior", "patch ceiling"):
            rows.append((rule, name, name, "none", *mean_interval(by_system.loc[name])))
    columns = ["rule", "label", "model", "weights", "mean", "low", "high"]
    scores = pd.DataFrame(rows, columns=columns)

# %% mystnb={"figure": {"caption": "Mean IoU of the best head with the object, with 95 % bootstrap intervals over pictures, for masks by each rule. Grey: maps that know nothing of the picture, and the truth on the patch grid.", "name": "fig-iou"}, "image": {"alt": "A dot plot for each rule of mean IoU with confidence intervals for each model and baseline."}} tags=["hide-input"]
if has_masks:
    size = {"figsize": (8.2, 3.3), "layout": "constrained"}
    figure, panels = plt.subplots(1, len(rules), sharey=True, squeeze=False, **size)
    for ax, (rule, part) in zip(panels[0], scores.groupby("rule", sort=False), strict=True):
        interval_dots(part, colours, xlabel=f"mean IoU, {keep:.0%} of {rule}", ax=ax)
    save_figure(figure, scores, output, "fig-iou")

# %% tags=["hide-input"]
if has_masks:

    def iou_of(name, at, weights="trained"):
        cell = headline[(headline.model == name) & (headline.weights == weights)]
        return cell[cell.layer == at].set_index("image").iou

    by_layer = headline[headline.weights == "trained"].groupby(["model", "layer"]).iou.mean()
    best_layer = {name: int(by_layer[name].idxmax()) for name in names}
    for role, name in (("main", names[0]), ("other", names[-1])):
        glue(role, name, display=False)
        glue(f"{role}_layer", read_at[name] + 1, display=False)
        glue(f"{role}_depth", len(networks[name].layers), display=False)
        glue(f"{role}_iou", str(mean_interval(iou_of(name, read_at[name]))), display=False)
        initial = mean_interval(iou_of(name, read_at[name], "initial"))
        glue(f"{role}_initial_iou", str(initial), display=False)
        glue(f"{role}_best_layer", best_layer[name] + 1, display=False)
        best_iou = mean_interval(iou_of(name, best_layer[name]))
        glue(f"{role}_best_iou", str(best_iou), display=False)
    measured = iou_of(names[0], read_at[names[0]])
    if len(names) > 1:
        difference = mean_interval(measured - iou_of(names[-1], read_at[names[-1]]))
        glue("difference", str(difference), display=False)
    told = {
        "mass": f"the fewest patches that hold {keep:.0%} of the attention",
        "entries": f"{keep:.0%} of the patches, as the paper's text has it",
    }
    glue("rule", told[rules[0]], display=False)
    glue("second_rule", told[rules[1]] if rules[1:] else "(no second rule)", display=False)
    by_label = scores[scores.rule == rules[-1]].set_index("label")[["mean", "low", "high"]]
    for role, name in (("main", names[0]), ("other", names[-1]), ("centre", "centre prior")):
        interval = str(MeanInterval(*by_label.loc[name]))
        glue(f"{role}_second_iou", interval if rules[1:] else "–", display=False)
    glue("centre_iou", f"{level['centre prior']:.3g}", display=False)
    glue("random_iou", f"{level['random maps']:.3g}", display=False)
    glue("n_measured", len(measured), display=False)
    sides = (side // patch for side in samples[0].image.shape[1:])
    glue("main_patches", math.prod(sides), display=False)

# %% [markdown]
# ### Without looking at the truth
#
# A user has no masks to pick a head with. A stricter test fixes one head of the layer for all
# pictures: the one that scores best on half of the pictures, measured on the other half. The last
# column says how often the head that the truth would pick is that one.

# %% tags=["hide-input"]
if has_masks:
    rows = []
    for name in names:
        cell = iou[
            (iou.model == name)
            & (iou.weights == "trained")
            & (iou.rule == rules[0])
            & (iou.layer == read_at[name])
            & ~iou["mask"].isin(PARTS)
        ]
        by_head = cell.pivot_table(index=["image", "mask"], columns="head", values="iou")
        place, images = by_head.index.get_level_values("image").factorize()
        check_pictures(len(images))
        even = place % 2 == 0
        head = by_head[even].mean().idxmax()
        rows.append(
            {
                "model": name,
                "fixed head": int(head) + 1,
                "its IoU on the other half": mean_interval(by_head[~even][head]),
                "best head's IoU there": mean_interval(by_head[~even].max(axis=1)),
                "best head is the fixed one": (by_head[~even].idxmax(axis=1) == head).mean(),
            }
        )
        if name == names[0]:
            glue("main_fixed_iou", str(rows[-1]["its IoU on the other half"]), display=False)
    others = by_head[~even].index.get_level_values("image")
    prior = headline[(headline.model == "centre prior") & headline.image.isin(others)].iou
    rows.append({"model": "centre prior", "its IoU on the other half": mean_interval(prior)})
    fixed = pd.DataFrame(rows).set_index("model").astype({"fixed head": "Int64"})
    display(table(fixed, {"best head is the fixed one": "{:.0%}"}, missing="–"))

# %% [markdown]
# ### Parts
#
# Some pictures come with masks of the parts. The table gives the IoU of the best head with each (first
# rule, same layer, mean over the pictures that show the part); chance is the best of as many random
# maps. Which head sees which part, and whether always the same one, is a chapter of its own.

# %% tags=["hide-input"]
if has_masks and best["mask"].isin(PARTS).any():
    parts = best[best["mask"].isin(PARTS) & (best.rule == rules[0])]
    rows = {}
    for name in names:
        cell = parts[(parts.model == name) & (parts.weights == "trained")]
        cell = cell[cell.layer == read_at[name]]
        rows[name] = cell.groupby("mask").iou.apply(lambda values: str(mean_interval(values)))
    chance = parts[parts.model == "random maps"].groupby("mask").iou
    rows["random maps"] = chance.apply(lambda values: str(mean_interval(values)))
    display(table(pd.DataFrame(rows).reindex(PARTS).rename_axis("part").dropna(how="all")))
else:
    display(Markdown(f"`{dataset}` has no part masks: the table of parts is left out."))

# %% tags=["hide-input"]
results = []
if has_masks:
    ending = {"trained": "", "initial": ", untrained", "none": ""}
    for row in scores.to_dict("records"):
        quantity = f"best-head IoU{ending[row['weights']]} ({row['rule']})"
        results.append((row["model"], quantity, row["mean"], row["low"], row["high"]))
    for name in names:
        interval = mean_interval(iou_of(name, best_layer[name]))
        results.append((name, f"best-head IoU, best layer ({rules[0]})", *interval))
    for name, interval in fixed["its IoU on the other half"].items():
        results.append((name, f"fixed-head IoU, other half ({rules[0]})", *interval))
save_results(results, output, "07-segmentation")

# %% [markdown]
# ## The paper's numbers
#
# These are **the paper's**, on PASCAL VOC 2012 val (1,449 photographs, mean over classes, then
# pictures), for its own networks. Only what was measured on the same photographs can be put beside
# them: `params/voc12.yml` holds the parameters for that, to be given with a released checkpoint.
#
# | model, patch 8 | training | mIoU (%) |
# | --- | --- | --- |
# | CRATE-S | supervised | 23.9 |
# | CRATE-B | supervised | 23.6 |
# | ViT-S | supervised | 14.1 |
# | ViT-B | supervised | 19.2 |
# | ViT-S | DINO | 27.0 |
# | ViT-B | DINO | 27.3 |
#
# *Source: {cite:t}`yu2024emergence`, Fig. 4. Not measured by us.*
#
# ## What would have disproved the claim
#
# - A best-head IoU of CRATE no higher than that of the centre prior or of its own initial weights:
#   then the maps would say nothing of this picture's object.
# - A ViT that does as well, at its own best layer too: then the design would not be what matters.
# - A best head that is a different one for every picture: then the score would be the luck of picking.
#
# {numref}`fig-iou`, {numref}`fig-iou-layers` and the table of fixed heads are these tests.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
show_provenance("07-segmentation", parameters, models, pictures.values())
