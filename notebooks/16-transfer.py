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
# # Is what it learned of use elsewhere?
#
# **The claim.** {cite:t}`yu2024emergence` fine-tune networks that were trained on ImageNet-21k on other
# data sets (their Table 3). A CRATE's features transfer, better the larger it is, to accuracies a little
# below those of a ViT.
#
# **What we find.** On {glue:text}`n_measured` pictures of the {glue:text}`n_classes` classes of
# {glue:text}`dataset`, a linear classifier that has learned from {glue:text}`n_most` pictures and sees
# only a frozen network's `[CLS]` token has an accuracy of {glue:text}`main_cls` with
# {glue:text}`main` and of {glue:text}`other_cls` with {glue:text}`other` (95 % intervals over
# pictures; one that holds zero tells no difference). {glue:text}`cls_verdict` Of the mean over patches it
# has {glue:text}`main_patches` and {glue:text}`other_patches`. {glue:text}`patches_verdict` Of the
# `[CLS]` token of the same networks with random weights it has {glue:text}`main_untrained` and
# {glue:text}`other_untrained`, and of raw pixels, without any network, {glue:text}`pixels`. Fine-tuned
# on as many pictures, the networks come to {glue:text}`main_tuned` and {glue:text}`other_tuned`; the
# same training from random weights comes to {glue:text}`main_scratch` and {glue:text}`other_scratch`.
#
# **How our setting differs.** The paper goes from photographs to other photographs, and reports
# fine-tuning alone. Ours goes from drawn species to other drawn species, of other build and colours
# ({doc}`01-models-and-data`), with few pictures and {glue:text}`epochs` epochs. We add the controls:
# frozen features, raw pixels, untrained networks, and training from random weights. One training run a
# network, so intervals are over pictures only.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures-exotic"
sizes = [50, 150, 400]
n_dev = 100
n_images = 300
epochs = 3
batch_size = 16
learning_rate = 1e-3
weight_decay = 0.01
precision = "fp32"  # or bf16, where the machine computes with it
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    sizes=list[int],
    n_dev=int,
    n_images=int,
    epochs=int,
    batch_size=int,
    learning_rate=float,
    weight_decay=float,
    precision=str,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models
from crate_analysis.notebook import save_figure, save_results, show_provenance, table
from crate_analysis.plotting import interval_curves, interval_dots, model_colours, sheet
from crate_analysis.training.knn import NEIGHBOURS
from crate_analysis.training.recipe import SupervisedRecipe
from crate_analysis.training.transfer import (
    PIXEL_GRID,
    accuracies,
    architecture_of,
    classifier_hits,
    fine_tune,
    load_splits,
    probe_hits,
)

networks = load_models(models)
names = list(networks)
colours = model_colours(names)
cache = Path(output) / "pictures"
splits = {
    size: load_splits(dataset, size, max(sizes), n_dev, n_images, cache, seed)
    for size in dict.fromkeys(network.config.image_size for network in networks.values())
}
first = splits[networks[names[0]].config.image_size]
classes = first.val.pictures.classes
available = len(first.train.indices)
counts = sorted({min(size, available) for size in sizes})

# %% [markdown]
# ## What is to be told apart
#
# {numref}`fig-transfer-pictures` has a picture of each class, where there are many of the first ones.
# None of them may be among those that the networks were trained to name, which for ours
# {doc}`01-models-and-data` shows.

# %% mystnb={"figure": {"caption": "A picture of each class of the data set that features are transferred to.", "name": "fig-transfer-pictures"}, "image": {"alt": "A sheet with a picture of each class."}} tags=["hide-input"]
labels = first.train.labels.tolist()
chosen = [first.train.indices[labels.index(k)] for k in sorted(set(labels))[:12]]
images, shown = first.train.pictures.batch(chosen)
tiles = [image.permute(1, 2, 0).numpy() for image in images]
titles = [classes[label] for label in shown]
figure, panels = plt.subplots(2, 1, figsize=(9, 3.6), squeeze=False, layout="constrained")
half = -(-len(tiles) // 2)
for ax, line in zip(panels.flat, (slice(0, half), slice(half, None)), strict=True):
    sheet([tiles[line]], titles[line], ax=ax)
drawn = pd.DataFrame({"class": titles, "index": chosen})
save_figure(figure, drawn, output, "fig-transfer-pictures")

# %% [markdown]
# ## Frozen features
#
# A *linear probe* is one linear classifier (multinomial logistic regression) of what a frozen network
# gives for a picture: its `[CLS]` token after the last layer and its norm, which is what its own
# classifier saw, or the mean over its patches. How strongly the probe is regularised is chosen on
# {glue:text}`n_chosen` other pictures. *k-NN* trains nothing: the {glue:text}`n_neighbours` nearest
# pictures vote. Both also read raw pixels, averaged to {glue:text}`n_cells` cells a side, and the same
# networks with random weights: what {numref}`fig-transfer-probes` shows above these is what training
# elsewhere is worth.

# %% tags=["hide-input"]
frames = [
    probe_hits(
        {name: n for name, n in networks.items() if n.config.image_size == size},
        part,
        counts,
        seed,
    )
    for size, part in splits.items()
]
source = ["model", "weights", "features", "reader", "n_train", "image"]
hits = pd.concat(frames).drop_duplicates(source, ignore_index=True)
probes = accuracies(hits)

# %% mystnb={"figure": {"caption": "Accuracy on other pictures against the number of pictures that were learned from, with 95 % intervals over pictures: linear probe (top) and k-NN (bottom), of the `[CLS]` token (left) and of the mean over patches (right). Dashed: the same networks with random weights. Grey: raw pixels. Dotted: chance.", "name": "fig-transfer-probes"}, "image": {"alt": "Four line plots of accuracy against the number of training pictures, for each network trained and untrained, and for raw pixels."}} tags=["hide-input"]
figure, panels = plt.subplots(
    2, 2, figsize=(9, 6.2), sharex=True, sharey=True, layout="constrained"
)
solid = colours | {"pixels": (0.45, 0.45, 0.45)}
readers = {"linear": "linear probe", "k-NN": "k-NN"}
views = {"cls": "[CLS]", "patches": "mean over patches"}
for line, (reader, way) in zip(panels, readers.items(), strict=True):
    for ax, (features, view) in zip(line, views.items(), strict=True):
        part = probes[(probes.reader == reader) & probes.features.isin([features, "pixels"])]
        interval_curves(part[part.weights == "untrained"], colours, "n_train", "", ax)
        for curve in ax.lines:
            curve.set(linestyle="--", label=f"{curve.get_label()}, untrained")
        interval_curves(part[part.weights != "untrained"], solid, "n_train", "", ax)
        ax.axhline(1 / len(classes), color="0.35", linestyle=":", linewidth=1)
        ax.set(xlabel="", title=f"{way}, {view}", ylim=(0, 1), xscale="log")
        ax.set_xticks(counts, counts)
        ax.minorticks_off()
for ax in panels[:, 0]:
    ax.set_ylabel("accuracy")
for ax in panels[1]:
    ax.set_xlabel("pictures learned from")
figure.legend(
    *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
save_figure(figure, probes, output, "fig-transfer-probes")

# %% [markdown]
# The same in numbers, at {glue:text}`n_most` pictures:

# %% tags=["hide-input"]
most = probes[probes.n_train == counts[-1]]
reached = most.set_index(["model", "weights", "features", "reader"])[["mean", "low", "high"]]
wide = reached.apply(lambda row: str(MeanInterval(*row)), axis=1).unstack(sort=False)
display(table(wide, missing="–"))

# %% [markdown]
# ## Fine-tuning
#
# Now all weights are trained on, with a new classifier: {glue:text}`n_most` pictures,
# {glue:text}`epochs` epochs in batches of {glue:text}`batch_size`, AdamW with learning rate
# {glue:text}`learning_rate` and weight decay {glue:text}`weight_decay`, all else as in the training of
# our networks. Beside it, the same training of the same architecture from random weights.
# {numref}`fig-transfer-tuned` has both, and what a linear probe of `[CLS]` made of as many pictures. The
# trainings are kept in `transfer/` in the output folder: one that was stopped goes on from there.

# %% tags=["hide-input"]
rows = []
for given, (name, network) in zip(models, networks.items(), strict=True):
    part = splits[network.config.image_size]
    arch, overrides = architecture_of(network.config, len(classes))
    for start, label in ((given, "fine-tuned"), ("", "from random weights")):
        recipe = SupervisedRecipe(
            arch,
            overrides,
            dataset,
            n_train=counts[-1],
            n_val=min(50, n_images),
            monitor="val" if dataset.startswith("folder:") else "dev",
            epochs=epochs,
            batch_size=min(batch_size, counts[-1]),
            learning_rate=float(learning_rate),
            weight_decay=float(weight_decay),
            warmup=0.1,
            precision=precision,
            seed=seed,
            data_seed=seed,
            start=start,
        )
        named = classifier_hits(fine_tune(recipe, Path(output) / "transfer", cache), part.val)
        rows.append((name, label, *mean_interval(named.double())))
tuned = pd.DataFrame(rows, columns=["model", "way", "mean", "low", "high"])
linear = most[(most.reader == "linear") & (most.features != "patches")]
beside = linear[linear.weights != "untrained"].assign(way="linear probe")
compared = pd.concat([tuned, beside[tuned.columns]])
compared["label"] = compared.model + ", " + compared.way
compared = compared.sort_values(
    "model", key=lambda c: c.map([*names, "pixels"].index), kind="stable"
)

# %% mystnb={"figure": {"caption": "Accuracy on other pictures after learning from the same number of pictures, with 95 % intervals over pictures.", "name": "fig-transfer-tuned"}, "image": {"alt": "Dot plot of accuracy for each network fine-tuned, trained from random weights, and probed, and for raw pixels probed."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 0.34 * len(compared) + 0.8), layout="constrained")
interval_dots(compared, colours, xlabel="accuracy", ax=ax)
save_figure(figure, compared, output, "fig-transfer-tuned")

# %% [markdown]
# A short training shows how much sooner a trained network learns, not where both would end: more
# `epochs` and larger `sizes` tell more. A fine-tuned network that lies below its own linear probe had
# the probe's accuracy within its reach, and was not trained to its end.
#
# **The paper's** top-1 accuracies after fine-tuning (in %), for networks that were trained on
# ImageNet-21k:
#
# | | ImageNet-1K | CIFAR10 | CIFAR100 | Flowers-102 | Pets |
# | --- | --- | --- | --- | --- | --- |
# | CRATE-T | 62.7 | 94.1 | 76.7 | 82.2 | 77.0 |
# | CRATE-S | 74.2 | 97.2 | 84.1 | 92.2 | 86.4 |
# | CRATE-B | 79.5 | 98.1 | 87.9 | 96.7 | 90.7 |
# | ViT-T | 71.8 | 97.2 | 84.4 | 92.1 | 86.2 |
# | ViT-B | 85.8 | 98.9 | 90.1 | 99.5 | 91.8 |
#
# *Source: {cite:t}`yu2024emergence`, Table 3. Not measured by us. To measure the like, sort a data set's
# pictures into `train/CLASS` and `val/CLASS`, and run this chapter with `-p dataset folder:ROOT` on a
# released checkpoint.*

# %% tags=["hide-input"]
after = tuned.set_index(["model", "way"])[["mean", "low", "high"]]
trained = hits[(hits.n_train == counts[-1]) & (hits.reader == "linear")]
pixels = trained[trained.features == "pixels"].set_index("image").hit
trained = trained[trained.weights == "trained"]
for kind in views:
    wide = trained[trained.features == kind].pivot(index="image", columns="model", values="hit")
    best = wide.mean().idxmax()
    ahead = [
        f"{name} by {mean_interval(wide[best] - wide[name])}" for name in names if name != best
    ]
    ahead.append(f"raw pixels by {mean_interval(wide[best] - pixels)}")
    verdict = f"The highest is {best}; on the same pictures it is ahead of {', of '.join(ahead)}."
    glue(f"{kind}_verdict", verdict, display=False)
    for role, name in (("main", names[0]), ("other", names[-1])):
        glue(f"{role}_{kind}", str(mean_interval(wide[name])), display=False)
for role, name in (("main", names[0]), ("other", names[-1])):
    glue(role, name, display=False)
    untrained = reached.loc[name, "untrained", "cls", "linear"]
    glue(f"{role}_untrained", str(MeanInterval(*untrained)), display=False)
    for key, way in (("tuned", "fine-tuned"), ("scratch", "from random weights")):
        glue(f"{role}_{key}", str(MeanInterval(*after.loc[name, way])), display=False)
for key, value in {
    "pixels": str(mean_interval(pixels)),
    "dataset": dataset,
    "n_classes": len(classes),
    "n_measured": len(first.val.indices),
    "n_chosen": len(first.dev.indices),
    "n_most": counts[-1],
    "n_neighbours": NEIGHBOURS,
    "n_cells": PIXEL_GRID,
    "epochs": epochs,
    "batch_size": recipe.batch_size,
    "learning_rate": f"{learning_rate:g}",
    "weight_decay": f"{weight_decay:g}",
}.items():
    glue(key, value, display=False)

# %% [markdown]
# ## What would have disproved the claim
#
# - Frozen features from which classes are read no better than from raw pixels, or than from the same
#   network untrained: then the network would have learned its own classes and nothing else
#   ({numref}`fig-transfer-probes`).
# - A fine-tuned network that is no better than one from random weights ({numref}`fig-transfer-tuned`).
#
# That a CRATE's features transfer does not say that they transfer *better* than a ViT's: for that its
# interval would have to lie above the ViT's.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
columns = ["model", "quantity", "mean", "low", "high"]
label_of = {"trained": "", "untrained": ", untrained", "none": ""}
probed = most[most.reader == "linear"]
of = "accuracy, linear probe of " + probed.features + probed.weights.map(label_of)
results = probed.assign(quantity=of)[columns].values.tolist()
results += tuned.assign(quantity="accuracy, " + tuned.way)[columns].values.tolist()
save_results(results, output, "16-transfer")
data = [
    load_dataset(dataset, split, size, len(part.pictures), seed)
    for size, parts in splits.items()
    for split, part in parts._asdict().items()
    if split != "dev" or part.pictures is not parts.train.pictures  # a folder has no `dev`
]
show_provenance("16-transfer", parameters, models, data)
