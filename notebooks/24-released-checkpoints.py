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
# The other chapters run on small networks of our own. Whether the published numbers come out is a
# question for the published weights. This page lists which of them are public, how each is loaded,
# what scale of pixels each expects, and which table of {cite:t}`yu2024emergence` can be remade with it.
#
# **What there is.** {glue:text}`n_files` files for {glue:text}`n_systems` systems. Of CRATE one file
# is {glue:text}`demo_status`, {glue:text}`demo_file`; the checkpoints behind the paper's own numbers
# for CRATE-S/8 and CRATE-B/8 are {glue:text}`paper_status`. DINO's are all
# {glue:text}`dino_status`.
#
# **What we find.** The scale of the pixels leaves no trace in the weights, so it has to be said. With
# 0.5 for mean and deviation in place of ImageNet's, the accuracy of {glue:text}`main` changes by
# {glue:text}`main_accuracy` and that of {glue:text}`other` by {glue:text}`other_accuracy`; the IoU of the
# best head changes by {glue:text}`main_iou` and {glue:text}`other_iou`, and the lead of
# {glue:text}`main` in it goes from {glue:text}`lead_right` to {glue:text}`lead_wrong` (95 % intervals
# over pictures). Nothing fails, and no message tells: a wrong scale may change what one concludes.
#
# **How our setting differs.** We had no network: no link was opened and no released file was loaded
# by us. Each row says where it was read. That the layouts are read is tested with files of the same
# keys, nesting and shapes, filled with random numbers.

# %% tags=["parameters"]
n_images = 200
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(globals(), n_images=int, seed=int, output=str)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import batches, stack_images
from crate_analysis.measures import mean_interval
from crate_analysis.models import released_checkpoints
from crate_analysis.models.config import IMAGENET_MEAN, IMAGENET_STD
from crate_analysis.notebook import save_figure, show_provenance, table
from crate_analysis.plotting import interval_dots, model_colours
from crate_analysis.probes import cls_attention, papers_layer
from crate_analysis.segmentation import attention_mask, best_head_iou, to_pixels

released = released_checkpoints()
has_file = released.file != ""
files, wanting = released[has_file], released[~has_file]
of = released.set_index("system")
glue("n_files", len(files), display=False)
glue("n_systems", files.system.nunique(), display=False)
glue("demo_file", of.loc["CRATE-B/8, demo", "file"], display=False)
glue("demo_status", of.loc["CRATE-B/8, demo", "status"], display=False)
of_paper = of.loc[["CRATE-S/8", "CRATE-B/8"], "status"].unique()
glue("paper_status", " or ".join(of_paper), display=False)
of_dino = files[files.system.str.startswith("DINO")].status.unique()
glue("dino_status", " or ".join(of_dino), display=False)

# %% [markdown]
# ## The files
#
# A file is downloaded by you and named by its path; `FILE` stands for one whose name its publisher
# does not tell. A name with `hf:` is fetched from the [Hugging Face hub](https://huggingface.co) when
# the model is loaded, once, into the hub's own cache, which takes `pip install 'crate-analysis[hub]'`.
# Where there is no network, copy the cache or the file. Code in a file is never run.
#
# - *listed*: its publisher lists the file;
# - *reported to be had*: a user reports that the publisher's link gave it;
# - *link reported dead*: users report that the publisher's link fails.

# %% tags=["hide-input"]
table(files.set_index("system")[["file", "layout", "status"]])

# %% [markdown]
# The layout says how the weights are nested. *plain* is a dictionary of weights, of DINO's backbone or
# in timm's form, whose names are the same. *teacher and student* is a training checkpoint of DINO, of
# which the teacher is taken. *state_dict, module.* is what CRATE's training code saves, *model, extra
# head* what its demonstration reads.
#
# What each expects follows from its architecture, the part of the name after `@`. The last column is the
# mean and the deviation of the pixels, as shares of 255; ImageNet's are {glue:text}`imagenet_mean` and
# {glue:text}`imagenet_sd` for red, green and blue. No classes means no classifier.

# %% tags=["hide-input"]
expects = files.drop_duplicates("arch").set_index("arch")
shown = pd.DataFrame(
    {
        "trained on": expects["training data"],
        "classes": expects.classes,
        "pixels": [
            "ImageNet's" if mean == IMAGENET_MEAN else f"{mean[0]} and {sd[0]}"
            for mean, sd in zip(expects["pixel mean"], expects["pixel sd"], strict=True)
        ],
    }
)
glue("imagenet_mean", ", ".join(map(str, IMAGENET_MEAN)), display=False)
glue("imagenet_sd", ", ".join(map(str, IMAGENET_STD)), display=False)
table(shown, {"classes": "{:,}"})

# %% [markdown]
# All take pictures of 224 pixels, and others whose sides the patch size divides. Each is loaded by one
# line:

# %% tags=["hide-input"]
lines = "\n".join(f'load_model("{name}")' for name in files["name"])
display(Markdown(f"```python\n{lines}\n```"))

# %% [markdown]
# In a name on the hub, `hf:OWNER/REPO/FILE` names another file than `model.safetensors`, and
# `:REVISION` after it a branch, a tag or a commit; for numbers that are to be published, name the
# commit.
#
# Old files of timm for ImageNet-21k hold a layer `pre_logits` before the classifier, and files that
# average over patches a `fc_norm`; such files are refused, with the names of those weights.

# %% [markdown]
# ## What is not to be had
#
# *announced only* means that the publisher's table has a place for the file and nothing in it; *not
# found*, that we found no file. In the authors' repositories we found code for coding rates, principal
# components and attention maps, and none that scores masks on VOC or COCO; issue 29 there asks for it.
#
# Under similar names there are weights of other networks, which this library does not read: CRATE-MAE,
# an autoencoder, and CRATE-α, whose layers have more parameters.

# %% tags=["hide-input"]
table(wanting.set_index("system")[["arch", "training data", "status"]])

# %% [markdown]
# ## The scale of the pixels
#
# A network is trained on pixels of which a mean was taken off and a deviation divided out. CRATE and
# DINO use those of ImageNet; the ViTs of [Steiner et al. (2021)](https://arxiv.org/abs/2106.10270),
# timm's *augreg*, use 0.5 for both. Their weights have the same names and shapes, so that a file does
# not show which it is: a plain `vit_small_patch16_224` takes ImageNet's, and whoever has an augreg file
# must say `@vit_small_patch16_224.augreg_in21k`.
#
# How much does it matter? Two networks of ours, trained with ImageNet's scale, see the same pictures in
# three scales: the right one, 0.5 and 0.5, and plain shares of 255. Accuracy is that of the logits, and
# IoU that of the best head with the animal, by masks of 60 % of the attention, as in
# {doc}`07-segmentation` ({numref}`fig-scales`).

# %% tags=["hide-input"]
SCALES = {
    "ImageNet's": (IMAGENET_MEAN, IMAGENET_STD),
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "from 0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
models = ["crate-creatures", "vit-creatures"]
pictures = load_dataset("creatures", "val", 72, n_images, seed)
drawn = list(batches(pictures, 50))
parts = []
for name in models:
    network = load_model(name)
    assert network.config.pixel_mean == IMAGENET_MEAN
    for scale, (mean, sd) in SCALES.items():
        network.config = network.config.override(pixel_mean=mean, pixel_std=sd)
        for indices, samples in drawn:
            truth = torch.stack([sample.masks[:1] for sample in samples])  # the whole animal
            labels = torch.tensor([sample.label for sample in samples])
            images = network.normalize(stack_images(samples))
            with torch.inference_mode():
                right = network(images).argmax(1) == labels
                maps = cls_attention(network, images, papers_layer(network))
            masks = to_pixels(attention_mask(maps, keep=0.6, rule="mass"), *truth.shape[-2:])
            iou, _ = best_head_iou(masks, truth)
            columns = {"image": indices, "accuracy": right.float(), "IoU": iou[:, 0]}
            parts.append(pd.DataFrame(columns).assign(model=name, scale=scale))
each = pd.concat(parts).melt(["model", "scale", "image"], ["accuracy", "IoU"], "measure")

# %% tags=["hide-input"]
rows = [
    (measure, model, scale, f"{model}, {scale}", *mean_interval(part.value))
    for (measure, model, scale), part in each.groupby(["measure", "model", "scale"], sort=False)
]
scores = pd.DataFrame(rows, columns=["measure", "model", "scale", "label", "mean", "low", "high"])
wide = each.pivot(index=["measure", "model", "image"], columns="scale", values="value")
change = wide["0.5 and 0.5"] - wide["ImageNet's"]
for role, model in zip(("main", "other"), models, strict=True):
    glue(role, model, display=False)
    glue(f"{role}_accuracy", str(mean_interval(change["accuracy", model])), display=False)
    glue(f"{role}_iou", str(mean_interval(change["IoU", model])), display=False)
lead = wide.loc["IoU", models[0]] - wide.loc["IoU", models[1]]
glue("lead_right", str(mean_interval(lead["ImageNet's"])), display=False)
glue("lead_wrong", str(mean_interval(lead["0.5 and 0.5"])), display=False)

# %% mystnb={"figure": {"caption": "Accuracy and mean IoU of the best head of two networks that were trained with ImageNet's scale of pixels, when pictures come in the right scale and in two wrong ones. Bars are 95 % bootstrap intervals over pictures.", "name": "fig-scales"}, "image": {"alt": "Two dot plots, of accuracy and of mean IoU, with an interval for each of two networks and three scales of pixels."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(8.6, 2.9), sharey=True, layout="constrained")
colours = model_colours(models)
for ax, (measure, part) in zip(panels, scores.groupby("measure", sort=False), strict=True):
    label = "accuracy" if measure == "accuracy" else "mean IoU of the best head"
    interval_dots(part, colours, xlabel=label, ax=ax)
save_figure(figure, scores, output, "fig-scales")

# %% [markdown]
# CRATE is hurt less, and by both wrong scales alike. That follows from its first layer, which normalises
# each patch before anything else ({doc}`../index`): what is added to all pixels, or multiplies all,
# cancels there, and only the differences between the colours' means and deviations remain. A ViT has no
# such layer. Its attention does not get worse with its accuracy, though; the IoU says where `[CLS]` looks,
# not whether the network knows what it sees.
#
# These networks are small and their pictures were drawn; how much a released one changes is to be
# measured on itself. That the scale does not matter would show in rows of a network that coincide.

# %% [markdown]
# ## Which numbers can be remade
#
# Photographs are needed too: PASCAL VOC 2012 under `ROOT/VOCdevkit/VOC2012`, COCO with
# `annotations/` and `val2017/` under `ROOT`. The files in `params/` hold the paper's settings for each.
#
# | in the paper | system | with |
# | --- | --- | --- |
# | Fig. 4b, mIoU on VOC 2012; Table 1, AP on COCO | DINO ViT-S/8, ViT-B/8 | DINO's files, or timm's copies |
# | the same | CRATE-S/8, CRATE-B/8 | not to be had; the demo is another network, with 6 heads |
# | the same | ViT-B/8 | augreg's, of as many parameters but another recipe: beside the paper's, not instead |
# | the same | ViT-S/8 | not to be had |
# | Figs. 1 and 7, attention maps and heads | CRATE-B/8 | the demo's file, in {doc}`05-attention` and {doc}`09-heads` |
# | Table 2, ablation; Fig. 10, along training | all | not to be had; ours are in {doc}`14-ablation` and {doc}`15-training` |
# | Table 3, transfer | CRATE-T, -S, -B | not to be had |
# | The curves by layer of {cite:t}`yu2023whitebox` | CRATE-S/16 | its file, if you have it, in {doc}`02-compression`, `params/imagenet.yml` |
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
# The demo beside DINO ViT-B/8 and the supervised ViT-B/8:
#
# ```sh
# papermill notebooks/07-segmentation.ipynb voc-base.ipynb -f params/voc12.yml -p dataset voc:ROOT -y '
# models:
#   - crate-demo.pth@crate_base_patch8_224.demo
#   - hf:timm/vit_base_patch8_224.dino@vit_base_patch8_224.dino
#   - hf:timm/vit_base_patch8_224.augreg_in21k@vit_base_patch8_224.augreg_in21k'
# ```

# %% [markdown]
# ## Where each row was read
#
# In brackets after a file: the first digits of the commit. A licence *(code)* is that of the repository,
# which says nothing of the weights; an empty one was not read by us.

# %% tags=["hide-input"]
read = released.groupby(["read in", "licence"], sort=False).system.unique().str.join("; ")
table(read.reset_index().set_index("system")[["licence", "read in"]])

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
show_provenance("24-released-checkpoints", parameters, models, [pictures])
