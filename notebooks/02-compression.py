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
# # Does each layer compress and sparsify?
#
# **The claim.** A layer of CRATE is one step on the objective of {eq}`eq-objective`: its attention
# lowers the coding rate $R^c(Z \mid U_{[K]})$ of the tokens in its subspaces, its ISTA block lowers
# their share of non-zero entries. {cite:t}`yu2023whitebox` report that in trained networks both
# fall from layer to layer, on training and on validation pictures alike, with exceptions towards
# the last layers.
#
# **What we find.** In {glue:text}`main` the rate in the subspaces goes from {glue:text}`main_first`
# nats at layer 1 to {glue:text}`main_last` at the last; the change, picture by picture, is
# {glue:text}`main_change` (95 % interval), and it is a fall in {glue:text}`main_fall_share:.0%` of
# the pictures. With weights as initialised the change is {glue:text}`main_initial_change`, and in
# {glue:text}`other` it is {glue:text}`other_change`. Seen within one layer, where the subspaces stay
# the same, attention lowers the rate in {glue:text}`main_step_share:.0%` of all pictures and layers.
# The share of non-zero entries goes from {glue:text}`main_sparse_first` to
# {glue:text}`main_sparse_last`; before training it goes from {glue:text}`main_initial_sparse_first`
# to {glue:text}`main_initial_sparse_last`, the design's doing alone: only where the trained network
# ends lower has training added to it. The rate reduction $R - R^c$, which the objective is about, changes by
# {glue:text}`main_reduction` from the first to the last layer, and by
# {glue:text}`main_initial_reduction` before training.
#
# **How our setting differs.** The papers measure networks of 12 layers trained on ImageNet. Ours
# are far smaller and trained on drawn animals ({doc}`01-models-and-data`), one run each, so the
# spread below is over pictures, not over trainings.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
image_size = None  # pixels a side; None for what each model was trained at
n_images = 256
device = "cpu"
workers = 0  # processes that read pictures; 0 for none but this one
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(),
    models=list[str],
    dataset=str,
    image_size=int | None,
    n_images=int,
    device=str,
    workers=int,
    seed=int,
    output=str,
)

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import torch
from myst_nb import glue

from crate_analysis import load_dataset
from crate_analysis.measures import MEASURES, mean_interval, measure_layers
from crate_analysis.models import load_models
from crate_analysis.models.registry import from_config
from crate_analysis.notebook import save_figure, save_results, show_provenance, table
from crate_analysis.plotting import layer_curves, model_colours, reference_line

# %% [markdown]
# ## Measuring
#
# Each model is measured twice, trained and with the weights it would have before training, on
# pictures it was trained on and on pictures it was not. One pass over the pictures gives all four
# quantities for every layer:
#
# - `coding_rate`: $R^c$ of $U_k^\top \mathrm{LN}(Z^\ell)$, before attention, where the released code
#   measures it;
# - `coding_rate_after_attention`: the same subspaces after the attention step,
#   $U_k^\top \mathrm{LN}(Z^{\ell+1/2})$, where the paper's label places it;
# - `total_coding_rate`: $R$ of the same normalised tokens;
# - `nonzero_fraction`: $\lVert Z^{\ell+1} \rVert_0 / (d\,t)$, after the second half of the layer.
#
# Every projected token is scaled to unit length and $\epsilon^2 = 0.01$, as in the released code.
# A ViT has no subspaces of this kind; its keys stand in for them.

# %% tags=["hide-input"]
frames, measured_models, measured_pictures = [], {}, []
how = {"workers": workers, "progress": False}
for name, trained in load_models(models, device).items():
    torch.manual_seed(seed)
    initial = from_config(trained.config).eval().to(device)
    initial.name = name
    for split in ("train", "val"):
        size = image_size or trained.config.image_size
        try:
            pictures = load_dataset(dataset, split, size, n_images, seed)
        except FileNotFoundError as error:
            print(f"left out, {dataset} has no split {split}: {error}")
            continue
        for weights, model in (("trained", trained), ("initial", initial)):
            frame = measure_layers(model, pictures, **how)
            frames.append(frame.assign(weights=weights, split=split))
        measured_models[name] = trained, pictures
        measured_pictures.append(pictures)
measured = pd.concat(frames, ignore_index=True)
keys = ["model", "weights", "split", "image", "layer"]
values = measured.pivot_table(index=keys, columns="measure", values="value").reset_index()
values["rate_reduction"] = values.total_coding_rate - values.coding_rate
values["attention_step"] = values.coding_rate_after_attention - values.coding_rate
names = list(dict.fromkeys(measured.model))
colours = model_colours(names)
val = values[values.split == values.split.iloc[-1]]
by_weights = {"style": "weights", "styles": ["trained", "initial"]}
by_split = {"style": "split", "styles": ["val", "train"]}

# %% tags=["hide-input"]
picture = ["model", "weights", "split", "image"]
first = val[val.layer == 0].set_index(picture)
last = val[val.layer == val.groupby("model").layer.transform("max")].set_index(picture)
falls = val.assign(fall=val.attention_step < 0).groupby(picture).fall.mean()
change = last - first
quantities = {
    "Rᶜ, layer 1": first.coding_rate,
    "Rᶜ, last": last.coding_rate,
    "change of Rᶜ": change.coding_rate,
    "pictures with a fall": change.coding_rate < 0,
    "change of R − Rᶜ": change.rate_reduction,
    "steps with a fall": falls,
    "non-zero, layer 1": first.nonzero_fraction,
    "non-zero, last": last.nonzero_fraction,
}
rows = [
    {"model": name, "weights": weights}
    | {key: mean_interval(found.loc[name, weights]) for key, found in quantities.items()}
    for name in names
    for weights in ("trained", "initial")
]
summary = pd.DataFrame(rows).set_index(["model", "weights"])
main, other = summary.loc[names[0]], summary.loc[names[-1]]
for key, value in {
    "main": names[0],
    "other": names[-1],
    "main_first": main["Rᶜ, layer 1"]["trained"],
    "main_last": main["Rᶜ, last"]["trained"],
    "main_change": main["change of Rᶜ"]["trained"],
    "main_initial_change": main["change of Rᶜ"]["initial"],
    "other_change": other["change of Rᶜ"]["trained"],
    "main_sparse_first": main["non-zero, layer 1"]["trained"],
    "main_sparse_last": main["non-zero, last"]["trained"],
    "main_initial_sparse_first": main["non-zero, layer 1"]["initial"],
    "main_initial_sparse_last": main["non-zero, last"]["initial"],
    "main_reduction": main["change of R − Rᶜ"]["trained"],
    "main_initial_reduction": main["change of R − Rᶜ"]["initial"],
}.items():
    glue(key, str(value), display=False)
glue("main_fall_share", main["pictures with a fall"]["trained"].mean, display=False)
glue("main_step_share", main["steps with a fall"]["trained"].mean, display=False)
glue("n_images", len(val.image.unique()), display=False)
ending = {"trained": "", "initial": ", untrained"}
save_results(
    (
        (name, quantity + ending[weights], *interval)
        for (name, weights), row in summary.iterrows()
        for quantity, interval in row.items()
    ),
    output,
    "02-compression",
)

# %% [markdown]
# ## Compression
#
# {numref}`fig-rate` follows $R^c$ through the layers over {glue:text}`n_images` pictures. Solid
# lines are trained networks, dashed ones the same networks before training. A designed network that
# compresses only because of its architecture would fall without training too.

# %% mystnb={"figure": {"caption": "Coding rate $R^c$ in each layer's own subspaces, before its attention, on pictures not trained on. Lines are means, bands one standard deviation over pictures. Lower is more compressed.", "name": "fig-rate"}, "image": {"alt": "Line plot of the coding rate against the layer for each model, trained and at initialisation."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7, 3.6))
curves = val.rename(columns={"coding_rate": "value"})
layer_curves(curves, colours, **by_weights, ylabel="$R^c$ before attention (nats)", ax=ax)
save_figure(figure, curves[[*keys, "value"]], output, "fig-rate")

# %% [markdown]
# From one layer to the next the subspaces change, so a curve over layers compares lengths measured
# with different rulers. {numref}`fig-step` therefore keeps the layer's subspaces and asks only what
# its attention step does to the rate: below zero, the step compresses.

# %% mystnb={"figure": {"caption": "What the attention step of each layer does to the rate in that layer's subspaces: $R^c$ after it, less $R^c$ before it. Mean and one standard deviation over pictures.", "name": "fig-step"}, "image": {"alt": "Line plot of the change of the coding rate by the attention step, by layer."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7, 3.6))
steps = val.rename(columns={"attention_step": "value"})
layer_curves(steps, colours, **by_weights, ylabel="change of $R^c$ (nats)", ax=ax)
reference_line(0, "no change", ax)
save_figure(figure, steps[[*keys, "value"]], output, "fig-step")

# %% [markdown]
# The objective is not low $R^c$ alone, which collapsed tokens would have too, but a high rate
# reduction $R - R^c$. {numref}`fig-reduction` shows both parts of it. $R^c$ adds up one rate for each
# subspace and $R$ is a single one, so their difference may well be negative; what matters is whether
# it grows with depth. Neither paper plots it.

# %% mystnb={"figure": {"caption": "Left: the total rate $R$ of the tokens that the attention of a layer sees. Right: the rate reduction $R - R^c$. Mean and one standard deviation over pictures.", "name": "fig-reduction"}, "image": {"alt": "Two line plots against the layer: the total coding rate and the rate reduction."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3), layout="constrained")
total = val.rename(columns={"total_coding_rate": "value"})
layer_curves(total, colours, **by_weights, ylabel="$R$ (nats)", ax=left)
reduction = val.rename(columns={"rate_reduction": "value"})
layer_curves(
    reduction, colours, **by_weights, ylabel="$R - R^c$ (nats)", ax=right
).get_legend().remove()
save_figure(figure, val[[*keys, "total_coding_rate", "rate_reduction"]], output, "fig-reduction")

# %% [markdown]
# ## Sparsification
#
# {numref}`fig-sparsity` counts the entries that are not exactly zero. Only ISTA's ReLU makes exact
# zeros; the residual stream of a ViT has none, so its curve lies at 1 by construction and says
# nothing about how many of its entries are small.

# %% mystnb={"figure": {"caption": "Share of non-zero entries after each layer, $\\lVert Z^{\\ell+1} \\rVert_0 / (d\\,t)$. Mean and one standard deviation over pictures. Lower is sparser.", "name": "fig-sparsity"}, "image": {"alt": "Line plot of the share of non-zero entries against the layer."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7, 3.6))
shares = val.rename(columns={"nonzero_fraction": "value"})
layer_curves(shares, colours, **by_weights, ylabel="share of non-zero entries", ax=ax)
ax.set_ylim(0, 1.05)
save_figure(figure, shares[[*keys, "value"]], output, "fig-sparsity")

# %% [markdown]
# ### Where the zeros come from
#
# An untrained network is sparse too, so it is worth asking what makes the zeros. A step of ISTA
# shrinks towards a sparse code in the dictionary, but its ReLU follows a LayerNorm, and about half
# of the entries of a normalised token are negative whatever the dictionary is. {numref}`fig-zeros` takes the
# dictionary out, by setting the step size $\eta$ of {eq}`eq-ista` to 0 in the finished network, so
# that each layer ends in $\mathrm{ReLU}(\mathrm{LN}(Z^{\ell+1/2}))$ and nothing else. Averaged over
# layers and pictures the share of non-zero entries is {glue:text}`zeros_with` with the dictionary and
# {glue:text}`zeros_without` without it in the trained {glue:text}`main`, and
# {glue:text}`zeros_with_initial` and {glue:text}`zeros_without_initial` before training. Where the two
# are close, the count of zeros says little about the learned sparse code.

# %% tags=["hide-input"]
frames = []
for name, (trained, pictures) in measured_models.items():
    if trained.config.nonlinearity != "ista":
        continue
    torch.manual_seed(seed)
    for weights, model in (("trained", trained), ("initial", from_config(trained.config))):
        without = from_config(trained.config.override(step_size=0.0)).eval().to(device)
        without.load_state_dict(model.state_dict())
        without.name = name
        share = {"nonzero_fraction": MEASURES["nonzero_fraction"]}
        frame = measure_layers(without, pictures, share, **how)
        frames.append(frame.assign(setting=f"{weights}, η = 0"))
        with_step = val[(val.model == name) & (val.weights == weights)]
        with_step = with_step.rename(columns={"nonzero_fraction": "value"})
        frames.append(with_step.assign(setting=weights))
zeros = pd.concat(frames, ignore_index=True) if frames else None
means = {} if zeros is None else zeros.groupby(["model", "setting"]).value.mean()
for key, setting in {
    "zeros_with": "trained",
    "zeros_without": "trained, η = 0",
    "zeros_with_initial": "initial",
    "zeros_without_initial": "initial, η = 0",
}.items():
    found = (names[0], setting) in means
    glue(key, f"{means[names[0], setting]:.3f}" if found else "(no ISTA)", display=False)

# %% mystnb={"figure": {"caption": "Share of non-zero entries after each layer, with the dictionary step and with its step size set to 0. Mean and one standard deviation over pictures.", "name": "fig-zeros"}, "image": {"alt": "Line plot of the share of non-zero entries against the layer, with and without the dictionary step, trained and at initialisation."}} tags=["hide-input"]
if zeros is not None:
    figure, ax = plt.subplots(figsize=(7, 3.6))
    settings = ["trained", "trained, η = 0", "initial", "initial, η = 0"]
    dashes = {"style": "setting", "styles": settings}
    ista = {name: colours[name] for name in zeros.model.unique()}
    layer_curves(zeros, ista, **dashes, ylabel="share of non-zero entries", ax=ax)
    ax.set_ylim(0, None)
    chosen = zeros[["model", "setting", "image", "layer", "value"]]
    save_figure(figure, chosen, output, "fig-zeros")
else:
    print("none of the models has an ISTA step, so there is nothing to take out")

# %% [markdown]
# ## Training and validation pictures
#
# {numref}`fig-splits` sets pictures that the networks were trained on beside pictures that they were
# not. If compression were memorised, the two would part.

# %% mystnb={"figure": {"caption": "Trained networks on training and on validation pictures: coding rate before attention (left) and share of non-zero entries (right). Mean and one standard deviation over pictures.", "name": "fig-splits"}, "image": {"alt": "Two line plots against the layer, with lines for training and validation pictures."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3), layout="constrained")
finished = values[values.weights == "trained"]
rates = finished.rename(columns={"coding_rate": "value"})
layer_curves(rates, colours, **by_split, ylabel="$R^c$ (nats)", ax=left)
shares = finished.rename(columns={"nonzero_fraction": "value"})
layer_curves(
    shares, colours, **by_split, ylabel="share of non-zero entries", ax=right
).get_legend().remove()
save_figure(figure, finished[[*keys, "coding_rate", "nonzero_fraction"]], output, "fig-splits")

# %% [markdown]
# ## All numbers
#
# Means with their 95 % bootstrap intervals over pictures. A *change* is the last layer's value less the
# first's, taken within each picture; *steps with a fall* counts, over pictures and layers, the
# attention steps that lower the rate in their own subspaces.

# %% tags=["hide-input"]
percent = {
    column: summary[column].map(lambda share: f"{share.mean:.0%}")
    for column in ("pictures with a fall", "steps with a fall")
}
shown = summary.assign(**percent)
table(shown.T.rename_axis("").pipe(lambda t: t.set_axis(t.columns.map(", ".join), axis=1)))

# %% [markdown]
# ## The paper's own account
#
# {cite:t}`yu2023whitebox` show these curves for CRATE on ImageNet-1k: both measures fall over most
# of the layers, in training as in validation, and after training the curves of the two splits lie on
# each other. They show no ViT and no measurement within a layer; those are ours.
#
# ## What would have disproved the claim
#
# - A trained CRATE whose $R^c$ stays level or rises with depth, or falls no more than at
#   initialisation: then training would not use the layers for what they were derived for.
# - Attention steps that raise the rate in their own subspaces: then the curve over layers would fall
#   for another reason than the one given.
# - A share of non-zero entries that does not fall, falls on training pictures only, or falls just as
#   far before training.
#
# {numref}`fig-rate`, {numref}`fig-step`, {numref}`fig-sparsity` and {numref}`fig-splits` are these
# four tests, in this order; {numref}`fig-zeros` looks into the third.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
show_provenance("02-compression", parameters, models, measured_pictures)
