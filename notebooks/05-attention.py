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
# # What does each head look at?
#
# **The claim.** {cite:t}`yu2024emergence` show, on selected pictures, that the attention of `[CLS]` in a
# CRATE trained only to classify lies on the object and follows its outline, head by head, while that of
# a ViT trained the same way is scattered (their Fig. 1, 8 and 14).
#
# **What we find.** With the default models, on the first pictures of a split, unselected, most maps of
# the CRATE show the animal, whole or in large part, and those of the ViT a few bright patches: to the
# eye, just the claim. The numbers say what the difference is. On {glue:text}`n_measured` pictures,
# averaged over heads at the layer that the paper takes, {glue:text}`main` gives the animal
# {glue:text}`main_share` of its attention and {glue:text}`other` {glue:text}`other_share` (95 % intervals
# over pictures), where a blob in the middle would give it {glue:text}`centre_share:.2f` and an even map
# {glue:text}`even_share:.2f`. How much of the animal is looked at is another matter: of its patches, the
# maps of {glue:text}`main` are spread over {glue:text}`main_evenness`, those of {glue:text}`other` over
# {glue:text}`other_evenness`. The layer with the most attention on the animal is
# {glue:text}`main_top_layer` in {glue:text}`main` ({glue:text}`main_top_share`) and
# {glue:text}`other_top_layer` in {glue:text}`other` ({glue:text}`other_top_share`). The animal that
# {glue:text}`main` attends to least is {glue:text}`worst_species`: it gets
# {glue:text}`worst_species_share` of the attention, and covers {glue:text}`worst_species_pixels:.2f` of
# the pixels.
#
# Ask a patch in the place of `[CLS]`. In {glue:text}`main` a patch of the animal gives
# {glue:text}`main_inside` of its attention to the animal and one far away from it
# {glue:text}`main_outside`; in {glue:text}`other` the two give {glue:text}`other_inside` and
# {glue:text}`other_outside`. If like answers like, the first number of each pair is the larger. Pictures
# of {glue:text}`largest:g` times the side give a grid as much finer. The maps of {glue:text}`main` keep
# {glue:text}`main_similarity` in common with the original ones ({glue:text}`main_floor` for maps of
# different pictures), those of {glue:text}`other` {glue:text}`other_similarity`
# ({glue:text}`other_floor`). The best head's IoU changes by {glue:text}`main_gain` and
# {glue:text}`other_gain`, and the accuracy goes from {glue:text}`main_accuracy_small:.0%` to
# {glue:text}`main_accuracy_large:.0%` and from {glue:text}`other_accuracy_small:.0%` to
# {glue:text}`other_accuracy_large:.0%`.
#
# **How our setting differs.** The paper's maps have 28 × 28 patches and come from networks trained on
# ImageNet-21k; ours have {glue:text}`grid` patches and come from small networks, trained once each on
# drawn animals ({doc}`01-models-and-data`). Intervals are over pictures, not over trainings. No picture
# and no head is chosen by eye; how they are chosen is said with each figure.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
n_images = 120
n_shown = 24
n_scaled = 32
scales = [1.5, 2.0]
keep = 0.6
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    n_images=int,
    n_shown=int,
    n_scaled=int,
    scales=list[float],
    keep=float,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
from itertools import chain, islice

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.datasets import batches, read_samples, stack_images
from crate_analysis.datasets.creatures import PARTS
from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.models import load_models
from crate_analysis.models.registry import from_config
from crate_analysis.notebook import save_figure, save_results, show_provenance, table
from crate_analysis.plotting import (
    frame_patch,
    group_dots,
    heat,
    interval_curves,
    interval_dots,
    model_colours,
    reference_line,
    sheet,
    smooth_heat,
)
from crate_analysis.probes import (
    attention_share,
    collect,
    deepest_patch,
    effective_patches,
    map_frame,
    map_similarity,
    papers_layer,
    patch_attention,
    regrid,
)
from crate_analysis.segmentation import (
    Truth,
    attention_mask,
    baseline_iou,
    centre_attention,
    patch_ceiling,
)
from crate_analysis.walkthrough import walkthrough, walkthrough_height

networks = load_models(models)
names = list(networks)
short = {name: name.removesuffix("-creatures") for name in names}
colours = model_colours(names)
layers = {name: papers_layer(network) for name, network in networks.items()}


def readers(model):
    """What one pass reads of every layer: the softmax row of `[CLS]`, and the class."""
    return {
        "row": lambda state: state.attention()[:, :, 0],
        "logits": lambda state: model.classify(state.output),
    }


def on_grid(row, size, model):
    """The patches of a softmax row on their grid."""
    patches = size // model.config.patch_size
    return row[..., 1:].unflatten(-1, (patches, patches))


def intervals(values, by):
    """Mean and 95 % interval over pictures of the column `value`, for each group."""
    rows = [(*key, *mean_interval(part.value)) for key, part in values.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"])


sizes = {name: network.config.image_size for name, network in networks.items()}
pictures = {
    size: load_dataset(dataset, "val", size, n_images, seed) for size in set(sizes.values())
}
samples = {size: read_samples(some) for size, some in pictures.items()}
first = samples[sizes[names[0]]]
images = [sample.image.permute(1, 2, 0).numpy() for sample in first]
tile = images[0].shape[:2]
paths = [sample.path for sample in first]
labels = [sample.label for sample in first]
classes = pictures[sizes[names[0]]].classes
has_labels = None not in labels
has_masks = any(len(sample.masks) for sample in first)
if not has_masks:
    display(Markdown(f"`{dataset}` has no masks: what is measured against them is left out below."))

seen = {name: collect(net, samples[sizes[name]], readers(net)) for name, net in networks.items()}
maps = {
    name: on_grid(seen[name]["row"][:, layers[name]], sizes[name], network)
    for name, network in networks.items()
}
average = {name: maps[name].mean(1) for name in names}

# %% [markdown]
# ## From a picture to a map
#
# {numref}`fig-attention-walk` takes the first picture of the validation split through the first model
# to its attention maps, after Fig. 2 of {cite:t}`yu2024emergence`; all that is drawn is what the network
# computes. The picture is cut into patches, each becomes a token, and `[CLS]` is put before them. Each
# head $k$ sees the tokens in a subspace of its own, $V_k = U_k^\top\mathrm{LN}(Z)$. In CRATE the same
# vectors serve as queries and keys, so the attention of `[CLS]` to a patch is the likeness of their
# projections, $\mathrm{softmax}(V_{k,\mathrm{CLS}}^\top V_k/\sqrt p)$; a ViT has separate queries and
# keys. Put back on the grid, that row is the map. The last step, the mask, belongs to
# {doc}`07-segmentation`. That the animal stands out can be seen before any attention is computed: its
# patches are columns of another colour.

# %% tags=["hide-input"]
main, layer = networks[names[0]], layers[names[0]]
with torch.inference_mode():
    states = main.unroll(main.normalize(stack_images(first[:1])))
    state = next(state for state in states if state.index == layer)
    row = state.attention()[0, :, 0]
    t, d = state.tokens.shape[1:]
p, z = main.config.head_dim, f"Z^{{{layer + 1}}}"
if main.config.attention == "mssa":
    seen_as = rf"$V_k = U_k^{{\top}}\,\mathrm{{LN}}({z})$"
    likeness = r"softmax$\,(V_{k,\mathrm{CLS}}^{\top}\, V_k / \sqrt{p}\,)$"
else:
    seen_as = rf"keys $K_k$ of $\mathrm{{LN}}({z})$"
    likeness = r"softmax$\,(q_{k,\mathrm{CLS}}^{\top}\, K_k / \sqrt{p}\,)$"
said = {
    "patches": f"{t - 1} patches of {main.config.patch_size} × {main.config.patch_size}",
    "layers": "embed, add positions" + (f",\nlayers 1 to {layer}" if layer else ""),
    "tokens": f"tokens ${z}$: a column each ({d} × {t}),\n[CLS] first and drawn wider",
    "projections": f"in each head's subspace:\n{seen_as}, {p} × {t}",
    "attention": f"how much [CLS] resembles each token:\n{likeness}",
    "map": "on the grid:\nattention map",
    "mask": f"its brightest:\n{keep:.0%} of the sum",
}

# %% mystnb={"figure": {"caption": "From a picture to attention maps and masks, with the first model and the first picture of the split. Matrices: red above zero, blue below, a column a token. Bars: the softmax row of `[CLS]`, first (green) what it gives to itself, then the patches row by row.", "name": "fig-attention-walk"}, "image": {"alt": "A drawing: a picture, its patches, the matrix of tokens; below, for each head, the projections, the bars of attention, the attention map and the mask."}} tags=["hide-input"]
heads = main.config.heads
figure, ax = plt.subplots(figsize=(10, walkthrough_height(heads) / 10))
figure.subplots_adjust(0, 0, 1, 1)
drawn = [array.numpy() for array in (state.tokens[0], state.projections[0], row)]
mask = attention_mask(maps[names[0]][0], keep).numpy()
walkthrough(images[0], *drawn, mask, said, ax)
walk_map = map_frame(maps[names[0]][:1], model=names[0], layer=layer, path=paths[0])
save_figure(figure, walk_map, output, "fig-attention-walk")

# %% [markdown]
# ## Two dozen pictures
#
# {numref}`fig-attention-gallery` shows the first pictures of the split with the average over all heads,
# so that neither pictures nor heads are chosen. The layer is the paper's: the last but one for CRATE, the
# last for a ViT. Each map runs from dark (none) to its own brightest value.

# %% tags=["hide-input"]
n_shown = min(n_shown, len(first))
per_row = max(1, 9 // (1 + len(names)))
entries = [
    [images[index], *(smooth_heat(average[name][index].numpy(), tile) for name in names)]
    for index in range(n_shown)
]
tiles = [list(chain(*entries[start : start + per_row])) for start in range(0, n_shown, per_row)]
columns = ["picture", *(short[name] for name in names)] * min(per_row, n_shown)
gallery = pd.concat(
    map_frame(average[name][:n_shown, None], model=name, layer=layers[name]).assign(
        head="mean", path=lambda frame: frame.image.map(lambda index: paths[index])
    )
    for name in names
)

# %% mystnb={"figure": {"caption": "Attention of `[CLS]`, averaged over heads, on the first pictures of the validation split. Smoothed for display only.", "name": "fig-attention-gallery"}, "image": {"alt": "A sheet of pictures of animals, each followed by a map for each model."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.4))
sheet(tiles, columns, ax=ax)
save_figure(figure, gallery, output, "fig-attention-gallery")

# %% [markdown]
# Smoothing flatters: it draws round limbs where there are only patches. {numref}`fig-attention-grid` puts
# the true grid beside it, and everything that is measured is measured on the true grid, whose values are
# in the table saved with each of these figures.

# %% tags=["hide-input"]
tiles, columns = [], ["picture"]
for index in range(min(2, len(first))):
    own = [average[name][index].numpy() for name in names]
    both = chain(*((heat(values, tile), smooth_heat(values, tile)) for values in own))
    tiles.append([images[index], *both])
for name in names:
    down, across = average[name].shape[1:]
    columns += [f"{short[name]}\n{down} × {across} patches", f"{short[name]}\nsmoothed"]

# %% mystnb={"figure": {"caption": "The first two maps on the true grid and smoothed.", "name": "fig-attention-grid"}, "image": {"alt": "Two pictures, each with its maps as blocks and as smooth surfaces."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.4))
sheet(tiles, columns, ax=ax)
save_figure(figure, gallery[gallery.image < 2], output, "fig-attention-grid")

# %% [markdown]
# ## Every head
#
# {numref}`fig-attention-heads` shows all heads on the first picture of each class (without classes, on
# the first pictures), at most twelve, on the true grid. To the eye, with the default models, the CRATE's
# heads differ more in how much they give to the rest of the picture than in what stands out. On some
# pictures, heads of the ViT turn the picture round and look at the background with the animal left out,
# but it is not always the same head that does.

# %% tags=["hide-input"]
new_class = [index for index, label in enumerate(labels) if label not in labels[:index]]
chosen = (new_class if has_labels else list(range(len(first))))[:12]
tiles = [
    [images[index], *(heat(head.numpy(), tile) for name in names for head in maps[name][index])]
    for index in chosen
]
columns = ["picture"] + [
    f"{short[name]}\nhead {head + 1}" for name in names for head in range(maps[name].shape[1])
]
rows = [classes[labels[index]] for index in chosen] if has_labels else []
every_head = pd.concat(
    map_frame(maps[name][[index]], model=name, layer=layers[name], path=paths[index]).assign(
        image=index
    )
    for name in names
    for index in chosen
)

# %% mystnb={"figure": {"caption": "Attention of `[CLS]` in every head, on the first picture of each class.", "name": "fig-attention-heads"}, "image": {"alt": "A sheet with a row for each species: a picture and the maps of all heads of each model."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 9.4 * len(tiles) / len(tiles[0]) + 0.5))
sheet(tiles, columns, rows, ax)
save_figure(figure, every_head, output, "fig-attention-heads")

# %% [markdown]
# ## How wide, on what, how evenly
#
# Four numbers for each picture, layer and head ({numref}`fig-attention-numbers`):
#
# - *width*: the effective number of patches, $\exp$ of the entropy, as a share of all; 1 for an even map;
# - *attention on objects*: the share of the map that lies on what the masks cover. An even map scores the
#   objects' share of the pixels, and the *centre prior* is a blob in the middle, the same for all;
# - *evenness on objects*: the effective number of patches within the object, as a share of its patches:
#   1 where all of the object is equally bright, little where one spot outshines the rest. An even map has 1
#   here too, so this says something only beside the one before;
# - *`[CLS]` on itself*: what the other three leave out.

# %% tags=["hide-input"]
WIDTH, SHARE, EVEN, SELF = "width", "attention on objects", "evenness on objects", "[CLS] on itself"


def objects(samples):
    """All that has a mask, (b,1,H,W)."""
    return torch.stack([sample.masks.any(0, keepdim=True) for sample in samples])


def share_on(maps, covered):
    """Share of each map on the objects, (b,h); NaN where a picture has none."""
    return attention_share(maps, covered)[..., 0].where(covered.any((2, 3)), torch.nan)


def tidy(values, **columns):
    """A row for each picture, layer and head of (b,l,h)."""
    image, at, head = np.indices(values.shape).reshape(3, -1)
    return pd.DataFrame(
        {**columns, "image": image, "layer": at, "head": head, "value": values.numpy().ravel()}
    )


frames = []
for name, network in networks.items():
    size, n_patches = sizes[name], seen[name]["row"].shape[-1] - 1
    torch.manual_seed(seed)
    untrained = from_config(network.config).eval()
    initial = collect(untrained, samples[size], {"row": readers(untrained)["row"]})["row"]
    for weights, rows in (("trained", seen[name]["row"]), ("initial", initial)):
        every = on_grid(rows, size, network)
        values = {WIDTH: effective_patches(every) / n_patches, SELF: rows[..., 0]}
        if has_masks:
            covered = objects(samples[size])
            values[SHARE] = share_on(every.flatten(1, 2), covered).unflatten(1, every.shape[1:3])
            inside = patch_ceiling(covered, network.config.patch_size)[:, None]
            within = effective_patches((every * inside).clamp(min=1e-20))
            values[EVEN] = (within / inside.sum((-2, -1))).where(inside.any(-1).any(-1), torch.nan)
        for quantity, value in values.items():
            frames.append(tidy(value, quantity=quantity, model=name, weights=weights))
numbers = pd.concat(frames, ignore_index=True)
measured = [quantity for quantity in (WIDTH, SHARE, EVEN, SELF) if quantity in values]
keys = ["quantity", "model", "weights", "layer"]
by_picture = numbers.groupby([*keys, "image"], sort=False).value.mean().reset_index()
by_layer = intervals(by_picture, keys)
by_head = numbers.groupby([*keys, "head"], sort=False).value.mean().reset_index()
tokens = {seen[name]["row"].shape[-1] for name in names}
levels = {SELF: {"even": 1 / tokens.pop()}} if len(tokens) == 1 else {}
if has_masks:
    covered, grid = objects(first), maps[names[0]].shape[-2:]
    blob = share_on(centre_attention(*grid).expand(len(first), 1, *grid), covered)[:, 0]
    pixels_covered = covered.float().mean((1, 2, 3))
    even = float(pixels_covered[pixels_covered > 0].mean())
    levels[SHARE] = {"centre prior": float(blob.nanmean()), "even": even}

# %% mystnb={"figure": {"caption": "Numbers of the maps by layer. Thick: mean over heads, with 95 % intervals over pictures; thin: each head; dashed: the same networks before training. Dotted: maps that know nothing of the picture.", "name": "fig-attention-numbers"}, "image": {"alt": "Line plots against the layer: width of the maps, attention on objects, evenness on objects, attention of CLS on itself."}} tags=["hide-input"]
figure, panels = plt.subplots(
    len(measured) // 2, 2, figsize=(9, 3.1 * (len(measured) // 2)), layout="constrained"
)
for ax, quantity in zip(panels.flat, measured, strict=True):
    curves = by_layer[by_layer.quantity == quantity].assign(layer=lambda frame: frame.layer + 1)
    interval_curves(curves[curves.weights == "trained"], colours, "layer", quantity, ax)
    for name in names:
        before = curves[(curves.model == name) & (curves.weights == "initial")]
        ax.plot(before.layer, before["mean"], "--", color=colours[name], linewidth=1.2)
        own = by_head.query("quantity == @quantity and model == @name and weights == 'trained'")
        for _, head in own.groupby("head"):
            ax.plot(head.layer + 1, head.value, color=colours[name], linewidth=0.6, alpha=0.6)
    for label, level in levels.get(quantity, {}).items():
        reference_line(level, label, ax)
    ax.set_ylim(0, None)
panels.flat[0].legend(frameon=False, fontsize="small")
save_figure(figure, by_layer, output, "fig-attention-numbers")

# %% [markdown]
# The same at the paper's layer, head by head, with 95 % intervals over pictures; the width is given in
# patches.

# %% tags=["hide-input"]
rows = []
for name in names:
    own = numbers.query("model == @name and weights == 'trained' and layer == @layers[@name]")
    for head, part in own.groupby("head"):
        cells = part.pivot(index="image", columns="quantity", values="value")
        patches = mean_interval(cells[WIDTH] * (seen[name]["row"].shape[-1] - 1))
        rest = {quantity: mean_interval(cells[quantity]) for quantity in measured[1:]}
        rows.append({"model": name, "head": head + 1, "patches": patches, **rest})
table(pd.DataFrame(rows).set_index("model"))

# %% [markdown]
# {numref}`fig-attention-species` asks for which animals this holds. With the default models, the CRATE's
# attention seems to follow the coat: it is strongest on brown and orange animals, weaker on those with
# black and white in them, and the ViT's averages differ less from species to species. {glue:text}`main`
# gives least to {glue:text}`worst_species`, and names {glue:text}`worst_species_named` of them right: not
# to attend to an animal is not the same as not to see it.

# %% tags=["hide-input"]
by_class = pd.DataFrame()
if has_masks and has_labels:
    own = by_picture[(by_picture.quantity == SHARE) & (by_picture.weights == "trained")]
    own = own[own.layer == own.model.map(layers)].dropna(subset="value")
    own = own.assign(group=own.image.map(lambda index: classes[labels[index]]), label=own.model)
    own = own[own.groupby(["model", "group"]).image.transform("count") > 1]
    by_class = intervals(own, ["group", "label"])
    order = by_class[by_class.label == names[0]].sort_values("mean").group
    by_class = by_class.set_index("group").loc[order].reset_index()
    own_pixels = own.assign(pixels=pixels_covered.numpy()[own.image]).groupby("group").pixels.mean()

# %% mystnb={"figure": {"caption": "Attention on the animal at the paper's layer, averaged over heads, by species, with 95 % intervals over pictures. Grey: the share of the pixels.", "name": "fig-attention-species"}, "image": {"alt": "Dots with intervals for each species and model."}} tags=["hide-input"]
if len(by_class):
    figure, ax = plt.subplots(figsize=(7.5, 0.8 + 0.34 * by_class.group.nunique()))
    group_dots(by_class, colours, own_pixels[order].to_frame("its share of pixels"), SHARE, ax)
    ax.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    save_figure(figure, by_class, output, "fig-attention-species")

# %% [markdown]
# ## Other tokens ask
#
# `[CLS]` is one token among others, and each patch has a row of the attention matrix, too.
# {numref}`fig-attention-queries` asks from two patches of each picture: the one that lies deepest inside
# the objects (red) and the one deepest outside of them (blue), by the distance to the outline. (Without
# masks: the patches that `[CLS]` attends to most and least.) In the default CRATE, where likeness is all
# there is, the two answers are figure and ground.

# %% tags=["hide-input"]
n_scaled = min(n_scaled, len(first))
asking = list(range(n_scaled))
if has_masks:  # the first pictures with something inside of the objects and something outside
    covers = [objects(some).mean((1, 2, 3), dtype=torch.float) for some in samples.values()]
    has_both = torch.stack([(cover > 0) & (cover < 1) for cover in covers]).all(0)
    asking = has_both.nonzero()[:n_scaled, 0].tolist()
positions, asked = {}, {}
for name, network in networks.items():
    some = [samples[sizes[name]][index] for index in asking]
    grid = tuple(maps[name].shape[-2:])
    if has_masks:
        covered = objects(some)[:, 0]
        places = [deepest_patch(covered, grid), deepest_patch(~covered, grid)]
    else:
        flat = average[name][asking].flatten(1)
        ends = (flat.argmax(1), flat.argmin(1))
        places = [torch.stack([end // grid[1], end % grid[1]], 1) for end in ends]
    positions[name] = torch.stack(places, 1)
    pixels = network.normalize(stack_images(some))
    asked[name] = patch_attention(network, pixels, positions[name], layers[name])

# %% tags=["hide-input"]
RED, BLUE = (0.94, 0.2, 0.15), (0.15, 0.55, 0.95)
tiles, frames = [], []
for turn, index in enumerate(asking[:5]):
    marked, line = images[index], []
    for colour, place in zip((RED, BLUE), positions[names[0]][turn].tolist(), strict=True):
        marked = frame_patch(marked, place, tuple(maps[names[0]].shape[-2:]), colour)
    for name in names:
        answers = (average[name][index], *asked[name][turn].mean(0))
        line += [smooth_heat(answer.numpy(), tile) for answer in answers]
        at = ("", *(tuple(place) for place in positions[name][turn].tolist()))
        for query, place, answer in zip(("[CLS]", "red", "blue"), at, answers, strict=True):
            about = {"model": name, "layer": layers[name], "path": paths[index]}
            frame = map_frame(answer[None, None], query=query, asked_from=str(place), **about)
            frames.append(frame.assign(image=index, head="mean"))
    tiles.append([marked, *line])
columns = ["picture"] + [
    f"{short[name]}\n{query}" for name in names for query in ("from [CLS]", "from red", "from blue")
]

# %% mystnb={"figure": {"caption": "Who asks matters: attention of `[CLS]`, of the patch framed red and of the one framed blue, averaged over heads, on the first pictures of the split. Smoothed for display only.", "name": "fig-attention-queries"}, "image": {"alt": "Pictures with two framed patches, and for each model the attention maps of CLS and of the two patches."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.4))
sheet(tiles, columns, ax=ax)
save_figure(figure, pd.concat(frames), output, "fig-attention-queries")

# %% [markdown]
# {numref}`fig-attention-query-share` puts numbers to it on {glue:text}`n_asked` pictures. What a patch
# gives to itself is left out here. Near patches resemble each other, so a mere blob about the patch that
# asks, as wide as the centre prior, is the level to beat.

# %% tags=["hide-input"]
ASKS = {"[CLS]": "[CLS]", "inside": "a patch of the animal", "outside": "a patch away from it"}


def blob_about(place, grid):
    """The centre prior, a quarter of the side wide, moved to a patch."""
    down, across = grid
    wide = centre_attention(2 * down + 1, 2 * across + 1, 0.25 * down / (2 * down + 1))
    return wide[down - place[0] : 2 * down - place[0], across - place[1] : 2 * across - place[1]]


query_share = pd.DataFrame()
if has_masks:
    picture, answers = torch.arange(len(asking)), {}
    for name in names:
        answers[name, "[CLS]"] = maps[name][asking]
        for number, query in enumerate(("inside", "outside")):
            answers[name, query] = asked[name][:, :, number]
    for number, query in enumerate(("inside", "outside")):
        places, grid = positions[names[0]][:, number].tolist(), tuple(maps[names[0]].shape[-2:])
        blobs = torch.stack([blob_about(place, grid) for place in places])
        answers["blob", query] = blobs[:, None]
    rows = []
    for (name, query), answer in answers.items():
        at = positions.get(name, positions[names[0]])
        if query != "[CLS]":
            down, across = at[:, 0 if query == "inside" else 1].unbind(-1)
            answer = answer.clone()
            answer[picture, :, down, across] = 0
        some = samples[sizes.get(name, sizes[names[0]])]
        share = share_on(answer, objects([some[index] for index in asking])).mean(1)
        label = f"{short.get(name, 'blob about')}{',' * (name in short)} {ASKS[query]}"
        rows.append((name, query, label, *mean_interval(share)))
    query_share = pd.DataFrame(rows, columns=["model", "query", "label", "mean", "low", "high"])
    even = float(pixels_covered[asking].mean())

# %% mystnb={"figure": {"caption": "Attention on the animal by who asks, averaged over heads, with 95 % intervals over pictures. Grey: a blob about the patch that asks. Dotted: an even map.", "name": "fig-attention-query-share"}, "image": {"alt": "Dots with intervals: attention on the animal from CLS, from a patch of the animal and from one away from it, for each model and for a blob."}} tags=["hide-input"]
if len(query_share):
    figure, ax = plt.subplots(figsize=(7.5, 0.6 + 0.34 * len(query_share)))
    interval_dots(query_share, colours, SHARE, ax)
    ax.axvline(even, color="0.35", linestyle=":", linewidth=1)
    ax.annotate("even map", (even, -0.5), ha="center", va="bottom", fontsize="small", color="0.35")
    save_figure(figure, query_share, output, "fig-attention-query-share")

# %% [markdown]
# ## Finer maps from larger pictures
#
# A transformer takes pictures of any size: there are more patches, and the position embeddings are
# resized. Drawn animals can be drawn at any size, so nothing is blurred: {numref}`fig-attention-scales`
# has the same pictures, sampled more finely, at the patch size the network was trained with.

# %% tags=["hide-input"]
factors = sorted({1.0, *scales})
values, scaled, sampled = [], {}, {size: some[:n_scaled] for size, some in samples.items()}
for name, network in networks.items():
    patch, grid = network.config.patch_size, tuple(maps[name].shape[-2:])
    original = maps[name][:n_scaled]
    for factor in factors:
        size = patch * max(1, round(factor * sizes[name] / patch))
        if size not in sampled:
            pictures[size] = load_dataset(dataset, "val", size, n_images, seed)
            drawn = islice(batches(pictures[size], 1), n_scaled)
            sampled[size] = [sample for _, (sample,) in drawn]
        some = sampled[size]
        if factor == 1:
            own, logits = original, seen[name]["logits"][:n_scaled, -1]
        else:
            found = collect(network, some, readers(network), [layers[name], -1], batch_size=1)
            own, logits = on_grid(found["row"][:, 0], size, network), found["logits"][:, -1]
        scaled[name, factor] = some, own
        coarse = regrid(own, grid)
        scores = {
            "similarity": map_similarity(coarse, original).mean(1),
            "floor": map_similarity(coarse, original.roll(1, 0)).mean(1),
        }
        if has_labels and network.config.num_classes == len(classes):
            scores["accuracy"] = (logits.argmax(1) == torch.tensor(labels[:n_scaled])).float()
        if has_masks:
            truth = Truth(some, range(n_scaled), tuple(own.shape[-2:]))
            best = truth.best_head_iou(attention_mask(own, keep), PARTS).set_index("image").iou
            scores["IoU of the best head"] = best.reindex(range(n_scaled))
        for quantity, score in scores.items():
            values.append(
                pd.DataFrame({"image": range(n_scaled), "value": np.asarray(score)}).assign(
                    quantity=quantity, model=name, factor=factor
                )
            )
values = pd.concat(values, ignore_index=True)
by_scale = intervals(values, ["quantity", "model", "factor"])
if has_masks:
    reference = []
    for factor in factors:
        some = scaled[names[0], factor][0]
        found = baseline_iou(some, networks[names[0]].config.patch_size, 1, keep, ("mass",))
        found = found[~found["mask"].isin(PARTS)].groupby("model").iou.mean()
        reference.append(found[["patch ceiling", "centre prior"]].rename(factor))
    reference = pd.DataFrame(reference)

# %% tags=["hide-input"]
largest = max(factors)
tiles, frames = [], []
for index in range(min(4, n_scaled)):
    some = scaled[names[0], largest][0]
    big = some[index].image.permute(1, 2, 0).numpy()
    line = [big]
    for name in names:
        for factor in factors:
            own = scaled[name, factor][1][index].mean(0)
            line.append(heat(own.numpy(), big.shape[:2]))
            about = {"model": name, "layer": layers[name], "path": paths[index], "factor": factor}
            frames.append(map_frame(own[None, None], **about).assign(image=index, head="mean"))
    tiles.append(line)
columns = ["picture"] + [f"{short[name]}\n{factor:g} ×" for name in names for factor in factors]

# %% mystnb={"figure": {"caption": "The same pictures at several sizes: attention of `[CLS]`, averaged over heads, on the true grid. 1 \u00d7 is the size that the network was trained with.", "name": "fig-attention-scales"}, "image": {"alt": "Pictures and their attention maps on finer and finer grids, for each model."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.4))
sheet(tiles, columns, ax=ax)
save_figure(figure, pd.concat(frames), output, "fig-attention-scales")

# %% [markdown]
# Finer is not the same as better. {numref}`fig-attention-scale-numbers` asks three things. How much do the
# fine map, summed back to the original grid, and the original map have in common (the sum of the smaller
# of the two over the patches, 1 for equal maps)? Dashed is what the maps of *different* pictures have in
# common, which is not 0. How well does the best head's mask cover the objects, measured in pixels? And
# does the network still know the class?

# %% mystnb={"figure": {"caption": "Larger pictures: how alike the maps stay to those at the trained size (dashed: maps of different pictures), IoU of the best head (grey: the truth on the patch grid, and a blob in the middle), accuracy. Means with 95 % intervals over pictures.", "name": "fig-attention-scale-numbers"}, "image": {"alt": "Line plots against picture size: similarity of maps, IoU of the best head, accuracy, for each model."}} tags=["hide-input"]
known = ("similarity", "IoU of the best head", "accuracy")
present = [quantity for quantity in known if quantity in set(by_scale.quantity)]
figure, panels = plt.subplots(
    1, len(present), figsize=(1 + 3 * len(present), 3.4), layout="constrained", squeeze=False
)
for ax, quantity in zip(panels[0], present, strict=True):
    interval_curves(by_scale[by_scale.quantity == quantity], colours, "factor", quantity, ax)
    if quantity == "similarity":
        for name, part in by_scale[by_scale.quantity == "floor"].groupby("model"):
            ax.plot(part.factor, part["mean"], "--", color=colours[name], linewidth=1.2)
    if quantity == "IoU of the best head":
        for label, level in reference.items():
            ax.plot(factors, level, ":", color="0.35", linewidth=1)
            ax.annotate(label, (factors[-1], level.iloc[-1]), ha="right", va="bottom", fontsize=8)
    ax.set(xlabel="side of the picture (1: as trained)", ylim=(0, 1.03), xticks=factors)
panels[0, 0].set_ylabel("similarity to the map at 1")
panels[0, 0].legend(frameon=False, fontsize="small", loc="lower left")
save_figure(figure, by_scale, output, "fig-attention-scale-numbers")

# %% tags=["hide-input"]
def interval(frame, **where):
    """The mean and interval in the row of a frame where columns have these values, as text."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return str(MeanInterval(*frame[["mean", "low", "high"]].iloc[0]))


glue("n_measured", len(first), display=False)
glue("n_asked", len(asking), display=False)
glue("grid", " × ".join(map(str, maps[names[0]].shape[-2:])), display=False)
glue("largest", largest, display=False)
after = by_layer[by_layer.weights == "trained"]
for role, name in (("main", names[0]), ("other", names[-1])):
    glue(role, name, display=False)
    for key, quantity in (("similarity", "similarity"), ("floor", "floor")):
        value = interval(by_scale, quantity=quantity, model=name, factor=largest)
        glue(f"{role}_{key}", value, display=False)
    accuracy = by_scale[(by_scale.quantity == "accuracy") & (by_scale.model == name)]
    for key, factor in (("small", 1.0), ("large", largest)):
        for mean in accuracy[accuracy.factor == factor]["mean"]:
            glue(f"{role}_accuracy_{key}", mean, display=False)
    if has_masks:
        here = {"model": name, "layer": layers[name]}
        glue(f"{role}_share", interval(after, quantity=SHARE, **here), display=False)
        glue(f"{role}_evenness", interval(after, quantity=EVEN, **here), display=False)
        shares = after[(after.quantity == SHARE) & (after.model == name)]
        top = int(shares.loc[shares["mean"].idxmax(), "layer"])
        glue(f"{role}_top_layer", top + 1, display=False)
        glue(f"{role}_top_share", interval(shares, layer=top), display=False)
        for query in ("inside", "outside"):
            glue(f"{role}_{query}", interval(query_share, model=name, query=query), display=False)
        iou = values[(values.quantity == "IoU of the best head") & (values.model == name)]
        iou = iou.pivot(index="image", columns="factor", values="value")
        glue(f"{role}_gain", str(mean_interval(iou[largest] - iou[1.0])), display=False)
if has_masks:
    glue("even_share", levels[SHARE]["even"], display=False)
    glue("centre_share", levels[SHARE]["centre prior"], display=False)
if len(by_class):
    worst = order.iloc[0]
    glue("worst_species", f"the {worst}", display=False)
    value = interval(by_class, group=worst, label=names[0])
    glue("worst_species_share", value, display=False)
    glue("worst_species_pixels", float(own_pixels[worst]), display=False)
    theirs = [index for index, label in enumerate(labels) if classes[label] == worst]
    named = seen[names[0]]["logits"][theirs, -1].argmax(1) == torch.tensor(labels)[theirs]
    glue("worst_species_named", f"{int(named.sum())} of {len(theirs)}", display=False)

# %% [markdown]
# ## What would have disproved the claim
#
# - Maps that hold no more of the animal than the centre prior, or than the maps of the network before
#   training ({numref}`fig-attention-numbers`).
# - A ViT whose maps lie on the animal as much *and* as evenly.
# - Patches that answer alike wherever they lie, or no better than a blob about them
#   ({numref}`fig-attention-query-share`).
# - Maps that change altogether with the size of the picture ({numref}`fig-attention-scale-numbers`).

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
columns = ["model", "quantity", "mean", "low", "high"]
here = after[after.layer == after.model.map(layers)]
larger = by_scale[by_scale.factor == largest]
larger = larger.assign(quantity="largest pictures: " + larger.quantity)
results = pd.concat([here, larger])[columns].values.tolist()
if has_masks:
    results.append(("centre prior", SHARE, *mean_interval(blob)))
    asked_by = query_share.assign(quantity=f"{SHARE}, asked from " + query_share["query"])
    results += asked_by[columns].values.tolist()
save_results(results, output, "05-attention")
show_provenance("05-attention", parameters, models, pictures.values())
