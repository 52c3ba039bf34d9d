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
# # Released checkpoints
#
# The other chapters run on small networks of our own. Whether the published numbers come out is a question
# for the published weights. This page lists which of them are public, how each is loaded, what scale of
# pixels each expects, and which table of
# [Yu et al. 2024](../book/bibliography.md#yu2024emergence) can be remade with it. We had no network: no
# link was opened and no released file was loaded by us. Each row says where it was read; that the layouts
# are read is tested with files of the same keys, nesting and shapes, filled with random numbers.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 150
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown, display

from crate_analysis.measures import interval_frame, paired_difference
from crate_analysis.models import released_checkpoints
from crate_analysis.models.config import IMAGENET_MEAN
from crate_analysis.plotting import interval_dots
from crate_analysis.segmentation import Scoring, best_heads, head_scores
from crate_analysis.study import Study
from crate_analysis.walk import walk

study = Study(globals(), "24-released-checkpoints")
released = released_checkpoints()
files, wanting = released[released.file != ""], released[released.file == ""]

# %% [markdown]
# ## The files
#
# A file is downloaded by you and named by its path; `FILE` stands for one whose name its publisher does
# not tell. A name with `hf:` is fetched from the [Hugging Face hub](https://huggingface.co) when the model
# is loaded, once, which takes `pip install 'crate-analysis[hub]'`. Code in a file is never run.
# [Table 1](#tab-specs) has what to type. *Listed*: its publisher lists the file. *Reported to be had*: a
# user reports that the publisher's link gave it. *Link reported dead*: users report that it fails.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Public files, by system: the model spec to type, everywhere a model is named.")
def specs():
    """The rows that have a file."""
    return files[["system", "name", "status"]].rename(columns={"name": "spec"})


# %% [markdown]
# [Table 2](#tab-expects) says what each expects. Its last column is the mean and the standard deviation of
# the pixels, as shares of 255. No classes means no classifier.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("What each architecture was trained on and expects.", formats={"classes": "{:,}"})
def expects():
    """One row an architecture."""
    rows = files.drop_duplicates("arch")
    scale = [
        "ImageNet's" if mean == IMAGENET_MEAN else f"{mean[0]:.3g} and {deviation[0]:.3g}"
        for mean, deviation in zip(rows["pixel mean"], rows["pixel sd"], strict=True)
    ]
    return rows.assign(pixels=scale)[["arch", "layout", "training data", "classes", "pixels"]]


# %% [markdown]
# In Python, each is one line:

# %% jupyter={"source_hidden": true} tags=["hide-input"]
lines = "\n".join(f'load_model("{name}")' for name in files["name"])
display(Markdown(f"```python\n{lines}\n```"))

# %% [markdown]
# `hf:OWNER/REPO/FILE` names another file than `model.safetensors`, and `:REVISION` after it a branch, a
# tag or a commit; for numbers that are to be published, name the commit.
#
# ## What is not to be had
#
# In [Table 3](#tab-not-to-be-had) *announced only* means that the publisher's table has a place for the
# file and nothing in it; *not found*, that we found no file. In the authors' repositories we found code for
# coding rates, principal components and attention maps, and none that scores masks on VOC or COCO.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Systems of which no file is known to us.")
def not_to_be_had():
    """The rows without a file."""
    return wanting[["system", "arch", "training data", "status"]]


# %% [markdown]
# ## The scale of the pixels
#
# A network is trained on pixels of which a mean was taken off and a deviation divided out. A file's weights
# do not show which. How much does it matter? The networks of this run see the same images in three scales:
# the right one, 0.5 and 0.5, and plain shares of 255.

# %% jupyter={"source_hidden": true} tags=["hide-input"]
SCALES = {
    "as trained": None,
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "from 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def right(network):
    """1 for each image whose class is named, 0 for the others."""
    hits = []
    for batch in walk(network.model, network.images, reading=study.reading):
        *_, last = batch.states
        answers = network.model.classify(last.output).argmax(1).tolist()
        hits += [float(a == s.label) for a, s in zip(answers, batch.samples, strict=True)]
    return hits


@torch.inference_mode()
def in_scale(network):
    """Accuracy and best-head IoU at the layer that is read, in each scale."""
    kept, frames = network.model.config, []
    for name, scale in SCALES.items():
        if scale:
            network.model.config = kept.override(pixel_mean=scale[0], pixel_std=scale[1])
        scores = head_scores(
            network.model, network.images, Scoring(values=("iou",)), [network.layer],
            reading=study.reading,
        )  # fmt: skip
        iou = best_heads(scores.query("not is_part")).groupby("image").iou.mean()
        frame = pd.DataFrame({"IoU": iou})
        if study.has("labels"):
            frame["accuracy"] = right(network)
        frames.append(frame.reset_index().assign(scale=name))
        network.model.config = kept
    return pd.concat(frames)


scaled = study.each(in_scale, needs="masks")


@study.figure(
    "Accuracy and mean IoU of the best head when images come in the right scale and in two wrong ones, "
    "with 95 % intervals over images.",
    alt="Two dot plots with an interval for each network and each scale of pixels.",
    needs=scaled,
)
def scales():
    """A panel for each measure there is truth for."""
    measures = [name for name in ("accuracy", "IoU") if name in scaled]
    _, axes = plt.subplots(
        1, len(measures), figsize=(5 * len(measures), 3), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    frames = []
    for ax, measure in zip(axes[0], measures, strict=True):
        rows = interval_frame(scaled, measure, ["model", "scale"])
        rows = rows.assign(label=rows.model + ", " + rows.scale, measure=measure)
        interval_dots(rows, study.colours, xlabel=measure, ax=ax)
        frames.append(rows)
    return pd.concat(frames)


@study.table(
    "Change by a scale of 0.5 and 0.5 in place of the right one, image by image, with 95 % intervals.",
    needs=scaled,
)
def changes():
    """Each network and measure."""
    rows = []
    for label in study.labels:
        own = scaled[scaled.model == label].set_index("image")
        wrong, as_trained = (own[own.scale == name] for name in ("0.5 and 0.5", "as trained"))
        for measure in (name for name in ("accuracy", "IoU") if name in own):
            change = paired_difference(wrong[measure], as_trained[measure])
            rows.append((label, measure, str(change)))
    return pd.DataFrame(rows, columns=["network", "measure", "change"])


# %% [markdown]
# [Figure 1](#fig-scales) and [Table 4](#tab-changes): nothing fails, and no message tells. CRATE's first
# layer normalises each patch before anything else, so what is added to all pixels, or multiplies all,
# cancels there. A ViT has no such layer. Whoever has a file of timm's *augreg* networks, which take 0.5
# for both, must say `@vit_small_patch16_224.augreg_in21k`.
#
# ## Which numbers can be remade
#
# Photographs are needed too: PASCAL VOC 2012 under `ROOT/VOCdevkit/VOC2012`, COCO with `annotations/` and
# `val2017/` under `ROOT`. The files in `params/` hold the paper's settings for each.
#
# | in the paper | system | with |
# | --- | --- | --- |
# | Fig. 4b, mIoU on VOC 2012; Table 1, AP on COCO | DINO ViT-S/8, ViT-B/8 | DINO's files, or timm's copies |
# | the same | CRATE-S/8, CRATE-B/8 | not to be had; the demo is another network, with 6 heads |
# | the same, another white-box network | CRATE-alpha-B/8, ImageNet-21k | its file: the nearest public match |
# | the same | ViT-B/8 | augreg's, of as many parameters but another recipe |
# | Figs. 1 and 7, attention maps and heads | CRATE-B/8 | the demo's file, in [attention](05-attention.ipynb) and [heads](09-heads.ipynb) |
# | Table 2, ablation; Fig. 10, along training | all | not to be had; ours are in [the ablation](14-ablation.ipynb) and [training](15-training.ipynb) |
# | Table 3, transfer | CRATE-T, -S, -B | not to be had |
# | Yu et al. 2023, curves by layer | CRATE-S/16 | its file, if you have it, in [compression](02-compression.ipynb), `params/imagenet.yml` |
#
# DINO ViT-S/8, its mIoU on VOC 2012 and its AP on COCO:
#
# ```sh
# papermill notebooks/07-segmentation.ipynb voc.ipynb -f params/voc12.yml \
#     -y 'models: ["hf:timm/vit_small_patch8_224.dino@vit_small_patch8_224.dino"]' -p dataset voc:ROOT
# papermill notebooks/11-detection.ipynb coco.ipynb -f params/coco2017.yml \
#     -y 'models: [dino_deitsmall8_pretrain.pth@vit_small_patch8_224.dino]' -p dataset coco:ROOT
# ```
#
# ## Where each row was read
#
# In [Table 5](#tab-sources), in brackets after a file: the first digits of the commit. A licence *(code)* is
# that of the repository, which says nothing of the weights; an empty one was not read by us.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Sources and licences.")
def sources():
    """By source."""
    read = released.groupby(["read in", "licence"], sort=False).system.unique().str.join("; ")
    return read.reset_index()[["system", "licence", "read in"]]


# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
