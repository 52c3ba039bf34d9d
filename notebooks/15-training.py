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
# # When does the structure appear?
#
# **The claim.** {cite:t}`yu2024emergence` follow a CRATE from its initial weights through ninety epochs
# and show that segmentation is not there at the start, appears early, and improves as training goes
# on (their Fig. 10). {cite:t}`yu2023whitebox` show that training deepens the fall of the coding rate
# and of the share of non-zero entries.
#
# **What we find.** On {glue:text}`n_measured` pictures, {glue:text}`main` starts with a best-head IoU of
# {glue:text}`main_iou_first` and ends with {glue:text}`main_iou_last` (95 % intervals over pictures),
# at an accuracy of {glue:text}`main_accuracy_first:.0%` and {glue:text}`main_accuracy_last:.0%`. Its
# highest IoU, {glue:text}`main_peak_iou`, is at step {glue:text}`main_peak`. {glue:text}`other` goes from {glue:text}`other_iou_first` to
# {glue:text}`other_iou_last` and is highest at step {glue:text}`other_peak`, with
# {glue:text}`other_peak_iou`. In the last layer of {glue:text}`main` the coding rate goes from
# {glue:text}`main_rate_first:.0f` to {glue:text}`main_rate_last:.0f` nats, and the share of non-zero
# entries from {glue:text}`main_share_first:.2f` to {glue:text}`main_share_last:.2f`.
#
# **How our setting differs.** One training run a model, {glue:text}`last_step` steps of small networks
# on drawn animals ({doc}`01-models-and-data`), followed from step to step; the paper's runs see about a
# thousand times as many pictures. Its Fig. 10 also gives detection scores; ours
# are in {doc}`11-detection`.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
n_images = 120
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
import seaborn as sns
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.datasets import read_samples
from crate_analysis.datasets.creatures import PARTS
from crate_analysis.measures import MeanInterval, coding_rate, mean_interval, nonzero_fraction
from crate_analysis.models import load_models, load_snapshots
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.notebook import save_figure, save_results, show_provenance
from crate_analysis.plotting import (
    heat,
    interval_curves,
    model_colours,
    reference_line,
    rgb_tile,
    sheet,
    step_axis,
)
from crate_analysis.probes import collect, papers_layer, pca_rgb
from crate_analysis.segmentation import Truth, attention_mask, baseline_iou

networks = load_models(models)
names = list(networks)
colours = model_colours(names)
pictures = {
    size: load_dataset(dataset, "val", size, n_images, seed)
    for size in dict.fromkeys(network.config.image_size for network in networks.values())
}

# %% [markdown]
# ## Snapshots
#
# Training keeps the weights at initialisation and at steps that double up to the last. Each snapshot
# is read in one pass over the pictures: the attention of `[CLS]` at every layer, the coding rate, the
# share of non-zero entries, the features at the paper's layer and the class.

# %% tags=["hide-input"]
readers = {
    "attention": lambda state: state.attention()[:, :, 0, 1:],
    "coding rate": lambda state: coding_rate(state.projections),
    "non-zero share": lambda state: nonzero_fraction(state.output),
    "features": lambda state: merge_heads(state.projections)[:, 1:],
}


def tidy(values, quantity):
    """A row for each picture and layer of (images, layers)."""
    image, layer = np.indices(values.shape)
    columns = {"image": image.ravel(), "layer": layer.ravel(), "value": values.ravel()}
    return pd.DataFrame({**columns, "quantity": quantity})


n_alike = 4
read = {size: read_samples(some) for size, some in pictures.items()}
samples = {name: read[network.config.image_size] for name, network in networks.items()}
classes = next(iter(pictures.values())).classes
has_masks = all(any(len(sample.masks) for sample in some) for some in read.values())
steps, first_maps, first_features, frames = {}, {}, {}, []
for given, (name, network) in zip(models, networks.items(), strict=True):
    grid = tuple(s // network.config.patch_size for s in samples[name][0].image.shape[1:])
    truth = Truth(samples[name], range(len(samples[name])), grid) if has_masks else None
    labels = [sample.label for sample in samples[name]]
    alike = [index for index, label in enumerate(labels) if label == labels[0]][:n_alike]
    steps[name] = []
    for step, snapshot in load_snapshots(given):
        steps[name].append(step)
        classify = {"logits": lambda state, model=snapshot: model.classify(state.output)}
        found = collect(snapshot, samples[name], readers | classify)
        attention = found["attention"].unflatten(-1, grid)
        here = papers_layer(network)
        first_maps[name, step] = attention[0, here].numpy()
        first_features[name, step] = pca_rgb(found["features"][alike, here], grid).numpy()
        parts = [tidy(found[q].numpy(), q) for q in ("coding rate", "non-zero share")]
        logits = found["logits"][:, -1]
        if None not in labels and logits.shape[1] == len(classes):
            hits = (logits.argmax(1).numpy() == labels).astype(float)
            parts.append(tidy(hits[:, None], "accuracy"))
        for layer in range(attention.shape[1]) if has_masks else ():
            part = truth.best_head_iou(attention_mask(attention[:, layer], keep), PARTS)
            part = part.rename(columns={"iou": "value"})
            parts.append(part.assign(layer=layer, quantity="IoU"))
        frames.append(pd.concat(parts).assign(model=name, step=step))
    if not steps[name]:
        display(Markdown(f"No snapshots were kept beside `{name}`: it is left out."))
if not has_masks:
    display(Markdown(f"`{dataset}` has no masks: the IoU is left out below."))
names = [name for name in names if steps[name]]
main = names[0] if names else None
if names:
    values = pd.concat(frames, ignore_index=True)
    shown_steps = sorted({step for name in names for step in steps[name]})

# %% [markdown]
# ## The same picture at every step
#
# {numref}`fig-training-heads` shows every head at the layer that the paper takes, for the first picture
# of the validation split. {numref}`fig-training-pca` shows the patch features of that picture and of
# the next ones of its class as colours: per step, the first principal component of all of them takes
# the background away, the next three are red, green and blue ({doc}`10-pca`). Components are found
# anew at each step, so a colour means nothing from one column to the next; what can be compared is
# which patches share one.

# %% mystnb={"figure": {"caption": "Attention of `[CLS]` at every snapshot, all heads, on the first picture of the validation split. CRATE at its last layer but one, the ViT at its last.", "name": "fig-training-heads"}, "image": {"alt": "A sheet of attention maps: a row for each head of each model, a column for each training step."}} tags=["hide-input"]
if names:
    tiles, row_names, where = [], [], []
    for name in names:
        picture = samples[name][0].image.permute(1, 2, 0).numpy()
        for head in range(len(first_maps[name, steps[name][0]])):
            line = [heat(first_maps[name, step][head], picture.shape[:2]) for step in steps[name]]
            tiles.append([picture, *line])
            row_names.append(f"{name.split('-')[0]}, head {head + 1}")
            where += [(name, step, papers_layer(networks[name]), head) for step in steps[name]]
    figure, ax = plt.subplots(figsize=(9, 9 * len(tiles) / len(tiles[0])))
    columns = ["picture"] + [f"step {step:,}" for step in steps[main]]
    sheet(tiles, columns, row_names, ax)
    shown = pd.DataFrame(where, columns=["model", "step", "layer", "head"])
    save_figure(figure, shown.assign(path=samples[main][0].path), output, "fig-training-heads")

# %% mystnb={"figure": {"caption": "Patch features as colours at every snapshot, pictures of one class together. White: background by the first component.", "name": "fig-training-pca"}, "image": {"alt": "A sheet of pictures coloured by the principal components of their patch features, a column for each training step."}} tags=["hide-input"]
if names:
    tiles, row_names, where = [], [], []
    for name in names:
        alike = [s for s in samples[name] if s.label == samples[name][0].label][:n_alike]
        for index, sample in enumerate(alike):
            size = sample.image.shape[1:]
            line = [rgb_tile(first_features[name, step][index], size) for step in steps[name]]
            tiles.append([sample.image.permute(1, 2, 0).numpy(), *line])
            row_names.append(name.split("-")[0])
            where += [
                (name, step, papers_layer(networks[name]), sample.path) for step in steps[name]
            ]
    figure, ax = plt.subplots(figsize=(9, 9 * len(tiles) / len(tiles[0])))
    sheet(tiles, columns, row_names, ax)
    shown = pd.DataFrame(where, columns=["model", "step", "layer", "path"])
    save_figure(figure, shown, output, "fig-training-pca")

# %% [markdown]
# ## What grows when
#
# {numref}`fig-training-curves` puts four quantities on the same steps: the accuracy on the measured
# pictures, the IoU of the best head with the object at the paper's layer ({doc}`07-segmentation` says
# how), and at the last layer the coding rate and the share of non-zero entries
# ({doc}`02-compression`). If segmentation is what classification needs, it should come before or with
# the accuracy, and stay.

# %% tags=["hide-input"]
if names:
    read_at = {name: papers_layer(networks[name]) for name in names}
    last_layer = {name: len(networks[name].layers) - 1 for name in names}
    places = {
        "accuracy": dict.fromkeys(names, 0),
        "IoU": read_at,
        "coding rate": last_layer,
        "non-zero share": last_layer,
    }
    rows = []
    for (quantity, name, step), part in values.groupby(["quantity", "model", "step"], sort=False):
        part = part[part.layer == places[quantity][name]]
        rows.append((quantity, name, step, places[quantity][name], *mean_interval(part.value)))
    curves = pd.DataFrame(
        rows, columns=["quantity", "model", "step", "layer", "mean", "low", "high"]
    )
    measured = [quantity for quantity in places if quantity in set(curves.quantity)]
    if has_masks:
        patch, heads = networks[main].config.patch_size, networks[main].config.heads
        level = baseline_iou(samples[main], patch, heads, keep, ("mass",), seed=seed)
        level = level[~level["mask"].isin(PARTS)].groupby(["model", "image", "mask"]).iou.max()
        level = level.groupby("model").mean()[["centre prior", "random maps"]]

# %% mystnb={"figure": {"caption": "Accuracy, IoU of the best head, coding rate and share of non-zero entries against training step; the last two at the last layer. Mean over pictures and its 95 % interval. Steps double from mark to mark.", "name": "fig-training-curves"}, "image": {"alt": "Line plots of four quantities against the training step, for each model."}} tags=["hide-input"]
if names:
    units = {"IoU": "IoU of the best head", "coding rate": "coding rate (nats)"}
    figure, panels = plt.subplots(
        1 + (len(measured) - 1) // 2, 2, figsize=(9, 5.6), layout="constrained", squeeze=False
    )
    for ax, quantity in zip(panels.flat, measured, strict=False):
        part = curves[curves.quantity == quantity]
        interval_curves(
            part, {n: colours[n] for n in names}, "step", units.get(quantity, quantity), ax
        )
        step_axis(shown_steps, ax)
        ax.set_ylim(0, None)
    for name, value in level.items() if has_masks else ():
        reference_line(value, name, panels.flat[measured.index("IoU")])
    panels.flat[0].legend(frameon=False)
    save_figure(figure, curves, output, "fig-training-curves")

# %% [markdown]
# Where a curve of the IoU is highest long before its last step, training has given the maps something
# and then taken it away. For {glue:text}`other` that is step {glue:text}`other_peak`, when it names
# {glue:text}`other_peak_accuracy:.0%` of the pictures rightly, against {glue:text}`other_accuracy_last:.0%`
# at the end; for {glue:text}`main` it is step {glue:text}`main_peak`. A ViT of which only the last
# weights are looked at hides this.
#
# {numref}`fig-training-layers` shows where in the network this happens: the IoU of the best head at
# every layer, and the coding rate, a line for each snapshot from light to dark.

# %% mystnb={"figure": {"caption": "By layer, from light (initial) to dark (trained): IoU of the best head (top) and coding rate (bottom). Means over pictures.", "name": "fig-training-layers"}, "image": {"alt": "Line plots of IoU and coding rate against the layer, one line for each snapshot, one column for each model."}} tags=["hide-input"]
if names:
    kinds = [quantity for quantity in ("IoU", "coding rate") if quantity in measured]
    by_layer = values[values.quantity.isin(kinds)]
    by_layer = by_layer.groupby(["quantity", "model", "step", "layer"]).value.mean().reset_index()
    figure, panels = plt.subplots(
        len(kinds),
        len(names),
        figsize=(9, 3 * len(kinds)),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey="row",
    )
    for line, quantity in zip(panels, kinds, strict=True):
        for ax, name in zip(line, names, strict=True):
            part = by_layer[(by_layer.quantity == quantity) & (by_layer.model == name)]
            shades = sns.light_palette(colours[name], len(steps[name]) + 2)[2:]
            sns.lineplot(
                part.assign(layer=part.layer + 1),
                x="layer",
                y="value",
                hue="step",
                palette=shades,
                marker="o",
                markeredgewidth=0,
                ax=ax,
            )
            ax.set(
                ylabel=units[quantity], title=name if quantity == kinds[0] else "", ylim=(0, None)
            )
            if quantity == kinds[-1]:
                ax.legend(title="step", frameon=False, fontsize="small", ncols=2)
            else:
                ax.get_legend().remove()
            ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, by_layer, output, "fig-training-layers")

# %% tags=["hide-input"]
if names:
    wide = curves.pivot(index=["model", "step"], columns="quantity", values="mean")
    bands = curves.set_index(["quantity", "model", "step"])[["mean", "low", "high"]]
    for role, name in (("main", names[0]), ("other", names[-1])):
        mine = wide.loc[name]
        first, last = mine.index[0], mine.index[-1]
        glue(role, name, display=False)
        for quantity, key in (
            ("IoU", "iou"),
            ("accuracy", "accuracy"),
            ("coding rate", "rate"),
            ("non-zero share", "share"),
        ):
            if quantity not in measured:
                continue
            for end, step in (("first", first), ("last", last)):
                value = mine[quantity][step]
                text = (
                    str(MeanInterval(*bands.loc[quantity, name, step]))
                    if key == "iou"
                    else float(value)
                )
                glue(f"{role}_{key}_{end}", text, display=False)
        if has_masks:
            peak = mine.IoU.idxmax()
            glue(f"{role}_peak", f"{peak:,}", display=False)
            glue(
                f"{role}_peak_iou", str(MeanInterval(*bands.loc["IoU", name, peak])), display=False
            )
            if "accuracy" in measured:
                glue(f"{role}_peak_accuracy", float(mine.accuracy[peak]), display=False)
    glue("n_measured", len(samples[main]), display=False)
    glue("last_step", f"{shown_steps[-1]:,}", display=False)

# %% [markdown]
# ## What would have disproved the claim
#
# - Maps of the initial network that segment as well as those of the trained one: then nothing would
#   have emerged.
# - An IoU that falls back to the level of the centre prior as training goes on: then segmentation
#   would be a stage that training passes through, not what it leads to.
# - A ViT whose curve looks the same: then training would explain it, not the design.
#
# {numref}`fig-training-curves` is the test of all three.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
results = []
for name in names:
    for quantity in measured:
        mine = curves[(curves.model == name) & (curves.quantity == quantity)].set_index("step")
        told = {"first": steps[name][0], "last": steps[name][-1]}
        told |= {"highest": mine["mean"].idxmax()} if quantity == "IoU" else {}
        for end, step in told.items():
            found = mine.loc[step, ["mean", "low", "high"]]
            results.append((name, f"{quantity}, {end} snapshot", *found))
save_results(results, output, "15-training")
show_provenance("15-training", parameters, models, pictures.values())
