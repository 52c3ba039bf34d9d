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
# # When do the maps appear?
#
# **The claim.** Segmentation emerges along training, in CRATE and not in a ViT
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 10); compression and sparsity grow along
# training too ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox)).
#
# **The test.** The image-specific IoU of the best head at every snapshot: last less first, and last less
# best. Each snapshot is scored at one layer rule: the layer that is best on the other half of the images.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 100
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import MEASURES, cross_fit, interval_frame, measure_layers
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.plotting import heat, interval_curves, rgb_tile, sheet, step_axis
from crate_analysis.probes import cls_attention, collect, pca_rgb
from crate_analysis.segmentation import Scoring, best_heads, image_specific, scores_with_rivals
from crate_analysis.study import Finding, Study

study = Study(globals(), "15-training")
WHITE_BOX = {name: MEASURES[name] for name in ("coding_rate", "nonzero_fraction")}

# %% [markdown]
# ## The measurement
#
# Training keeps the weights at initialisation and at steps that double up to the last. Each snapshot is
# measured as the finished network is: the best head and its rival, the network's own maps of other
# images; the coding rate and the share of non-zero entries, on validation and on training images.

# %%
def along(network, measure):
    """What `measure` finds for each snapshot, with a column for its step."""
    frames = [measure(model).assign(step=step) for step, model in network.snapshots()]
    return pd.concat(frames, ignore_index=True) if frames else None


def segment(model, images):
    """The image-specific IoU of the best head, by layer and image."""
    scores = scores_with_rivals(
        model, images, images, Scoring(values=("iou",)), None, ["other images"], draws=2,
        seed=seed, reading=study.reading,
    )  # fmt: skip
    return image_specific(best_heads(scores.query("not is_part")))

# %% jupyter={"source_hidden": true} tags=["hide-input"]
iou = study.each(
    lambda network: along(network, lambda model: segment(model, network.images)), needs="masks"
)
values = study.each(
    lambda network: along(
        network,
        lambda model: pd.concat(
            measure_layers(model, images, WHITE_BOX, reading=study.reading).assign(split=split)
            for split, images in (("val", network.images), ("train", network.train_images))
            if images is not None
        ),
    )
)
if len(iou):
    columns = ["model", "step", "layer", "image", "iou", "image_specific"]
    chosen = cross_fit(iou[columns], "layer", "image_specific")
else:
    chosen = iou

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Training changes the image-specific IoU of {main} by {main[last less first]} and that of {other} "
    "by {other[last less first]}.",
    "The last snapshot of {main} lies {main[last less highest]} from the snapshot that is highest on "
    "the other half of the images, that of {other} {other[last less highest]}; the highest of all is "
    "at step {main[step of the highest].mean:.0f} and {other[step of the highest].mean:.0f}.",
    "The non-zero share at the last layer of {main} changes by "
    "{main[non-zero share, last less first]} along training.",
    needs=chosen,
)
def findings():
    """One value an image; the step of the highest is chosen on the other half of the images."""
    for label in study.labels:
        own = chosen[chosen.model == label]
        if own.empty:
            continue
        claim = "training" if label == study.labels[0] else ""
        wide = own.pivot_table(index="image", columns="step", values="image_specific")
        gain = wide[wide.columns[-1]] - wide[wide.columns[0]]
        yield Finding(label, "last less first", gain.dropna(), claim)
        high = cross_fit(own.drop(columns=["layer", "half"]), "step", "image_specific")
        high = high.set_index("image").image_specific
        yield Finding(label, "last less highest", (wide[wide.columns[-1]] - high).dropna())
        yield Finding(label, "step of the highest", float(wide.mean().idxmax()))
        share = values[
            (values.model == label)
            & (values.measure == "nonzero_fraction")
            & (values.split == "val")
            & (values.layer == values[values.model == label].layer.max())
        ].pivot_table(index="image", columns="step", values="value")
        change = share[share.columns[-1]] - share[share.columns[0]]
        yield Finding(label, "non-zero share, last less first", change)
    if len(study.labels) > 1 and set(study.labels) <= set(chosen.model):
        main, other = (
            chosen[chosen.model == label].pivot_table(
                index="image", columns="step", values="image_specific"
            )
            for label in (study.labels[0], study.labels[-1])
        )
        gains = [one[one.columns[-1]] - one[one.columns[0]] for one in (main, other)]
        name = "last less first, difference"
        yield Finding(study.labels[0], name, (gains[0] - gains[1]).dropna(), "training")


# %% [markdown]
# Intervals are over images: they speak of these two trainings. Whether a ViT's early maps are real and
# lasting is experiment E, declared over several runs in `params/experiments`.
#
# ## The curves
#
# [Figure 1](#fig-curves) follows each network. Steps double from mark to mark.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Against training step: image-specific IoU and IoU of the best head (at the cross-fitted best "
    "layer), coding rate and share of non-zero entries at the last layer. Mean over images and its "
    "95 % interval.",
    alt="Four line plots against the training step for each network that has snapshots.",
    needs=values,
)
def curves():
    """What there is truth for."""
    last = values[
        (values.split == "val") & (values.layer == values.groupby("model").layer.transform("max"))
    ]
    parts = {name: last[last.measure == name] for name in WHITE_BOX}
    frames = {
        name: interval_frame(part, "value", ["model", "step"]) for name, part in parts.items()
    }
    if len(chosen):
        of_maps = {
            name: interval_frame(chosen, name, ["model", "step"])
            for name in ("image_specific", "iou")
        }
        frames = of_maps | frames
    _, axes = plt.subplots(
        2, (len(frames) + 1) // 2, figsize=(10, 6.4), layout="constrained", squeeze=False
    )
    for ax, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        colours = {label: study.colours[label] for label in frame.model.unique()}
        interval_curves(frame, colours, "step", name.replace("_", " "), ax)
        step_axis(sorted(frame.step.unique().tolist()), ax)
    axes[0, 0].legend(frameon=False)
    return pd.concat(frame.assign(quantity=name) for name, frame in frames.items())


# %% [markdown]
# ## By layer
#
# The parent paper shows the share of non-zero entries and the rate against layer for several moments of
# training, on the training and on the validation split. [Figure 2](#fig-layers) is that figure for the
# first network.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The first network by layer, from light (first weights) to dark (last): coding rate (left) and share "
    "of non-zero entries (right). Solid: validation images; dashed: training images. Means over images.",
    alt="Two line plots against the layer, one line for each snapshot and split.",
    needs=values,
)
def layers():
    """Both splits."""
    own = values[values.model == values.model.iloc[0]]
    means = own.groupby(["measure", "split", "step", "layer"]).value.mean()
    steps = sorted(own.step.unique())
    shades = plt.get_cmap("viridis_r")(
        [0.1 + 0.85 * n / max(1, len(steps) - 1) for n in range(len(steps))]
    )
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax, name in zip(axes, WHITE_BOX, strict=True):
        for split, line in (("val", "-"), ("train", "--")):
            for step, colour in zip(steps, shades, strict=True):
                if (name, split, step) in means.index:
                    curve = means[name, split, step]
                    label = f"step {step}" if split == "val" else None
                    ax.plot(curve.index + 1, curve, line, color=colour, label=label)
        ax.set(xlabel="layer", ylabel=name.replace("_", " "))
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return means.reset_index()


# %% [markdown]
# ## The same image at every step
#
# [Figure 3](#fig-same-image) shows every head at the layer that the paper takes, and below it the patch
# features of the image and of others as colours: components are found anew at each step, so a colour
# means nothing from one column to the next; what can be compared is which patches share one
# ([PCA](10-pca.ipynb)).


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "At every snapshot: attention of `[CLS]` in all heads on one image, and the patch features as "
    "colours (background by the first component in white).",
    alt="A sheet: a row for each head of each network and one for colours, a column for each step.",
    needs=values,
    pick={"image": study.starts(1)},
)
def same_image(image=0):
    """A column for each step."""
    tiles, names, columns = [], [], []
    for network in study.networks:
        lines, shown = {}, study.indices(4, image)
        for step, model in network.snapshots():
            inputs, size = network.inputs(shown), network.pixels(shown[:1])[0].shape[:2]
            maps = cls_attention(model, inputs[:1], network.layer)[0].cpu().numpy()
            for head, one in enumerate(maps):
                lines.setdefault(f"{network.label}\nhead {head + 1}", []).append(heat(one, size))
            readers = {"features": lambda s, m=model: merge_heads(s.projections)[:, m.patches]}
            found = collect(model, network.samples(shown), readers, [network.layer])["features"]
            rgb = pca_rgb(found[:, 0], maps.shape[1:])[0].numpy()
            lines.setdefault(f"{network.label}\nfeatures", []).append(rgb_tile(rgb, size))
            if f"step {step}" not in columns:
                columns.append(f"step {step}")
        tiles += lines.values()
        names += lines
    _, ax = plt.subplots(figsize=(9, 1.15 * len(tiles)))
    sheet(tiles, columns, names, ax)
    return pd.DataFrame({"row": names})


# %% [markdown]
# ## How our setting differs
#
# The paper follows a network over 90 epochs of ImageNet-21k. Ours see some ten thousand drawn animals
# ([Models and data](01-models-and-data.ipynb)); the first snapshot lies before any training.
#
# ## What would have disproved the claim
#
# - Maps that are as image-specific before training as after it.
# - A ViT whose maps gain as much along training, and keep it.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
