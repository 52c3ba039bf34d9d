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
# # Artifact tokens
#
# **The rival explanation.** The attention of a ViT scatters over an image. That need not be for want of
# white-box layers: in large ViTs, DINOv2's among them, a few patches of even regions take on a norm many
# times that of the others, hold no content of their own, and draw the attention of `[CLS]`; with register
# tokens they vanish and the maps become clean
# ([Darcet et al. 2024](../book/bibliography.md#darcet2024registers)). If such artifacts scatter our ViT's
# maps, masking them must mend what its attention segments.
#
# **The test.** An outlier is a patch whose token, as a layer hands it on, is longer than `factor` times
# the median of its image. How many are there, and how much attention falls on them?
# And, whether or not there are any, what is the IoU of the best head with the longest tokens' attention
# taken out, beside that of as many random patches?

# %% tags=["parameters"]
models: list[str] = [
    "vit-creatures",
    "crate-creatures",
    "saliency-vits14",
]  # suspect, reference, more
dataset: str = "creatures"
n_images: int = 48
image_size: "dict[str, int] or int or None" = {"saliency-vits14": 224}  # a side; others: their own
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
factor: float = 3.0  # from how many times the median norm on a patch is an outlier
longest: float = 0.02  # the share of patches, by norm, whose attention is taken out
keep: float = 0.6  # the share of the attention that a mask keeps
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import interval_frame, mean_interval
from crate_analysis.plotting import heat, interval_curves, overlay, sheet
from crate_analysis.probes import artifact_frame, cls_maps, collect, outlier_patches
from crate_analysis.segmentation import TREATMENTS, masked_iou
from crate_analysis.study import Finding, Study
from crate_analysis.walk import check_layer

study = Study(globals(), "23-artifacts")

# %% [markdown]
# [Figure 1](#fig-norms) shows norms beside attention, on the first images.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "For each network, at the layer that is read: the norm of each patch token, from 0 (dark) to the "
    "image's largest (bright); the attention of `[CLS]`, mean over heads; in red, outliers.",
    alt="Images, each followed by the norms, the attention and the outliers of each network.",
    pick={"first_image": study.starts(4), "layer": study.layer_choices},
)
def norms(first_image=0, layer=None):
    """Four images."""
    shown = study.indices(4, first_image)
    tiles = [[image] for image in study.networks[0].pixels(shown)]
    groups, columns, rows = {"": 1}, ["image"], []
    for network in study.networks:
        read = network.layer if layer is None else layer
        side = network.model.config.patch_size
        images = network.samples(shown)
        grid = tuple(length // side for length in images[0].image.shape[1:])
        readers = {
            "tokens": lambda state: state.output[:, state.patches],
            "maps": lambda state, grid=grid: cls_maps(state.attention(), grid).mean(1),
        }
        seen = collect(network.model, images, readers, [check_layer(network.model, read)])
        tokens, maps = (seen[name][:, 0] for name in readers)
        outliers = outlier_patches(tokens, factor).unflatten(-1, grid).numpy()
        lengths = tokens.norm(dim=-1).unflatten(-1, grid).numpy()
        for line, length, one, found in zip(tiles, lengths, maps.numpy(), outliers, strict=True):
            size = line[0].shape[:2]
            line += [heat(length, size), heat(one, size), overlay(line[0], found)]
        groups[f"{network.label}, layer {read + 1}"] = 3
        columns += ["norm", "attention", "outliers"]
        counts = outliers.sum((1, 2)).tolist()
        rows += [(network.label, read + 1, *row) for row in zip(shown, counts, strict=True)]
    _, ax = plt.subplots(figsize=(1.1 * len(columns), 1.15 * len(tiles) + 0.5))
    sheet(tiles, columns, groups=groups, ax=ax)
    return pd.DataFrame(rows, columns=["model", "layer", "image", "outliers"])


# %% [markdown]
# ## The measurement
#
# Norms are those of the patch tokens that a layer hands on; attention is that of `[CLS]` in the same
# layer. Registers, where a network has them, are no patches. The IoU is that of
# [Segmentation](07-segmentation.ipynb): of the best head, by the mass rule.

# %%
tokens = study.each(
    lambda network: artifact_frame(network.model, network.images, factor, reading=study.reading),
    untrained=True,
)
ious = study.each(
    lambda network: masked_iou(
        network.model, network.images, longest, keep, seed=seed, reading=study.reading
    ),
    needs="masks",
)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "In {main}, {main[outliers, share of patches].mean:.1%} of the patches are outliers at layer "
    "{main.layer} of {main.depth}, and {main[attention on outliers].mean:.1%} of the attention of `[CLS]` "
    "falls on them; before training {main[outliers, share of patches, untrained].mean:.1%} and "
    "{main[attention on outliers, untrained].mean:.1%}.",
    "Masking its longest tokens changes the IoU of its best head from {main[IoU].mean:.3f} to "
    "{main[IoU, longest masked].mean:.3f}, where as many random patches give "
    "{main[IoU, random patches masked].mean:.3f}.",
    "With these masked it still lies {main[IoU, gap left to the reference].mean:.3f} below the "
    "reference network, from which it was {main[IoU, gap to the reference].mean:.3f} away.",
    "In {other} {other[outliers, share of patches].mean:.1%} of the patches are outliers; the longest is "
    "{other[longest by median].mean:.1f} times the median, that of {main} "
    "{main[longest by median].mean:.1f} times.",
)
def findings():
    """At the layer that is read; one value an image."""
    names = {
        "outliers": "outliers, share of patches",
        "attention": "attention on outliers",
        "ratio": "longest by median",
    }
    read = study.at_layer(tokens)
    for label in study.labels:
        own = read[read.model == label]
        for column, name in names.items():
            yield Finding(label, name, own[own.weights == "trained"][column])
            if column != "ratio":
                yield Finding(label, f"{name}, untrained", own[own.weights == "untrained"][column])
    wide = pd.DataFrame(columns=["model", *TREATMENTS])
    if len(ious):
        wide = study.at_layer(ious).pivot(index=["model", "image"], columns="maps", values="iou")
        wide = wide.reset_index("model")
    by_label = [wide[wide.model == label] for label in study.labels]
    for label, own in zip(study.labels, by_label, strict=True):
        for name in TREATMENTS:
            yield Finding(label, "IoU" if name == TREATMENTS[0] else f"IoU, {name}", own[name])
    suspect, reference = by_label[0], (by_label[1] if len(by_label) > 1 else by_label[0][:0])
    plain, masked, _ = TREATMENTS
    gap = (reference[plain] - suspect[plain]).dropna()
    left = (reference[plain] - suspect[masked]).dropna()
    half = ("half of the gap", float(gap.mean()) / 2)
    yield Finding(study.labels[0], "IoU, gap to the reference", gap)
    yield Finding(study.labels[0], "IoU, gap left to the reference", left, "artifacts", half)


# %% [markdown]
# The claim is that artifacts are *not* what scatters the first network's maps. The rule, set before the
# run: it holds where, with the longest tokens masked, more than half of the gap to the second network is left.
# Intervals are over images: they speak of these networks.
#
# ## By layer
#
# [Figure 2](#fig-by-layer) goes through the layers; [Table 1](#tab-places) says where outliers sit.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "By layer, with 95 % intervals over images: the longest patch token by the median one, the share of "
    "outliers, and the share of the attention of `[CLS]` that falls on them. Dotted: the factor that makes "
    "an outlier.",
    alt="Three line plots against the layer, with a curve for each network.",
)
def by_layer():
    """Trained networks."""
    panels = {
        "ratio": "longest by median norm",
        "outliers": "share of patches that are outliers",
        "attention": "share of attention on outliers",
    }
    trained = tokens[tokens.weights == "trained"]
    _, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    frames = []
    for ax, (value, name) in zip(axes, panels.items(), strict=True):
        rows = interval_frame(trained, value, ["model", "layer"])
        rows["layer"] += 1
        interval_curves(rows, study.colours, "layer", name, ax)
        ax.set_ylim(0, None)
        frames.append(rows.assign(measure=name))
    axes[0].axhline(factor, color="0.35", linestyle=":", linewidth=1)
    handles = axes[0].get_legend_handles_labels()
    plt.gcf().legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return pd.concat(frames)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Where the outliers of all layers sit, and what they draw: the layer with most of them, the share of "
    "images that have some there, the share of these outliers on the border of the image (and of all "
    "patches), and how many times the attention of an even map they receive.",
    formats={"images with some": "{:.0%}", "on the border": "{:.0%}", "of all patches": "{:.0%}"},
)
def places():
    """A row for each network, trained and not."""
    rows = []
    for (model, weights), own in tokens.groupby(["model", "weights"], sort=False):
        most = own.groupby("layer").outliers.mean().idxmax()
        at = own[own.layer == most]
        some = at[at.outliers > 0]
        drawn = str(mean_interval(some.drawn)) if len(some) > 1 else ""
        border = some.border.mean() if len(some) else None
        expected = at["expected border"].mean()
        rows.append((model, weights, most + 1, len(some) / len(at), border, expected, drawn))
    columns = ["network", "weights", "layer", "images with some", "on the border", "of all patches"]
    return pd.DataFrame(rows, columns=[*columns, "attention, times even"])


# %% [markdown]
# ## With the longest tokens masked
#
# [Figure 3](#fig-masked) is the test at every layer: taking out the attention to the longest tokens,
# beside that to as many random patches.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "IoU of the best head by layer: as the maps are, without the attention to the longest tokens, and without "
    "that to as many random patches; mean and 95 % interval over images.",
    alt="A line plot for each network with three curves against the layer.",
    needs=ious,
)
def masked():
    """A panel for each network."""
    colours = dict(zip(TREATMENTS, ("0.2", "tab:red", "0.65"), strict=True))
    size = (3.7 * len(study.labels), 3.4)
    _, axes = plt.subplots(
        1, len(study.labels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    frames = []
    for ax, label in zip(axes[0], study.labels, strict=True):
        rows = interval_frame(ious[ious.model == label], "iou", ["maps", "layer"])
        rows["layer"] += 1
        interval_curves(rows.rename(columns={"maps": "model"}), colours, "layer", "", ax)
        ax.set_title(label, fontsize="medium", color=study.colours[label])
        frames.append(rows.assign(model=label))
    axes[0, 0].set_ylabel("IoU of the best head")
    handles = axes[0, 0].get_legend_handles_labels()
    plt.gcf().legend(*handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return pd.concat(frames)


# %% [markdown]
# ## How our setting differs
#
# Artifacts were found in networks of 300 million parameters and more, trained long; in small ones they
# were not. The cut there is a fixed norm, read off DINOv2's norms; here it is relative, so that networks
# of any scale compare. A network with registers (`hf:facebook/dinov2-with-registers-small`) can be put
# into `models` beside one without.
#
# ## What would have disproved the claim
#
# - Long tokens in the ViT whose masking brings its IoU to the reference network's.
#
# And what would not: no outliers at all, which leaves the scattered maps to be explained by something
# else.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
