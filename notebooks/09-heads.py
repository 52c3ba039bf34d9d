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
# # Does a head stand for a part?
#
# **The claim.** {cite:t}`yu2024emergence` (Fig. 7) show four heads of a CRATE on several animals: one
# lights up on legs, one on bodies, one on faces, one on ears, whatever the animal. They read this as
# parts that emerge without being taught.
#
# **What we find.** For each part we take the one head, of the {glue:text}`n_heads` of
# {glue:text}`main`, that ranks the part's pixels best on {glue:text}`n_chosen_on` pictures, and score
# it on {glue:text}`n_measured` others. The head chosen for the whole animal has an average precision of
# {glue:text}`main_whole`, a fixed map of where animals usually are {glue:text}`prior_whole`. For the parts the chosen heads reach {glue:text}`main_parts`, and fixed
# maps of where each part usually is {glue:text}`prior_parts`. The head beats the fixed map for
# {glue:text}`main_picture_better` of {glue:text}`n_parts` parts and falls behind it for
# {glue:text}`main_picture_worse`. Once only the animal's pixels count, so that to have found the
# animal is no merit, it beats it for {glue:text}`main_within_better` and falls behind for
# {glue:text}`main_within_worse`; training made the chosen head better at this for
# {glue:text}`n_learnt`. {glue:text}`other` beats the fixed map there for
# {glue:text}`other_within_better`. With the default models this says: our heads see the animal, its
# trunk most of all, and none stands for a part. Nor is the best head for a part the same from species
# to species. It goes with the coat rather than the shape: the heads' rankings correlate by
# {glue:text}`agree_palette` between two species that share a palette, by {glue:text}`agree_pattern` for
# a pattern, by {glue:text}`agree_plan` for a body plan and by {glue:text}`agree_none` where nothing is
# shared. Within one species they correlate by {glue:text}`agree_same`.
#
# **How our setting differs.** The paper shows heads picked by eye, of the last layer but one of
# networks with 6 heads and 784 patches, on photographs. We pick by a rule, from all layers, and count
# every picture. Our networks are small ({glue:text}`main_grid` patches, one training run each), and
# our animals are drawn and seen from the side, where a fixed map of the legs is a strong rival
# ({doc}`01-models-and-data`). That a part head does not appear here does not say that the paper's
# heads are not there; it says that pictures of chosen heads need the numbers that this page puts
# beside them. Intervals are 95 %, over pictures.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
n_images = 400
n_choose = 200
keep = 0.6
whole = "animal"
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    n_images=int,
    n_choose=int,
    keep=float,
    whole=str,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.datasets import read_samples
from crate_analysis.datasets.creatures.species import SPECIES
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models
from crate_analysis.models.registry import from_config
from crate_analysis.notebook import save_figure, save_results, show_provenance, table
from crate_analysis.plotting import group_dots, head_grid, heat, model_colours, outlines, sheet
from crate_analysis.probes import collect, papers_layer
from crate_analysis.segmentation import (
    agreement_intervals,
    baseline_scores,
    choose_heads,
    head_scores,
    location_prior,
)

networks = load_models(models)
names = list(networks)
main = networks[names[0]]
torch.manual_seed(seed)
untrained = from_config(main.config).eval()
untrained.name = f"{names[0]}, untrained"
systems = {**networks, untrained.name: untrained}
colours = model_colours(names)
colours[untrained.name] = tuple(0.5 + 0.5 * channel for channel in colours[names[0]])
data = []


def samples_of(split, count):
    """The pictures of a split for each network, made once for all that take the same size."""
    sizes = {network.config.image_size for network in networks.values()}
    sets = {size: load_dataset(dataset, split, size, count, seed) for size in sizes}
    data.extend(sets.values())
    made = {size: read_samples(some) for size, some in sets.items()}
    return {name: made[network.config.image_size] for name, network in systems.items()}


def known_masks(samples):
    """The names of all masks that some of the pictures have."""
    return {mask for sample in samples for mask in sample.mask_names}


pictures = samples_of("val", n_images)
classes = data[0].classes
try:
    others = samples_of("train", n_choose)
except FileNotFoundError:
    others = {name: samples[::2] for name, samples in pictures.items()}
    pictures = {name: samples[1::2] for name, samples in pictures.items()}
    display(Markdown(f"`{dataset}` has no split `train`: heads are chosen on half of `val`."))
known = [known_masks(part[name]) for part in (others, pictures) for name in names]
has_masks = all(known)

# %% [markdown]
# ## How a head is scored and chosen
#
# A head's map says how much `[CLS]` attends to each patch. Its **average precision** for a part is
# that of a detector: go through the pixels from the brightest patch to the darkest and average, over
# the part's pixels, the share of the part among all pixels passed so far. It is 1 for a map that
# ranks all of the part first and needs no rule that turns a map into a mask. Pixels of a patch are
# tied. Beside it stands the IoU of the mask that holds {glue:text}`keep:.0%` of the map's mass
# ({doc}`07-segmentation`).
#
# Every number needs its rivals, scored by the same code on the same pictures:
#
# - **random map**: every patch drawn at random. This is chance. It lies above the part's share of the
#   pixels, which is what a flat map scores, because a small part has few patches and one of them may
#   come early by luck.
# - **location prior**: the mean mask of the part over the pictures that heads are chosen on, one map
#   for all pictures. It knows where legs usually are and nothing of this picture. A head that sees
#   the part must beat it.
# - **before training**: the same network with its initial weights, with the same right to choose the
#   best of all heads.
# - **patch ceiling**: how much of each patch the part covers, which is about the most that a map of
#   patches can score.
#
# For each part the head with the highest mean average precision is chosen, from all layers, on
# {glue:text}`n_chosen_on` pictures that take no further part (split `train`). Every score below is on
# split `val`, so the luck of picking the best of many is not in it. The paper does not say how it
# chose: it shows heads of the last layer but one, taken by eye.

# %% tags=["hide-input"]
glue("keep", keep, display=False)
keys = ["model", "within", "mask"]
which = [*keys, "layer", "head"]
parts = []
if has_masks:
    within = [whole] if all(whole in masks for masks in known) else []
    options = {"keep": keep, "within": within}
    choosing, scores, rivals = {}, {}, {}
    for name, network in systems.items():
        choosing[name] = head_scores(network, others[name], progress=False, **options)
        scores[name] = head_scores(network, pictures[name], progress=False, **options)
        grid = (network.config.image_size, network.config.patch_size)
        if grid not in rivals:
            prior = location_prior(others[name], grid[1])
            rivals[grid] = baseline_scores(
                pictures[name], grid[1], main.config.heads, prior, seed=seed, **options
            )
        rivals[name] = rivals[grid].assign(network=name)
    seen = [frames[names[0]].query("within == 'picture'") for frames in (choosing, scores)]
    shown_in = pd.concat([frame.groupby("mask").image.nunique() for frame in seen], axis=1)
    sizes = seen[1].groupby("mask").share.mean()[(shown_in >= 2).all(axis=1)]
    parts = list(sizes.sort_values(ascending=False).index)
    if not parts:
        display(Markdown(f"No mask of `{dataset}` is in enough pictures: nothing is scored."))
else:
    display(Markdown(f"`{dataset}` has no masks: heads are shown without scores."))

# %% tags=["hide-input"]
if parts:
    values = ["average_precision", "iou"]
    chosen = choose_heads(pd.concat(choosing.values()).query("mask in @parts")).set_index(which)
    scores = pd.concat(scores.values()).query("mask in @parts")
    scores = scores.groupby([*which, "image"])[values].mean()
    rivals = pd.concat(rivals[name] for name in systems).query("mask in @parts")
    rivals = rivals.groupby(["network", *keys, "image"])[values].mean()
    levels = rivals.average_precision.groupby(level=["network", "within", "mask", "model"]).mean()
    levels = levels.unstack().rename_axis(keys)
    levels = levels[["random maps", "location prior", "patch ceiling"]]

    rows = [
        (*place, *mean_interval(own))
        for place, own in scores.average_precision.groupby(level=which)
        if place[0] in networks
    ]
    heads = pd.DataFrame(rows, columns=[*which, "mean", "low", "high"]).join(levels, on=keys)
    span = heads["patch ceiling"] - heads["random maps"]
    heads["gain"] = (heads["mean"] - heads["random maps"]) / span
    heads["chosen"] = pd.MultiIndex.from_frame(heads[which]).isin(chosen.index)
    regions = ["picture", *within]
    height = 1 + min(10, 0.22 * max(n.config.depth * n.config.heads for n in networks.values()))
    width = 1.5 + 3.6 * len(names)

# %% [markdown]
# ## Every head and every part
#
# {numref}`fig-part-grid` shows all heads of all layers. To set parts of such different sizes side by
# side, a score is given as the share of the way from chance, the random map, to the patch ceiling:
# 0 is chance and 100 is about the best a map of patches can do. Frames mark the heads that were
# chosen, on other pictures.

# %% mystnb={"figure": {"caption": "Average precision of every head for every mask, in hundredths of the way from a random map (0) to the patch ceiling (100); mean over the validation pictures. Masks are ordered by size. Framed: the head chosen for the mask on other pictures.", "name": "fig-part-grid"}, "image": {"alt": "For each model a heat map with a row for each head of each layer and a column for the animal and each of its parts."}} tags=["hide-input"]
if parts:
    figure, panels = plt.subplots(
        1, len(names), figsize=(width, height), layout="constrained", squeeze=False
    )
    shown = heads.query("within == 'picture'")
    for ax, name in zip(panels[0], names, strict=True):
        cell = shown[shown.model == name].set_index(["layer", "head", "mask"])
        head_grid(cell.gain.unstack()[parts], cell.chosen.unstack()[parts], 0.8, ax)
        ax.set_title(name, fontsize="medium", color=colours[name])
    bar = figure.colorbar(ax.images[0], ax=panels, shrink=0.5, pad=0.02, format="{x:.0%}")
    bar.set_label("from chance (0) to the patch ceiling", fontsize="small")
    save_figure(figure, shown, output, "fig-part-grid")

# %% [markdown]
# ## The chosen heads and their rivals
#
# {numref}`fig-part-scores` puts the chosen heads beside their rivals. On the left all pixels of the
# picture count. On the right only the animal's do: there a head gains nothing by finding the animal,
# and has to rank the part's pixels above those of the other parts. This is the sharp test of *part*.
# For it, heads are chosen by the score that it shows, so that a head which tells a part from the rest
# of the animal, but not best from the background, has its chance.

# %% tags=["hide-input"]
if parts:
    prior = rivals.average_precision.xs("location prior", level="model")
    rows = []
    for place in chosen.index:
        own = scores.loc[place]
        lead = own.average_precision - prior.loc[place[:3]]
        rows += [
            (*place, "AP", *mean_interval(own.average_precision)),
            (*place, "IoU", *mean_interval(own.iou)),
            (*place, "AP over the prior's", *mean_interval(lead)),
        ]
    for place, own in rivals.loc[names[0]].groupby(level=keys):
        rows.append((*place, None, None, "AP", *mean_interval(own.average_precision)))
        rows.append((*place, None, None, "IoU", *mean_interval(own.iou)))
    columns = [*which, "score", "mean", "low", "high"]
    summary = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "head": "Int64"})
    ranks = {name: rank for rank, name in enumerate([*regions, *parts, *systems, *levels])}
    by = ["within", "mask", "model"]
    summary = summary.sort_values(by, key=lambda c: c.map(ranks), kind="stable")
    if not within:
        display(Markdown(f"`{dataset}` has no mask `{whole}`: scores within it are left out."))

# %% mystnb={"figure": {"caption": "Average precision of the head chosen for each mask (dots, with 95 % intervals over pictures) and of its rivals (lines): a random map, the mean mask of the part over other pictures, and the most that patches allow. Left: all pixels count. Right: only the animal's pixels count, and heads are chosen by this score.", "name": "fig-part-scores"}, "image": {"alt": "Two dot plots of average precision for each part: trained networks, the untrained one, and three reference levels."}} tags=["hide-input"]
if parts:
    size = (1.5 + 3.8 * len(regions), 1.6 + 0.55 * len(parts))
    figure, panels = plt.subplots(
        1, len(regions), figsize=size, layout="constrained", squeeze=False
    )
    for ax, region in zip(panels[0], regions, strict=True):
        dots = summary.query("within == @region and score == 'AP' and model in @systems")
        dots = dots.rename(columns={"mask": "group", "model": "label"})
        title = "average precision" + ("" if region == "picture" else f" within the {region}")
        lines = levels.loc[names[0], region].loc[dots.group.unique()]
        group_dots(dots, colours, lines, title, ax)
        ax.set_xlim(0, 1)
    entries = panels[0, 0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    save_figure(figure, summary, output, "fig-part-scores")

# %% [markdown]
# The same in numbers, all pixels counting: for each network the chosen head (layer.head) and its
# average precision. The second table gives the IoU of these heads' masks. What a head has over the
# location prior, picture by picture, is saved with the figure.

# %% tags=["hide-input"]
if parts:
    texts = [str(MeanInterval(*row)) for row in summary[["mean", "low", "high"]].to_numpy()]
    texts = summary.assign(text=texts)
    is_head = texts["head"].notna()
    place = (texts.layer + 1).astype(str) + "." + (texts["head"] + 1).astype(str) + ": "
    texts["text"] = place.where(is_head, "") + texts.text
    tables = {}
    for (region, score), rows in texts.groupby(["within", "score"]):
        wide = rows.pivot(index="mask", columns="model", values="text")
        wide = wide.reindex(index=[part for part in parts if part in wide.index])
        columns = [*systems, "location prior", "random maps"]
        tables[region, score] = wide.reindex(columns=columns).rename_axis(index="part")
    display(table(tables["picture", "AP"]), table(tables["picture", "IoU"]))

# %% [markdown]
# ## Within the animal
#
# {numref}`fig-part-grid-within` is {numref}`fig-part-grid` once more, with only the animal's pixels
# counting. What stays red tells the part from the rest of the animal; what is blue avoids it.

# %% mystnb={"figure": {"caption": "As the first heat map, but only the animal's pixels count: 0 is a random map within the animal, 100 about the best that patches allow there. Framed: the head chosen for the part, by this score, on other pictures.", "name": "fig-part-grid-within"}, "image": {"alt": "For each model a heat map with a row for each head of each layer and a column for each part, mostly pale."}} tags=["hide-input"]
if parts and within:
    figure, panels = plt.subplots(
        1, len(names), figsize=(width, height), layout="constrained", squeeze=False
    )
    shown = heads[heads.within == whole]
    for ax, name in zip(panels[0], names, strict=True):
        cell = shown[shown.model == name].set_index(["layer", "head", "mask"])
        inner = [part for part in parts if part != whole]
        head_grid(cell.gain.unstack()[inner], cell.chosen.unstack()[inner], 0.8, ax)
        ax.set_title(name, fontsize="medium", color=colours[name])
    bar = figure.colorbar(ax.images[0], ax=panels, shrink=0.5, pad=0.02, format="{x:.0%}")
    bar.set_label("from chance (0) to the patch ceiling", fontsize="small")
    save_figure(figure, shown, output, "fig-part-grid-within")

# %% tags=["hide-input"]
if parts and within:
    display(table(tables[whole, "AP"]))

# %% [markdown]
# ## The paper's picture, by a rule
#
# {numref}`fig-part-gallery` is the paper's Fig. 7 made by rule: the head chosen for each part (that of
# the left panel of {numref}`fig-part-scores`), on the first picture of each species in the validation
# split. {numref}`fig-part-gallery-other` does the same with {glue:text}`other`. The outline is the
# part, so that the reader can judge whether the light falls inside it. Of the {glue:text}`n_masks`
# heads, {glue:text}`n_at_layer` are of layer {glue:text}`papers_layer`, the one that the paper shows.
#
# With the default models most of the light falls on the trunk, whatever the part. And a head does not do
# the same in every species: on some the ground stays dark, on others it lights up nearly as much as the
# animal.

# %% tags=["hide-input"]
labels = [sample.label for sample in pictures[names[0]]]
if None not in labels:
    columns = [labels.index(label) for label in sorted(set(labels))][:12]
    titles = [classes[labels[index]] for index in columns]
elif parts:
    firsts = scores.loc[names[0], "picture"].reset_index().groupby("mask").image.min()
    columns, titles = list(dict.fromkeys(firsts[parts]))[:12], []
else:
    columns, titles = list(range(min(12, len(labels)))), []
galleries = {}
for name in dict.fromkeys((names[0], names[-1])):
    samples = [pictures[name][index] for index in columns]
    size = samples[0].image.shape[1:]
    grid = [side // networks[name].config.patch_size for side in size]
    readers = {"attention": lambda state: state.attention()[:, :, 0, 1:]}
    maps = collect(networks[name], samples, readers)["attention"].unflatten(-1, grid).numpy()
    if parts:
        lines = chosen.loc[name, "picture"].reset_index(["layer", "head"]).loc[parts[:12]]
        lines = list(lines[["layer", "head"]].itertuples(name=None))
    else:
        layer = papers_layer(networks[name])
        lines = [("", layer, head) for head in range(networks[name].config.heads)]
    tiles = [[sample.image.permute(1, 2, 0).numpy() for sample in samples]]
    edges, rows = [[None] * len(samples)], []
    for mask, layer, head in lines:
        tiles.append([heat(one[layer, head], size) for one in maps])
        planes = [dict(zip(s.mask_names, s.masks.numpy(), strict=True)) for s in samples]
        edges.append([named.get(mask) for named in planes])
        for index, sample in zip(columns, samples, strict=True):
            tile = (name, "picture", mask, layer, head, index)
            score = scores.average_precision.get(tile) if parts else None
            rows.append((*tile, sample.path, score))
    galleries[name] = {
        "tiles": tiles,
        "edges": edges,
        "rows": ["picture", *(f"{mask}\n{layer + 1}.{head + 1}" for mask, layer, head in lines)],
        "frame": pd.DataFrame(rows, columns=[*which, "image", "path", "average_precision"]),
        "figsize": (1 + 0.72 * len(columns), 0.5 + 0.72 * len(tiles)),
    }

# %% mystnb={"figure": {"caption": "The head of the first model that was chosen for each part (layer.head, counted from 1), on the first picture of each species in the validation split. Each map from 0 (dark) to its own maximum (bright); the outline is the part.", "name": "fig-part-gallery"}, "image": {"alt": "A sheet: pictures of twelve species, and below each the attention map of the head chosen for each part, with the outline of the part."}} tags=["hide-input"]
gallery = galleries[names[0]]
figure, ax = plt.subplots(figsize=gallery["figsize"])
sheet(gallery["tiles"], titles, gallery["rows"], ax)
outlines(gallery["edges"], ax=ax)
save_figure(figure, gallery["frame"], output, "fig-part-gallery")

# %% mystnb={"figure": {"caption": "As the sheet before, for the heads chosen from the last model.", "name": "fig-part-gallery-other"}, "image": {"alt": "A sheet as the one before, for the other model."}} tags=["hide-input"]
if len(names) > 1:
    gallery = galleries[names[-1]]
    figure, ax = plt.subplots(figsize=gallery["figsize"])
    sheet(gallery["tiles"], titles, gallery["rows"], ax)
    outlines(gallery["edges"], ax=ax)
    save_figure(figure, gallery["frame"], output, "fig-part-gallery-other")

# %% [markdown]
# ## From species to species
#
# If a head stands for a part, it does so in every species. So within each species we rank all heads
# by their average precision for the part, and ask how far the rankings agree (Spearman's rank
# correlation: 1 for one order, 0 for unrelated ones). A ranking from a few dozen pictures is noisy.
# The top line of {numref}`fig-part-agreement` shows how far it repeats on *other pictures of the same
# species*; to keep the comparison fair, all rankings are of half of a species' pictures against half
# of another's. The lines below it take pairs of species that share the palette of their coat, its
# pattern, their body plan, or none of the three. Heads that stand for parts would agree across all of
# them. What we see with the default models follows the coat: the CRATE's heads rank alike on like
# palettes and patterns, those of the ViT on like palettes, and a body plan in common adds little. That
# palettes matter needs no training: the untrained network shows it most.

# %% tags=["hide-input"]
compared = False
if parts and None not in labels:
    species = np.array([classes[label] for label in labels])
    kinds, counts = np.unique(species, return_counts=True)
    compared = len(kinds) > 1 and counts.min() >= 4
if compared:
    same = np.eye(len(kinds), dtype=bool)
    pairs = {"same": same, "two": ~same}
    traits = {one.name: one for one in SPECIES}
    if set(kinds) <= traits.keys():
        for trait in ("palette", "pattern", "plan"):
            own = np.array([getattr(traits[kind], trait) for kind in kinds])
            pairs[trait] = (own == own[:, None]) & ~same
        alike = [pairs[trait] for trait in ("palette", "pattern", "plan")]
        pairs["none"] = ~same & ~np.any(alike, axis=0)
    pairs = {name: entries for name, entries in pairs.items() if entries.any()}
    inner = [part for part in parts if part != whole] or parts
    ranked, rows = {}, []
    for name in systems:
        for region in regions:
            for mask in parts if region == "picture" else inner:
                wide = scores.average_precision.loc[name, region, mask].unstack(["layer", "head"])
                ranked[name, region, mask] = wide.reindex(range(len(labels)))
            values = np.stack([ranked[name, region, mask] for mask in inner])
            found = agreement_intervals(values, species, pairs, seed=seed)
            rows.append(found.assign(model=name, within=region, mask="all parts"))
    for (name, region, mask), wide in ranked.items():
        found = agreement_intervals(wide.to_numpy()[None], species, pairs, seed=seed)
        rows.append(found.assign(model=name, within=region, mask=mask))
    agreement = pd.concat(rows, ignore_index=True)
else:
    display(
        Markdown(f"`{dataset}` lacks the labels, masks or number of pictures to compare classes.")
    )

# %% mystnb={"figure": {"caption": "How far two rankings of the heads agree: mean Spearman correlation over the parts and over pairs of species of each kind, with 95 % intervals over pictures. 0 is chance. Left: ranked by average precision over the whole picture; right: within the animal.", "name": "fig-part-agreement"}, "image": {"alt": "Two dot plots of rank correlation for pairs of species that share a palette, a pattern, a body plan or nothing, for each network."}} tags=["hide-input"]
if compared:
    size = (1.8 + 3.7 * len(regions), 1.4 + 0.45 * len(pairs))
    figure, panels = plt.subplots(
        1, len(regions), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    for ax, region in zip(panels[0], regions, strict=True):
        dots = agreement.query("within == @region and mask == 'all parts'")
        dots = dots.rename(columns={"model": "label"})
        dots["group"] = dots.pairs.map(
            {
                "same": "same species,\nother pictures",
                "two": "two species",
                "palette": "two that share\na palette",
                "pattern": "two that share\na pattern",
                "plan": "two that share\na body plan",
                "none": "two that share\nnone of these",
            }
        )
        title = "rank correlation" + ("" if region == "picture" else f" within the {region}")
        group_dots(dots, colours, None, title, ax)
        ax.axvline(0, color="0.35", linestyle=":", linewidth=1)
        ax.set_xlim(min(-0.05, dots.low.min()), 1)
    entries = panels[0, 0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    save_figure(figure, agreement, output, "fig-part-agreement")

# %% [markdown]
# And the chosen heads themselves: in how many species is the head that was chosen over all species
# the best of all heads, and in how many among the best three? By chance it is the best in
# {glue:text}`chance_best:.1f` of {glue:text}`n_species` species and among the best three in
# {glue:text}`chance_three:.1f`.

# %% tags=["hide-input"]
if compared:
    rows, total = [], main.config.depth * main.config.heads
    for (name, region, mask), wide in ranked.items():
        if region == "picture":
            rank = wide.groupby(species).mean().dropna().rank(axis=1, ascending=False)
            rank = rank[chosen.loc[name, region, mask].index[0]]
            text = f"{(rank == 1).sum()}, {(rank <= 3).sum()} of {len(rank)}"
            rows.append({"part": mask, "network": name, "text": text})
    best = pd.DataFrame(rows).pivot(index="part", columns="network", values="text")
    display(table(best.reindex(index=parts, columns=list(systems))))
    glue("n_species", len(kinds), display=False)
    glue("chance_best", len(kinds) / total, display=False)
    glue("chance_three", 3 * len(kinds) / total, display=False)

# %% [markdown]
# The rank correlation part by part, between two species and, in brackets after it, between a species
# and itself on other pictures, the most to hope for:

# %% tags=["hide-input"]
if compared:
    by_part = agreement[(agreement.within == "picture") & agreement["mask"].isin(parts)]
    rows = []
    for (mask, name), found in by_part.groupby(["mask", "model"]):
        found = found.set_index("pairs")[["mean", "low", "high"]]
        text = f"{MeanInterval(*found.loc['two'])} ({found['mean']['same']:.2f})"
        rows.append({"part": mask, "network": name, "text": text})
    correlation = pd.DataFrame(rows).pivot(index="part", columns="network", values="text")
    display(table(correlation.reindex(index=parts, columns=list(systems))))

# %% [markdown]
# ## What would have disproved the claim
#
# - Chosen heads no better than a fixed map of where the part usually is: then the head knows where
#   parts are in pictures of this kind, and not where this animal's are.
# - Chosen heads at chance, or no better than those of the untrained network, once only the animal's
#   pixels count: then they find the animal, not the part.
# - Another best head in every species: then no head stands for the part.
#
# {numref}`fig-part-scores` tests the first two and {numref}`fig-part-agreement` the third. With the
# default models, within the animal, no chosen head beats the fixed map, and only the body's beats its
# untrained rival. The third
# is mixed: the chosen heads are the best in more species than by chance, but hardly more often than
# those of the untrained network, and in most species another head is better.

# %% tags=["hide-input"]
if compared and within:
    numbers = summary.set_index(["score", *keys])[["mean", "low", "high"]]
    numbers = numbers.apply(lambda row: MeanInterval(*row), axis=1)
    own = {place[:3]: scores.average_precision.loc[place] for place in chosen.index}
    glue("main", names[0], display=False)
    glue("other", names[-1], display=False)
    glue("n_heads", total, display=False)
    glue("n_measured", len(labels), display=False)
    glue("n_chosen_on", len(others[names[0]]), display=False)
    glue("n_parts", len(inner), display=False)
    glue("main_grid", "{} x {}".format(*grid), display=False)
    for role, name in (("main", names[0]), ("prior", "location prior")):
        listed = [f"{part} {numbers['AP', name, 'picture', part].mean:.3f}" for part in inner]
        glue(f"{role}_parts", ", ".join(listed), display=False)
        glue(f"{role}_whole", str(numbers["AP", name, "picture", whole]), display=False)
    for role, name in (("main", names[0]), ("other", names[-1])):
        for region in regions:
            leads = [numbers["AP over the prior's", name, region, part] for part in inner]
            key = f"{role}_{'picture' if region == 'picture' else 'within'}"
            glue(f"{key}_better", sum(lead.low > 0 for lead in leads), display=False)
            glue(f"{key}_worse", sum(lead.high < 0 for lead in leads), display=False)
    learnt = [own[names[0], whole, part] - own[untrained.name, whole, part] for part in inner]
    glue("n_learnt", sum(mean_interval(gain).low > 0 for gain in learnt), display=False)
    at_layer = chosen.loc[names[0], "picture"].index.get_level_values("layer") == papers_layer(main)
    glue("n_at_layer", int(at_layer.sum()), display=False)
    glue("n_masks", len(parts), display=False)
    glue("papers_layer", papers_layer(main) + 1, display=False)
    found = agreement.query("model == @names[0] and within == 'picture' and mask == 'all parts'")
    for row in found.to_dict("records"):
        glue(f"agree_{row['pairs']}", f"{row['mean']:.2f}", display=False)

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
results, inner = [], [part for part in parts if part != whole] or parts
for name, region, mask, layer, head in chosen.index if parts else ():
    if (region, mask) == ("picture", whole):
        value = scores.average_precision.loc[name, region, mask, layer, head]
        results.append((name, f"AP of the head chosen for `{whole}`", *mean_interval(value)))
for name, region in product(systems, regions) if parts else ():
    places = [place for place in chosen.index if place[:2] == (name, region) and place[2] in inner]
    own = pd.concat([scores.loc[place].assign(prior=prior.loc[place[:3]]) for place in places])
    own = own.groupby("image").mean()  # over the masks of each picture
    lead = own.average_precision - own.prior
    of = f"heads chosen for parts, pixels of the {region}"
    results += [
        (name, f"{of}: AP", *mean_interval(own.average_precision)),
        (name, f"{of}: AP over the location prior's", *mean_interval(lead)),
        (name, f"{of}: IoU", *mean_interval(own.iou)),
    ]
save_results(results, output, "09-heads")
show_provenance("09-heads", parameters, models, data)
