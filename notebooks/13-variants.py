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
# # Which half of the design makes attention segment?
#
# **The claim.** A layer of CRATE differs from a layer of a ViT in both halves: MSSA in place of
# attention with separate queries, keys and values (MHSA), and ISTA in place of a two-layer MLP.
# {cite:t}`yu2024emergence` swap one half at a time and find that both matter: CRATE segments best, each
# hybrid less, the ViT least (their Table 2 and Fig. 13). A fifth network, CRATE-sth, has ISTA with a
# threshold on both sides in place of the ReLU.
#
# **What we find.** On {glue:text}`n_measured` pictures, the best head of the last layer but one has a
# mean IoU with the object of {glue:text}`ranking`. {glue:text}`attention_effect`
# {glue:text}`nonlinearity_effect` {glue:text}`interaction_effect` So here {glue:text}`attention_verdict`,
# and {glue:text}`nonlinearity_verdict`; the paper finds that both help. Networks that tell the species
# apart about equally well ({glue:text}`accuracies`) differ this much in where they look.
#
# {glue:text}`dino_finding`
#
# **How our setting differs.** Small networks on drawn animals, trained alike, **one run each**
# ({doc}`01-models-and-data`): the intervals are over pictures and say nothing of what another run
# would give, which {doc}`14-ablation` measures. Those trained by DINO saw fewer pictures than DINO
# needs, and no label. The detection scores of the supervised networks are in {doc}`11-detection`.

# %% tags=["parameters"]
models = [
    "crate-creatures",
    "crate-sth-creatures",
    "crate-mlp-creatures",
    "crate-mhsa-creatures",
    "vit-creatures",
    "crate-dino-creatures",
    "vit-dino-creatures",
]
dataset = "creatures"
n_images = 400
keep = 0.6
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(), models=list[str], dataset=str, n_images=int, keep=float, seed=int, output=str
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import list_models, load_dataset
from crate_analysis.datasets import read_samples
from crate_analysis.datasets.creatures import PARTS
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models
from crate_analysis.notebook import (
    check_pictures,
    save_figure,
    save_results,
    show_provenance,
    table,
)
from crate_analysis.plotting import (
    heat,
    interval_curves,
    interval_dots,
    model_colours,
    reference_line,
    sheet,
)
from crate_analysis.probes import collect
from crate_analysis.segmentation import Truth, attention_mask, baseline_iou

networks = load_models(models)
names = list(networks)
colours = model_colours(names)
pictures = {
    size: load_dataset(dataset, "val", size, n_images, seed)
    for size in dict.fromkeys(network.config.image_size for network in networks.values())
}
last_but_one = {name: max(0, len(network.layers) - 2) for name, network in networks.items()}

# %% tags=["hide-input"]
readers = {"attention": lambda state: state.attention()[:, :, 0, 1:]}
read = {size: read_samples(some) for size, some in pictures.items()}
samples, maps = {}, {}
for name, network in networks.items():
    samples[name] = read[network.config.image_size]
    grid = tuple(s // network.config.patch_size for s in samples[name][0].image.shape[1:])
    maps[name] = collect(network, samples[name], readers)["attention"].unflatten(-1, grid)
has_masks = all(any(len(sample.masks) for sample in some) for some in read.values())
if not has_masks:
    display(Markdown(f"`{dataset}` has no masks: the scores below are left out."))

# %% [markdown]
# ## The maps
#
# {numref}`fig-variants-heads` shows every head of the last layer but one on the first two pictures of
# the validation split, {numref}`fig-variants-mean` the mean over the heads on the first ten, so that no
# head had to be chosen.

# %% mystnb={"figure": {"caption": "Attention of `[CLS]` to the patches in the last layer but one, all heads, on the first two pictures of the validation split.", "name": "fig-variants-heads"}, "image": {"alt": "A sheet with one row a model: a picture and the maps of all heads, twice."}} tags=["hide-input"]
tiles, where, most = [], [], max(maps[name].shape[2] for name in names)
for name in names:
    line = []
    for index, sample in enumerate(samples[name][:2]):
        size, layer = samples[names[0]][index].image.shape[1:], last_but_one[name]
        heads = maps[name][index, layer].numpy()
        line.append(samples[names[0]][index].image.permute(1, 2, 0).numpy())
        line += [heat(head, size) for head in heads]
        line += [np.full((*size, 3), 255, np.uint8)] * (most - len(heads))
        where += [(name, layer, head, sample.path) for head in range(len(heads))]
    tiles.append(line)
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.4))
columns = (["picture"] + [f"head {head + 1}" for head in range(most)]) * 2
sheet(tiles, columns, [name.removesuffix("-creatures") for name in names], ax)
shown = pd.DataFrame(where, columns=["model", "layer", "head", "path"])
save_figure(figure, shown, output, "fig-variants-heads")

# %% mystnb={"figure": {"caption": "The same for the first ten pictures, the mean over the heads.", "name": "fig-variants-mean"}, "image": {"alt": "A sheet with pictures in the first row and, in one row a model, their attention maps."}} tags=["hide-input"]
first = samples[names[0]][:10]
tiles = [[sample.image.permute(1, 2, 0).numpy() for sample in first]]
for name in names:
    mean = maps[name][: len(first), last_but_one[name]].mean(1).numpy()
    tiles.append([heat(one, tiles[0][0].shape[:2]) for one in mean])
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0])))
sheet(tiles, rows=["picture"] + [name.removesuffix("-creatures") for name in names], ax=ax)
shown = pd.DataFrame({"path": [sample.path for sample in first]}).merge(
    pd.DataFrame({"model": names, "layer": [last_but_one[name] for name in names]}), how="cross"
)
save_figure(figure, shown, output, "fig-variants-mean")

# %% [markdown]
# ## How well they cover the object
#
# For each picture and object class the head whose mask (by mass) fits the truth best, the mean over
# classes and then over pictures, as in {doc}`07-segmentation`. {numref}`fig-variants-layers` has every
# layer. {numref}`fig-variants-iou` compares the networks twice: at the last layer but one, as the
# paper does for all of them, and at each network's own best layer, chosen on the first half of the
# pictures and scored on the second.

# %% tags=["hide-input"]
if has_masks:
    parts = []
    for name in names:
        truth = Truth(samples[name], range(len(samples[name])), tuple(maps[name].shape[-2:]))
        for layer in range(maps[name].shape[1]):
            part = truth.best_head_iou(attention_mask(maps[name][:, layer], keep), PARTS)
            parts.append(part.assign(model=name, layer=layer))
    objects = pd.concat(parts, ignore_index=True)
    main = networks[names[0]].config
    level = baseline_iou(samples[names[0]], main.patch_size, main.heads, keep, ("mass",), seed=seed)
    level = level[~level["mask"].isin(PARTS)].groupby(["model", "image", "mask"]).iou.max()
    level = level.groupby(["model", "image"]).mean().reset_index()
    check_pictures(objects.image.nunique())
    half = len(samples[names[0]]) / 2
    chosen = objects[objects.image < half].groupby(["model", "layer"]).iou.mean()
    chosen = {name: int(chosen[name].idxmax()) for name in names}

# %% mystnb={"figure": {"caption": "IoU of the best head with the object, by layer. Mean over pictures and its 95 % interval; dotted: a blob in the middle, and as many random maps.", "name": "fig-variants-layers"}, "image": {"alt": "Line plot of the best head's IoU against the layer for each model, with two reference levels."}} tags=["hide-input"]
if has_masks:
    by_layer = objects.groupby(["model", "layer"]).iou.apply(lambda v: mean_interval(v)._asdict())
    by_layer = by_layer.unstack().reset_index()
    figure, ax = plt.subplots(figsize=(7.5, 4.2))
    interval_curves(by_layer.assign(layer=by_layer.layer + 1), colours, "layer", ax=ax)
    for name, value in level.groupby("model").iou.mean().items():
        if name != "patch ceiling":
            reference_line(value, name, ax)
    ax.set(ylabel="IoU of the best head", ylim=(0, None))
    ax.legend(frameon=False, ncols=2, fontsize="small")
    save_figure(figure, by_layer, output, "fig-variants-layers")

# %% tags=["hide-input"]
if has_masks:
    rows = []
    for place, layers in (("last layer but one", last_but_one), ("best layer", chosen)):
        for name in names:
            mine = objects[(objects.model == name) & (objects.layer == layers[name])]
            scored = mine if layers is last_but_one else mine[mine.image >= half]
            rows.append((place, name, name, layers[name], *mean_interval(scored.iou)))
        for name, mine in level.groupby("model"):
            rows.append((place, name, name, -1, *mean_interval(mine.iou)))
    columns = ["place", "label", "model", "layer", "mean", "low", "high"]
    scores = pd.DataFrame(rows, columns=columns)

# %% mystnb={"figure": {"caption": "Mean IoU of the best head with the object and its 95 % interval over pictures: at the last layer but one (left), and at the layer that was best on other pictures (right).", "name": "fig-variants-iou"}, "image": {"alt": "Two dot plots of mean IoU with confidence intervals for each model and baseline."}} tags=["hide-input"]
if has_masks:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for ax, (place, part) in zip(panels, scores.groupby("place", sort=False), strict=True):
        interval_dots(part, colours, xlabel=f"mean IoU, {place}", ax=ax)
    save_figure(figure, scores, output, "fig-variants-iou")

# %% [markdown]
# ## Two factors
#
# Four of the networks are the cells of a two-by-two experiment: which attention, which nonlinearity.
# The table has our IoU at the last layer but one beside **the paper's** mIoU on PASCAL VOC 2012 (in %,
# another scale and other data). An effect is the mean change, picture by picture, when one part is
# put in and the other kept; the interaction says how much more MSSA brings beside ISTA than beside an
# MLP.

# %% tags=["hide-input"]
PAPER = {
    ("mssa", "ista"): 23.9,
    ("mssa", "mlp"): 22.0,
    ("mhsa", "ista"): 18.4,
    ("mhsa", "mlp"): 14.1,
}
cells = {}
for name, network in networks.items():
    cell = (network.config.attention, network.config.nonlinearity)
    if cell in PAPER and cell not in cells and network.config.num_classes:
        cells[cell] = name
if has_masks and len(cells) == len(PAPER):
    by_picture = {
        cell: objects[(objects.model == name) & (objects.layer == last_but_one[name])]
        .set_index("image")
        .iou
        for cell, name in cells.items()
    }
    accuracy = list_models().set_index("name")["validation accuracy"]
    rows = [
        {
            "attention": attention.upper(),
            "nonlinearity": nonlinearity.upper(),
            "model": cells[attention, nonlinearity],
            "accuracy": accuracy.get(cells[attention, nonlinearity]),
            "our IoU": mean_interval(by_picture[attention, nonlinearity]),
            "the paper's mIoU, VOC (%)": value,
        }
        for (attention, nonlinearity), value in PAPER.items()
    ]
    formats = {"accuracy": "{:.1%}", "the paper's mIoU, VOC (%)": "{:.1f}"}
    display(table(pd.DataFrame(rows).set_index("attention"), formats, missing="–"))
else:
    display(Markdown("Not all four networks, or no masks, are given: no effects to compute."))

# %% tags=["hide-input"]
if has_masks and len(cells) == len(PAPER):
    crate, crate_mlp, crate_mhsa, vit = (by_picture[cell] for cell in PAPER)
    effects = {
        "MSSA for MHSA, beside ISTA": crate - crate_mhsa,
        "MSSA for MHSA, beside an MLP": crate_mlp - vit,
        "ISTA for an MLP, beside MSSA": crate - crate_mlp,
        "ISTA for an MLP, beside MHSA": crate_mhsa - vit,
        "both for both": crate - vit,
        "interaction": crate - crate_mlp - crate_mhsa + vit,
    }
    effects = pd.DataFrame(
        [(label, label, *mean_interval(change)) for label, change in effects.items()],
        columns=["label", "model", "mean", "low", "high"],
    )

# %% mystnb={"figure": {"caption": "What each swap does to the IoU of the best head, last layer but one: mean over pictures of the change in the same picture, with its 95 % interval.", "name": "fig-variants-effects"}, "image": {"alt": "Dot plot of the effects of attention and nonlinearity and of their interaction, with confidence intervals."}} tags=["hide-input"]
if has_masks and len(cells) == len(PAPER):
    figure, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    interval_dots(effects, {}, xlabel="change in IoU", ax=ax)
    save_figure(figure, effects, output, "fig-variants-effects")

# %% [markdown]
# {numref}`fig-variants-effects` has the effects. One run a network means that they mix what the part
# does with what the seed did; an interval that excludes zero says that *these* networks differ on
# pictures of this kind, not that another pair would. {doc}`14-ablation` repeats the runs.
#
# ## With labels or without
#
# In the paper a ViT's attention segments when DINO trains it, without labels (an mIoU of 27.0 on VOC,
# against 14.1 with labels). Nobody shows CRATE trained that way. The last two rows of the figures above
# are both backbones after DINO's recipe. {glue:text}`dino_finding` Self-distillation here learns what two
# crops of a picture share, and that is the scenery, drawn independently of the animal, as much as the
# animal; their accuracy in {doc}`01-models-and-data` tells how little of the species they hold.

# %% tags=["hide-input"]
if has_masks:
    left = scores[(scores.place == "last layer but one") & scores.model.isin(names)]
    left = left.sort_values("mean", ascending=False)
    ranking = [
        f"{MeanInterval(row.mean_, row.low, row.high)} for {row.model}"
        for row in left.rename(columns={"mean": "mean_"}).itertuples()
    ]
    glue("ranking", ", ".join(ranking), display=False)
    glue("n_measured", len(samples[names[0]]), display=False)
if has_masks and len(cells) == len(PAPER):
    found = effects.set_index("label")[["mean", "low", "high"]]
    found = {label: str(MeanInterval(*row)) for label, row in found.iterrows()}
    glue(
        "attention_effect",
        f"MSSA in place of MHSA changes it by {found['MSSA for MHSA, beside ISTA']} beside ISTA "
        f"and by {found['MSSA for MHSA, beside an MLP']} beside an MLP.",
        display=False,
    )
    glue(
        "nonlinearity_effect",
        f"ISTA in place of an MLP changes it by {found['ISTA for an MLP, beside MSSA']} beside "
        f"MSSA and by {found['ISTA for an MLP, beside MHSA']} beside MHSA.",
        display=False,
    )
    for role, part, pair in (
        ("attention", "MSSA", ("MSSA for MHSA, beside ISTA", "MSSA for MHSA, beside an MLP")),
        ("nonlinearity", "ISTA", ("ISTA for an MLP, beside MSSA", "ISTA for an MLP, beside MHSA")),
    ):
        helps = effects.set_index("label").low[list(pair)] > 0
        verdict = {2: "helps beside either partner", 1: "helps beside one partner only"}
        verdict = f"{part} {verdict.get(helps.sum(), 'helps beside neither partner')}"
        glue(f"{role}_verdict", verdict, display=False)
    glue("interaction_effect", f"The interaction is {found['interaction']}.", display=False)
    classifiers = [name for name in names if networks[name].config.num_classes]
    known = accuracy.reindex(classifiers).dropna()
    glue("accuracies", f"{known.min():.1%} to {known.max():.1%} of val pictures", display=False)

# %% tags=["hide-input"]
pairs = [(name, name.replace("-dino", "")) for name in names if name.replace("-dino", "") in names]
at_end = {
    name: objects[(objects.model == name) & (objects.layer == last_but_one[name])]
    .set_index("image")
    .iou
    for pair in pairs
    for name in pair
    if has_masks
}
told = [
    f"{mean_interval(at_end[dino] - at_end[labels])} for {labels.removesuffix('-creatures')}"
    for dino, labels in pairs
    if has_masks and dino != labels
]
if told:
    text = f"DINO in place of labels changes the IoU by {' and by '.join(told)}."
    glue("dino_finding", text, display=False)

# %% [markdown]
# ## What would have disproved the claim
#
# - A ViT, or a hybrid, that covers the object as well as CRATE: then the swapped half would not be
#   needed.
# - Effects of both swaps whose intervals hold zero: then the design would not matter here.
# - Differences that vanish at each network's own best layer: then the swap would have moved the
#   phenomenon to another layer, not made it.
#
# {numref}`fig-variants-iou` and {numref}`fig-variants-effects` are these tests.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
results, columns = [], ["model", "quantity", "mean", "low", "high"]
if has_masks:
    results += scores.assign(quantity="best-head IoU, " + scores.place)[columns].values.tolist()
    if len(cells) == len(PAPER):
        swaps = effects.assign(model="four supervised networks", quantity="IoU: " + effects.label)
        results += swaps[columns].values.tolist()
    for dino, labels in pairs:
        if dino != labels:
            change = mean_interval(at_end[dino] - at_end[labels])
            results.append((dino, "IoU: DINO for labels", *change))
save_results(results, output, "13-variants")
show_provenance("13-variants", parameters, models, pictures.values())
