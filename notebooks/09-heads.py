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
# # Does a head stand for a part?
#
# **The claim.** Four heads of a CRATE, chosen by eye, are shown on several animals: one lights up on
# legs, one on bodies, one on faces, one on ears, whatever the animal. They are read as parts that
# emerge without being taught ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 7).
#
# **The test.** For each part we take the head that ranks the part's pixels best on half of the images
# and score it on the other half, both ways. It has to beat a fixed map of where the part usually is, and
# the network's own maps of other images. Within the object only the object's pixels count, so that to
# have found the object is no merit in finding its legs.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 200
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.measures import cross_fit, interval_frame, mean_interval
from crate_analysis.plotting import group_dots, head_grid, heat, outlines, sheet
from crate_analysis.probes import collect
from crate_analysis.segmentation import (
    Scoring,
    agreement_intervals,
    image_specific,
    scores_with_rivals,
)
from crate_analysis.study import Finding, Study

study = Study(globals(), "09-heads")

# %% [markdown]
# ## The measurement
#
# A head's **average precision** (AP) for a part is that of a detector: go through the pixels from the
# brightest patch to the darkest and average, over the part's pixels, the share of the part among all
# pixels passed so far. It is 1 for a map that ranks all of the part first, and needs no rule that turns
# a map into a mask. Every head of every layer is scored, and its rivals by the same code: the *location
# prior*, the mean mask of the part over training images; the network's maps of *other images*; *random
# maps*; and the *patch ceiling*, how much of each patch the part covers.

# %%
scoring = Scoring(within=("image", "object"), values=("average_precision",))
rivals = ["other images", "location prior", "random maps", "patch ceiling"]
scores = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        network.train_images,
        scoring,
        rivals=rivals,
        draws=2,
        seed=seed,
        reading=study.reading,
    ),
    untrained=True,
    needs=("parts", "train"),
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
AP = "average_precision"
place = ["model", "weights", "within", "mask"]
if len(scores):
    own = image_specific(scores, AP)
    chosen = cross_fit(own, ["layer", "head"], AP, by=["mask"])
    fixed = scores[~scores["maps"].isin(["own", "other images"])]
    fixed = fixed.groupby([*place, "maps", "image"])[AP].mean().unstack("maps")
    chosen = chosen.merge(fixed.reset_index(), on=[*place, "image"])
    chosen["over the prior"] = chosen[AP] - chosen["location prior"]
    shown = own.groupby("mask").share.mean().sort_values(ascending=False)
    wholes = list(own[~own.is_part]["mask"].unique())
    parts = [mask for mask in shown.index if mask in set(own[own.is_part]["mask"])]
else:
    own, chosen, wholes, parts = scores, scores, [], []

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Within the object, the heads of {main} beat the map of where a part usually is by "
    "{main[all parts, within the object: over the location prior]} in average precision, mean over "
    "parts: they {main[all parts, within the object: over the location prior]:find parts|do not find "
    "parts|cannot be told to find parts}.",
    "Of their score {main[all parts, within the object: image-specific].mean:.3f} is image-specific, "
    "before training {main[all parts, within the object: image-specific, untrained].mean:.3f}.",
    "In {other} the heads lie {other[all parts, within the object: over the location prior].mean:.3f} "
    "from the prior, with an image-specific part of "
    "{other[all parts, within the object: image-specific].mean:.3f}.",
    needs=scores,
)
def findings():
    """One value an image; the mean over its parts first."""
    of_parts = chosen[chosen["mask"].isin(parts) & (chosen.within == "object")]
    for label in study.labels:
        claim = "semantic-heads" if label == study.labels[0] else ""
        for weights, ending in (("trained", ""), ("untrained", ", untrained")):
            rows = of_parts[(of_parts.model == label) & (of_parts.weights == weights)]
            mean = rows.groupby("image")[["over the prior", "image_specific"]].mean()
            of = "all parts, within the object: "
            decides = claim if weights == "trained" else ""
            name = f"{of}over the location prior{ending}"
            yield Finding(label, name, mean["over the prior"], decides)
            yield Finding(label, f"{of}image-specific{ending}", mean.image_specific)
        trained = of_parts[(of_parts.model == label) & (of_parts.weights == "trained")]
        for mask, rows in trained.groupby("mask"):
            yield Finding(label, f"{mask}: over the prior", rows["over the prior"], claim)


# %% [markdown]
# Intervals are over images: they speak of these networks. Heads are chosen among all layers; the paper
# shows heads of the last layer but one and does not say how they were chosen.
#
# ## Every head and every part
#
# [Figure 1](#fig-grid) shows all heads of all layers, within the object. To set parts of different sizes
# side by side, a score is given as the share of the way from chance, the random map, to the patch
# ceiling: 0 is chance and 100 about the best that a map of patches can do. Frames mark the head that is
# best for the part.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Average precision of every head for every part within the object, in hundredths of the way from "
    "a random map (0) to the patch ceiling (100); mean over images. Framed: the best head for the part.",
    alt="For each network a heat map with a row for each head and a column for each part.",
    needs=scores,
)
def grid():
    """A panel for each network."""
    rows = own[(own.weights == "trained") & (own.within == "object")]
    means = rows.groupby(["model", "layer", "head", "mask"])[AP].mean()
    levels = chosen[(chosen.weights == "trained") & (chosen.within == "object")]
    levels = levels.groupby(["model", "mask"])[["random maps", "patch ceiling"]].mean()
    heads = max(len(n.model.layers) * n.model.config.heads for n in study.networks)
    _, axes = plt.subplots(
        1, len(study.labels), squeeze=False, layout="constrained",
        figsize=(1.5 + 4 * len(study.labels), 1 + min(10, 0.22 * heads)),
    )  # fmt: skip
    frames = []
    for ax, label in zip(axes[0], study.labels, strict=True):
        table = means[label].unstack()[parts]
        low, high = (levels.loc[label][name].reindex(parts) for name in levels)
        gain = (table - low) / (high - low)
        head_grid(gain, table.eq(table.max()), 0.8, ax)
        ax.set_title(label, fontsize="medium", color=study.colours[label])
        frames.append(gain.stack().rename("gain").reset_index().assign(model=label))
    return pd.concat(frames)


# %% [markdown]
# ## The chosen heads and their rivals
#
# [Figure 2](#fig-chosen-heads) is the sharp test. A head that ends right of the location prior knows
# where *this* animal's part is; one that ends left of it knows less than a map that never saw the image.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Average precision of the head chosen for each part on the other half of the images (dots, with "
    "95 % intervals over images), and of its rivals (lines). Left: all pixels count. Right: only the "
    "object's pixels.",
    alt="Two dot plots of average precision for each part, with reference levels.",
    needs=scores,
)
def chosen_heads():
    """Networks, the first one's twin, and levels."""
    names = {**study.colours, f"{study.labels[0]}, untrained": "0.7"}
    label = chosen.model.where(chosen.weights == "trained", chosen.model + ", untrained")
    rows = chosen.assign(label=label, group=chosen["mask"])
    rows = rows[rows.label.isin(names)]
    _, axes = plt.subplots(1, 2, figsize=(10, 1.8 + 0.5 * (len(parts) + 1)), layout="constrained")
    frames = []
    for ax, within in zip(axes, ("image", "object"), strict=True):
        part = rows[rows.within == within]
        groups = [mask for mask in (*wholes, *parts) if mask in set(part["mask"])]
        dots = (
            interval_frame(part, AP, ["group", "label"])
            .set_index("group")
            .loc[groups]
            .reset_index()
        )
        levels = part[part.model == study.labels[0]].groupby("mask")
        levels = levels[["random maps", "location prior", "patch ceiling"]].mean().loc[groups]
        what = "" if within == "image" else " within the object"
        group_dots(dots, names, levels, f"average precision{what}", ax)
        ax.set_xlim(0, 1)
        frames.append(dots.assign(within=within))
    handles = axes[0].get_legend_handles_labels()
    plt.gcf().legend(*handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return pd.concat(frames)


# %% [markdown]
# ## The paper's figure, by a rule
#
# [Figure 3](#fig-gallery) is the paper's Fig. 7 made by rule: the best head for each part, on the first
# image of each class. The outline is the part, so that you can judge whether the light falls inside it.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The best head for each part (layer.head, counted from 1), on the first image of each class. Each "
    "map from 0 (dark) to its own maximum (bright); the outline is the part.",
    alt="A sheet of images, and below each the map of the best head for each part, with its outline.",
    needs=scores,
    pick={"network": study.labels},
)
def gallery(network=study.labels[0]):
    """A row for each part."""
    one = next(n for n in study.networks if n.label == network)
    samples = one.samples(range(len(one.images)))
    labels = [sample.label for sample in samples]
    columns = [labels.index(label) for label in dict.fromkeys(labels)][:12]
    if None in labels:
        columns = list(range(min(12, len(samples))))
    shown_samples = [samples[index] for index in columns]
    size = shown_samples[0].image.shape[1:]
    readers = {"attention": lambda s: s.attention()[:, :, 0, one.model.patches]}
    maps = collect(one.model, shown_samples, readers)["attention"]
    patch = one.model.config.patch_size
    maps = maps.unflatten(-1, [side // patch for side in size]).numpy()
    rows = own[(own.model == network) & (own.weights == "trained") & (own.within == "object")]
    best = rows.groupby(["mask", "layer", "head"])[AP].mean().unstack("mask").idxmax()
    tiles = [[sample.image.permute(1, 2, 0).numpy() for sample in shown_samples]]
    edges, names = [[None] * len(columns)], ["image"]
    for part in parts[:8]:
        layer, head = best[part]
        tiles.append([heat(one_map[layer, head], size) for one_map in maps])
        planes = [dict(zip(s.mask_names, s.masks.numpy(), strict=True)) for s in shown_samples]
        edges.append([plane.get(part) for plane in planes])
        names.append(f"{part}\n{layer + 1}.{head + 1}")
    _, ax = plt.subplots(figsize=(1 + 0.8 * len(columns), 0.5 + 0.8 * len(tiles)))
    sheet(tiles, [], names, ax)
    outlines(edges, ax=ax)
    return best[parts[:8]].apply(pd.Series).set_axis(["layer", "head"], axis=1).reset_index()


# %% [markdown]
# ## From class to class
#
# If a head stands for a part, it does so in every class. So within each class we rank all heads by
# their average precision for the part, and ask how far the rankings agree (Spearman's rank correlation).
# A ranking from a few images is noisy: [Table 1](#tab-agreement) shows beside it how far it repeats on
# *other images of the same class*, which is the most to hope for.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Agreement of the heads' rankings, mean rank correlation over parts with its 95 % interval over "
    "images. 0 is chance.",
    needs=("parts", "labels", "train"),
)
def agreement():
    """Same class on other images, and two classes."""
    samples = study.networks[0].samples(range(len(study.networks[0].images)))
    classes = np.array([sample.label for sample in samples])
    kinds, counts = np.unique(classes, return_counts=True)
    if len(kinds) < 2 or counts.min() < 4:
        return pd.DataFrame({"note": ["too few images of each class to compare classes"]})
    same = np.eye(len(kinds), dtype=bool)
    rows = []
    for (model, weights), found in own[own.within == "object"].groupby(["model", "weights"]):
        wide = [
            found[found["mask"] == part].pivot_table(
                index="image", columns=["layer", "head"], values=AP
            ).reindex(range(len(samples)))
            for part in parts
        ]  # fmt: skip
        pairs = {"same class, other images": same, "two classes": ~same}
        found = agreement_intervals(np.stack(wide), classes, pairs, seed=seed).set_index("pairs")
        texts = {
            name: str(type(mean_interval([0, 1]))(*found.loc[name, ["mean", "low", "high"]]))
            for name in pairs
        }
        rows.append({"network": model, "weights": weights, **texts})
    return pd.DataFrame(rows)


# %% [markdown]
# ## How our setting differs
#
# The paper shows heads picked by eye, of networks with 6 heads and 784 patches, on photographs. Our
# networks are small, and our animals are seen from the side, where a fixed map of the legs is a strong
# rival ([Models and data](01-models-and-data.ipynb)). These networks were asked for species, which the
# coat alone tells. Whether heads stand for parts in a network that *is* asked for parts is in
# [What the labels ask for](17-labels.ipynb); that these measures find part heads where there are some, in
# [Would we see it?](21-positive-control.ipynb).
#
# ## What would have disproved the claim
#
# - Chosen heads no better than a fixed map of where the part usually is.
# - Chosen heads that are as good on maps of other images, or before training.
# - Another best head in every class: then no head stands for the part.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
