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
# # Does attention segment?
#
# **The claim.** The `[CLS]` token of a CRATE that was trained only to classify is said to attend to
# the object in the image, so that the best head's map is a fair mask of it, and a ViT trained the
# same way is said not to get there
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 4).
#
# **The test.** A map of attention becomes a mask; the mask is compared with the true one by the
# intersection over union (IoU). The best of several heads is picked with the truth in hand, so its
# score is read beside rivals that had the same choice and never saw the image.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 400
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
rules: list[str] = ["mass", "entries"]  # how a map becomes a mask; the first gives the headline
keep: float = 0.6  # the share of the attention, or of the patches, that a mask keeps
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import cross_fit, mean_interval
from crate_analysis.plotting import (
    heat,
    interval_dots,
    layer_curves,
    overlay,
    reference_line,
    sheet,
)
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import (
    Scoring,
    attention_mask,
    best_heads,
    head_iou,
    image_specific,
    scores_with_rivals,
    to_pixels,
)
from crate_analysis.study import Finding, Study

study = Study(globals(), "07-segmentation")

# %% [markdown]
# [Figure 1](#fig-heads) shows what is measured: the attention of `[CLS]` to the patches, for every
# head, on the first images of the validation split and not on the best ones. In JupyterLab, controls
# above the figure choose other images and another layer.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]` to the patches, all heads of each network. Dark is no attention, bright "
    "is the head's largest.",
    alt="Images of animals, each followed by the attention maps of all heads of each network.",
    pick={"first_image": study.starts(6), "layer": study.layer_choices},
)
def heads(first_image=0, layer=None):
    """The maps of six images."""
    shown = study.indices(6, first_image)
    tiles = [[image] for image in study.networks[0].pixels(shown)]
    groups, columns, rows = {"": 1}, ["image"], []
    for network in study.networks:
        read = network.layer if layer is None else layer
        maps = cls_attention(network.model, network.inputs(shown), read).cpu().numpy()
        for line, own in zip(tiles, maps, strict=True):
            line += [heat(one, line[0].shape[:2]) for one in own]
        groups[f"{network.label}, layer {read + 1}"] = maps.shape[1]
        columns += [f"head {head + 1}" for head in range(maps.shape[1])]
        rows += [(network.label, read + 1, index) for index in shown]
    _, ax = plt.subplots(figsize=(10, 7))
    sheet(tiles, columns, groups=groups, ax=ax)
    return pd.DataFrame(rows, columns=["model", "layer", "image"])


# %% [markdown]
# ## The measurement
#
# Every head of every layer is scored against every true mask of every image, in the networks and in
# their twins before training, with rivals that have as many maps to choose from and never saw the
# image.

# %%
scoring = Scoring(keep, rules, values=("iou",))
scores = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        network.train_images,
        scoring,
        rivals=study.rivals,
        seed=seed,
        reading=study.reading,
    ).query("not is_part"),
    untrained=True,
    needs="masks",
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
best = best_heads(scores) if len(scores) else scores
specific = image_specific(best) if len(scores) else scores

# %% [markdown]
# The rivals are the network's own maps of *other images*; *k-means masks*, as many mean masks of the
# training split as there are heads; the *mean mask* of all of them; *random maps*, as many as there
# are heads; and, as the most that is possible, the *patch ceiling*: the truth rounded to patches.
# What the best head scores beyond the network's maps of other images is **image-specific**: only
# this part can come from looking at the image.
#
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "{main} {main[image-specific IoU]:looks at|looks away from|cannot be said to look at} the "
    "object in the image: {main[image-specific IoU].mean:.3f} of its best head's IoU of "
    "{main[best-head IoU].mean:.3f} is image-specific.",
    "As many k-means masks, the same for every image, score "
    "{main[IoU of k-means masks].mean:.3f}, so the IoU alone says little.",
    "Before training the image-specific part is {main[image-specific IoU, untrained]}.",
    "In {other} it is {other[image-specific IoU]}; image by image, that of {main} is "
    "{main[image-specific IoU, difference]:larger|smaller|not clearly different} "
    "({main[image-specific IoU, difference]}).",
    needs="masks",
)
def findings():
    """At the layer that is read, by the first rule."""
    own = study.at_layer(specific[specific.rule == rules[0]]).set_index("image")
    for network in study.networks:
        name = network.label
        of = own[own.model == name]
        trained, twin = (of[of.weights == weights] for weights in ("trained", "untrained"))
        rivals = best[(best.model == name) & (best.weights == "trained") & (best.rule == rules[0])]
        yield Finding(name, "best-head IoU", trained.iou)
        for rival in ("k-means masks", "mean mask", "random maps", "patch ceiling"):
            yield Finding(name, f"IoU of {rival}", rivals[rivals["maps"] == rival].iou)
        yield Finding(name, "IoU of its maps of other images", trained.others)
        claim = "segmentation" if name == study.labels[0] else ""
        yield Finding(name, "image-specific IoU", trained.image_specific, claim)
        yield Finding(name, "image-specific IoU, untrained", twin.image_specific)
    main, *_, last = (own[own.model == name] for name in [study.labels[0], *study.labels])
    if len(study.labels) > 1:
        difference = main.query("weights == 'trained'").image_specific.sub(
            last.query("weights == 'trained'").image_specific
        )
        name = "image-specific IoU, difference"
        yield Finding(study.labels[0], name, difference.dropna(), "segmentation")
    for name in study.labels:
        layers = specific[(specific.model == name) & (specific.weights == "trained")]
        chosen = cross_fit(layers[layers.rule == rules[0]], "layer", "image_specific")
        yield Finding(name, "image-specific IoU, best layer", chosen.image_specific)


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs. *Best layer* is
# chosen on half of the images and scored on the other half, both ways.
#
# ## Where in the network
#
# [Figure 2](#fig-iou-by-layer) shows the best head's IoU for every layer, and how much of it is
# image-specific.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Left: IoU of the best head by layer, with the rivals that do not look at the image as dotted "
    "levels. Right: the image-specific part. Mean and one standard deviation over images.",
    alt="Two line plots against the layer, each with a curve for each network, trained and not.",
    needs="masks",
)
def iou_by_layer():
    """Both values, trained and not."""
    rows = specific[specific.rule == rules[0]]
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    style = {"style": "weights", "styles": ["trained", "untrained"]}
    for ax, value in zip(axes, ("iou", "image_specific"), strict=True):
        layer_curves(rows.assign(value=rows[value]), study.colours, **style, ax=ax)
    axes[0].set_ylabel("IoU of the best head")
    axes[1].set_ylabel("image-specific IoU")
    levels = best[(best.model == study.labels[0]) & (best.rule == rules[0]) & (best.layer < 0)]
    for name in ("k-means masks", "mean mask", "random maps"):
        reference_line(levels[levels["maps"] == name].iou.mean(), name, axes[0])
    return rows


# %% [markdown]
# ## From a map to a mask
#
# There are two readings of the paper's *60 %*: its text keeps 60 % of the patches (*entries*), the
# DINO code that it refers to keeps the patches that hold 60 % of the attention (*mass*).
# [Figure 3](#fig-masks) shows both on five images at fixed ranks of the first network's IoU, and
# [Figure 4](#fig-iou) what they score.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Masks of the best head by each rule, on five images: in the order of the first network's IoU, "
    "the best image, the quartiles and the worst.",
    alt="Five images, their true masks, and each network's best head's masks by each rule.",
    needs="masks",
)
def masks():
    """The best head's masks."""
    main = study.networks[0]
    own = study.at_layer(specific).query(
        "model == @main.label and weights == 'trained' and rule == @rules[0]"
    )
    order = own.sort_values("iou", ascending=False).image
    chosen = [int(order.iloc[round(q * (len(order) - 1))]) for q in (0, 0.25, 0.5, 0.75, 1)]
    images, samples = main.pixels(chosen), main.samples(chosen)
    truth = [overlay(i, s.masks[0].numpy()) for i, s in zip(images, samples, strict=True)]
    tiles, labels = [images, truth], ["image", "truth"]
    for network in study.networks:
        attention = cls_attention(network.model, network.inputs(chosen), network.layer).cpu()
        for rule in rules:
            cut = attention_mask(attention, keep, rule)
            line = []
            for one, sample, image in zip(cut, network.samples(chosen), images, strict=True):
                pixels = to_pixels(one[None], *sample.image.shape[1:])
                found = head_iou(pixels, sample.masks[None, :1], sample.ignored[None])
                line.append(overlay(image, one[found.flatten().argmax()].numpy()))
            tiles.append(line)
            labels.append(f"{network.label}\n{rule}")
    _, ax = plt.subplots(figsize=(8, 9.2))
    sheet(tiles, ["best", "upper quartile", "median", "lower quartile", "worst"], labels, ax=ax)
    return own[own.image.isin(chosen)]


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "IoU of the best head at the layer that is read, by each rule: mean and 95 % interval over "
    "images. In grey, the rivals.",
    alt="For each rule a dot with its interval for each network, its untrained twin and rivals.",
    needs="masks",
)
def iou():
    """Networks, twins and rivals."""
    rows = []
    for (model, weights, maps, rule), part in study.at_layer(best).groupby(
        ["model", "weights", "maps", "rule"], sort=False
    ):
        if maps == "own":
            label = model if weights == "trained" else f"{model}, untrained"
            rows.append((rule, label, model, *mean_interval(part.iou)))
        elif maps == "other images" and weights == "trained":
            rows.append((rule, f"{model}, other images", "", *mean_interval(part.iou)))
        elif maps != "location prior" and (model, weights) == (study.labels[0], "trained"):
            rows.append((rule, maps, "", *mean_interval(part.iou)))
    frame = pd.DataFrame(rows, columns=["rule", "label", "model", "mean", "low", "high"])
    _, panels = plt.subplots(
        1, len(rules), figsize=(10, 0.38 * len(frame) / len(rules) + 1),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax, (rule, part) in zip(panels[0], frame.groupby("rule", sort=False), strict=True):
        interval_dots(part, study.colours, xlabel=f"mean IoU, {keep:.0%} of {rule}", ax=ax)
    return frame


# %% [markdown]
# ## Without looking at the truth
#
# A user has no masks to pick a head with. [Table 1](#tab-fixed-head) fixes one head of all layers,
# chosen on half of the images and scored on the other half, both ways.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "One head for all images, chosen on the other half of them; mean IoU with 95 % interval.",
    needs="masks",
)
def fixed_head():
    """Chosen among all heads of all layers."""
    rows = []
    for name in study.labels:
        own = scores.query("model == @name and weights == 'trained' and maps == 'own'")
        chosen = cross_fit(own[own.rule == rules[0]], ["layer", "head"])
        picks = chosen.groupby("half")[["layer", "head"]].first() + 1
        heads = ", ".join(f"layer {row.layer} head {row.head}" for row in picks.itertuples())
        rows.append((name, heads, str(mean_interval(chosen.iou))))
    return pd.DataFrame(rows, columns=["network", "head, by half", "IoU"])


# %% [markdown]
# ## The paper's numbers
#
# These are **the paper's**, on PASCAL VOC 2012 val (1,449 photographs, mean over classes, then
# images), for its own networks. Only what was measured on the same photographs can be put beside
# them: `params/voc12.yml` holds the parameters for that, to be given with a released checkpoint.
#
# | network, patch 8 | training | mIoU (%) |
# | --- | --- | --- |
# | CRATE-S | supervised | 23.9 |
# | CRATE-B | supervised | 23.6 |
# | ViT-S | supervised | 14.1 |
# | ViT-B | supervised | 19.2 |
# | ViT-S | DINO | 27.0 |
# | ViT-B | DINO | 27.3 |
#
# *Source: [Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 4. Not measured by us.*
#
# ## How our setting differs
#
# The paper trains on ImageNet-21k with 784 patches an image and measures on photographs. The networks
# shipped with this book are small and were trained on drawn animals with exact masks
# ([Models and data](01-models-and-data.ipynb)).
#
# ## What would have disproved the claim
#
# - An image-specific part of CRATE that is not above 0, or not above that of its weights before
#   training: then its maps would say nothing of this image's object.
# - A ViT with as large an image-specific part, at its own best layer too: then the design would not
#   be what matters.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
