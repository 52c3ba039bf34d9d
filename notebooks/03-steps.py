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
# # Does each layer do the optimisation step it was derived from?
#
# **The claim.** In CRATE, {cite:t}`yu2023whitebox` say, attention *is* a gradient step on the
# coding rate $R^c(Z \mid U_{[K]})$, with orthonormal bases $U_k$ of incoherent subspaces, and the
# second half of a layer *is* a step of ISTA on a sparse coding problem with a near orthogonal
# dictionary $D$. {cite:t}`yu2024emergence` build on this reading. {doc}`02-compression` measured
# what comes out: the rate and the share of non-zero entries. Here we open the layer and hold each
# part against its derivation.
#
# **What we find.** The numbers are those of {glue:text}`inside_main` on {glue:text}`inside_n`
# pictures, over all its layers, with 95 % intervals over pictures. What is said in words, here and
# below, is of the default models.
#
# *The parts* are not what the derivation assumes. Two subspaces overlap by
# {glue:text}`inside_overlap` on average, random ones by {glue:text}`inside_chance`. Their bases use
# {glue:text}`inside_dimension` of {glue:text}`inside_p` dimensions evenly. The distance of the
# dictionary from an orthogonal matrix is {glue:text}`inside_gap`, that of a Gaussian matrix
# {glue:text}`inside_gap_gaussian`.
#
# *The direction* is not that of the derivation. The cosine of attention's step with the descent that
# it was derived from is {glue:text}`inside_own_derived`, with that of the rate as it is measured
# {glue:text}`inside_own_measured`; 0 is a right angle. Against what the same step would reach if it
# were turned at random, it stands out in {glue:text}`inside_ahead_layers` of
# {glue:text}`inside_depth` layers. It is the output map $W$ that turns it away: with $U_k$ in its
# place, as derived, the cosine with the descent of the measured rate is
# {glue:text}`inside_u_measured`. With the derivation's own descent it is then
# {glue:text}`inside_u_derived`, without the shrinkage that the derivation has and the code leaves out,
# and {glue:text}`inside_shrinking_derived` with it.
#
# *The effect* is there all the same. Attention lowers the rate in {glue:text}`inside_fall_share`
# of pictures and layers; on average it changes it by {glue:text}`inside_change` nats a layer. Turned
# at random the same step changes it by {glue:text}`inside_change_turned`, and a step of the same
# length with $U_k$ in place of $W$ by {glue:text}`inside_change_u`. ISTA lowers its own objective in
# {glue:text}`inside_ista_share` of pictures and layers, and in {glue:text}`inside_empty_share` what it
# arrives at is worse than an *empty* code.
#
# So both half steps move their own term the right way, mostly for other reasons than the one they
# were derived from.
#
# **How our setting differs.** Ours are small networks trained once on drawn animals
# ({doc}`01-models-and-data`), with heads of {glue:text}`inside_p` dimensions in
# {glue:text}`inside_d`. The papers measure none of this inside a layer except the two curves of
# {doc}`02-compression`. {cite:t}`hu2024indepth` also ask whether CRATE optimises its objective, and
# propose other layers for it.

# %% tags=["parameters"]
models = ["crate-creatures", "vit-creatures"]
dataset = "creatures"
n_images = 64
n_turns = 4
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(
    globals(), models=list[str], dataset=str, n_images=int, n_turns=int, seed=int, output=str
)

# %% tags=["hide-input"]
from functools import lru_cache
from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown, display
from myst_nb import glue
from scipy.stats import ortho_group

from crate_analysis import load_dataset
from crate_analysis.measures import (
    atom_cosines,
    coding_objective,
    common_share,
    cosine,
    derived_gradient,
    effective_dimension,
    lasso_objective,
    lift,
    mean_interval,
    measure_layers,
    measured_gradient,
    nonzero_fraction,
    orthogonality_gap,
    rate_change,
    step_strength,
    subspace_coherence,
    subspace_overlap,
    token_dimension,
    turned_cosine,
    with_length_of,
)
from crate_analysis.models import load_models
from crate_analysis.models.registry import from_config
from crate_analysis.notebook import save_figure, save_results, show_provenance, table
from crate_analysis.plotting import (
    chance_band,
    layer_curves,
    model_colours,
    pair_map,
    reference_line,
    spectra,
)

networks, pictures = {}, {}
for name, trained in load_models(models).items():
    torch.manual_seed(seed)
    networks[name, "trained"] = trained
    networks[name, "initial"] = from_config(trained.config).eval()
    pictures[name] = load_dataset(dataset, "val", trained.config.image_size, n_images, seed)
names = list(pictures)
configs = {name: networks[name, "trained"].config for name in names}
colours = model_colours(names)
by_weights = {"style": "weights", "styles": ["trained", "initial"]}
BLACK, GREEN, PURPLE, GREY = "black", *(sns.color_palette("colorblind")[i] for i in (2, 4, 7))
main = configs[names[0]]
with_ista = [name for name in names if configs[name].nonlinearity != "mlp"]
with_mssa = [name for name in names if configs[name].attention == "mssa"]

# %% [markdown]
# Everything is measured twice, in the trained network and with weights as before training: what an
# untrained layer does is the design's doing, not the training's. A ViT, and CRATE-MHSA, have no
# subspaces of this kind; there we take those of the keys.
#
# ## The subspaces
#
# The derivation asks for orthonormal bases, $U_k^\top U_k = I$, and for subspaces that are
# incoherent, $U_k^\top U_j \approx 0$. With $K p = d$, as here, all of them could be orthogonal.
# The *overlap* of two subspaces is the mean squared cosine of their principal angles,
# $\lVert Q_k^\top Q_j \rVert_F^2 / p$ with orthonormal bases $Q_k$: 0 if they are orthogonal, 1 if
# they are the same, $p / d$ on average if they are random. {numref}`fig-inside-overlap` shows it
# for every pair of heads.

# %% tags=["hide-input"]
overlaps, pair_rows, base_rows = {}, [], []
with torch.no_grad():
    for (name, weights), network in networks.items():
        for layer, step in enumerate(network.layers):
            here = {"model": name, "weights": weights, "layer": layer}
            bases = step.subspaces()
            overlap, coherence = subspace_overlap(bases), subspace_coherence(bases)
            overlaps[name, weights, layer] = overlap.numpy()
            for one, other in combinations(range(len(bases)), 2):
                pair = {"overlap": overlap[one, other], "coherence": coherence[one, other]}
                values = {key: value.item() for key, value in pair.items()}
                pair_rows.append(here | {"head": one, "other head": other} | values)
            dimensions, gaps = effective_dimension(bases), orthogonality_gap(bases)
            for head, (dimension, gap) in enumerate(zip(dimensions, gaps, strict=True)):
                base = {"effective dimension": dimension.item(), "gap": gap.item()}
                base_rows.append(here | {"head": head} | base)
pairs, bases = pd.DataFrame(pair_rows), pd.DataFrame(base_rows)
if pairs.empty:
    display(Markdown("Each layer has one head: the overlap of heads is left out."))

# %% mystnb={"figure": {"caption": "Overlap of every two subspaces of a layer, in the trained networks and before training. White is the overlap of random subspaces, $p/d$; red is more, blue less.", "name": "fig-inside-overlap"}, "image": {"alt": "A grid of small matrices, one a layer, for each model trained and at initialisation, coloured by the overlap of each pair of heads."}} tags=["hide-input"]
if not pairs.empty:
    depth = max(config.depth for config in configs.values())
    chances = pairs.model.map({n: config.head_dim / config.dim for n, config in configs.items()})
    reach = (pairs.overlap - chances).abs().max()
    figure, panels = plt.subplots(
        len(networks), depth, figsize=(10, 10 / depth * len(networks) + 0.4), squeeze=False
    )
    for ax in panels.flat:
        ax.set_axis_off()
    for row, (name, weights) in zip(panels, networks, strict=True):
        for layer, ax in enumerate(row[: configs[name].depth]):
            ax.set_axis_on()
            chance = configs[name].head_dim / configs[name].dim
            pair_map(overlaps[name, weights, layer], chance, reach, depth <= 8, ax)
        row[0].set_ylabel(f"{name.removesuffix('-creatures')},\n{weights}", fontsize="small")
    for layer, ax in enumerate(panels[0]):
        ax.set_title(f"layer {layer + 1}", fontsize="small")
    figure.tight_layout()
    save_figure(figure, pairs, output, "fig-inside-overlap")


# %% [markdown]
# Training does not push the subspaces apart: the pairs of {glue:text}`inside_main` overlap by
# {glue:text}`inside_overlap`, those of random subspaces by {glue:text}`inside_chance`. The largest
# cosine between two of them is {glue:text}`inside_coherence`, on average over pairs: every two
# heads share directions that are close to the same, as large random subspaces do. Incoherence is
# an assumption of the derivation; nothing in the training asks for it.
#
# A basis has $p$ columns but may use few directions. Its *effective dimension* is the participation
# ratio of its squared singular values, $(\sum_i s_i^2)^2 / \sum_i s_i^4$: $p$ for orthonormal
# columns, 1 if one direction is all. It says the same as the distance to the nearest multiple of an
# orthonormal basis: a distance of $(1 - r/p)^{1/2}$ for an effective dimension $r$.
# {numref}`fig-inside-dimension` sets beside it the effective dimension of the tokens in the
# subspaces, from the covariance of $U_k^\top \mathrm{LN}(Z)$ over the tokens of each picture.

# %% tags=["hide-input"]
def own(s):
    return s.half - s.tokens


def as_long(s, step):
    return with_length_of(step(s), own(s))


downhill = {  # cached: several measures of a layer use each
    "derived": lru_cache(1)(lambda s: -derived_gradient(s.subspaces, s.projections)),
    "measured": lru_cache(1)(lambda s: -measured_gradient(s)),
}
attended = lru_cache(1)(lambda s: s.attention(slice(None)) @ s.projections)
steps = {
    "own": own,
    "U": lambda s: lift(s.subspaces, attended(s)),
    "U, shrinking": lambda s: lift(s.subspaces, attended(s) - s.projections),
}


frames = []
for (name, weights), network in networks.items():
    config = network.config
    kinds = list(steps) if config.attention == "mssa" else ["own"]
    measures = {
        "token dimension": lambda s: token_dimension(s.projections).mean(-1),
        "common share": lambda s: common_share(own(s)),
        "change, own": lambda s: rate_change(s, own(s)),
        "change, common": lambda s: rate_change(s, own(s).mean(1, keepdim=True).expand_as(s.half)),
        "change, gradient": lambda s: rate_change(s, as_long(s, downhill["measured"])),
    }
    for number in range(n_turns):
        turn = torch.tensor(ortho_group.rvs(config.dim, random_state=seed + number)).float()
        measures[f"change, turned {number}"] = lambda s, turn=turn: rate_change(s, own(s) @ turn)
    for rate, gradient in downhill.items():
        measures[f"turned, {rate}"] = lambda s, g=gradient: turned_cosine(own(s), g(s))
        for kind in kinds:
            step = steps[kind]
            measures[f"{kind}, {rate}"] = lambda s, f=step, g=gradient: cosine(f(s), g(s))
    if config.attention == "mssa":
        measures["change, U"] = lambda s: rate_change(s, as_long(s, steps["U"]))
    if config.nonlinearity != "mlp":
        measures["before"] = lambda s: coding_objective(s, s.normed_half)
        measures["after"] = lambda s: coding_objective(s, s.output)
        measures["empty code"] = lambda s: coding_objective(s, torch.zeros_like(s.output))
        measures["non-zero"] = lambda s: nonzero_fraction(s.output)
        measures["misfit"] = lambda s: lasso_objective(
            s.output, s.normed_half, s.sparse_coding.dictionary, 0.0
        )
    if config.nonlinearity == "ista":
        measures["ReLU alone"] = lambda s: coding_objective(s, s.normed_half.relu())
    frame = measure_layers(network, pictures[name], measures, batch_size=16, progress=False)
    frames.append(frame.assign(model=name, weights=weights))
measured = pd.concat(frames, ignore_index=True)
keys = ["model", "weights", "layer", "image"]
values = measured.pivot_table(index=keys, columns="measure", values="value").reset_index()
turned = [f"change, turned {number}" for number in range(n_turns)]
values["change, turned"] = values[turned].mean(axis=1)
trained = values[values.weights == "trained"]


def curves(column, frame=values):
    return frame.rename(columns={column: "value"}).dropna(subset="value")


# %% mystnb={"figure": {"caption": "Left: effective dimension of the bases $U_k$ (a ViT's keys); mean and one standard deviation over heads. Right: effective dimension of the tokens in the subspaces, mean over heads; mean and one standard deviation over pictures. Dotted: all dimensions of a head, and a Gaussian matrix, for the first model.", "name": "fig-inside-dimension"}, "image": {"alt": "Two line plots against the layer, for each model trained and at initialisation: the effective dimension of the bases, and that of the tokens seen in them."}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
dimensions = bases.rename(columns={"effective dimension": "value"})
layer_curves(dimensions, colours, **by_weights, ylabel="effective dimension", ax=left)
left.set_title("of the bases", pad=26, fontsize="medium")
layer_curves(curves("token dimension"), colours, **by_weights, ax=right).get_legend().remove()
left.get_legend().set_in_layout(False)
right.set_title("of the tokens in them", pad=26, fontsize="medium")
reference_line(main.head_dim, "$p$", right)
reference_line(main.head_dim, "", left)
reference_line(main.head_dim / (1 + main.head_dim / main.dim), "Gaussian", left)
left.set_ylim(0, None)
shown = pd.concat([dimensions.assign(of="bases"), curves("token dimension").assign(of="tokens")])
shown = shown[["of", "model", "weights", "layer", "head", "image", "value"]]
save_figure(figure, shown, output, "fig-inside-dimension")

# %% [markdown]
# The trained bases of CRATE are further from orthonormal than random matrices are: training lets
# some directions of a head grow and others fade. What the tokens do in them is more telling.
# Before training they use {glue:text}`inside_tokens_initial_first` dimensions at the first layer
# and {glue:text}`inside_tokens_initial_last` at the last; after it,
# {glue:text}`inside_tokens_first` and {glue:text}`inside_tokens_last`. From layer to layer the
# tokens gather in fewer directions, which is the compression that the theory promises. In the ViT,
# whose tokens use few directions of the keys at every layer, before training as after, there is
# nothing of the kind to see.
#
# ## The dictionary
#
# ISTA codes each token in a dictionary $D$ of $d$ atoms, its columns. The derivation takes $D$ to
# be nearly orthogonal, so that coding does not change the rate $R$.
# {numref}`fig-inside-dictionary` asks how near it is, beside a Gaussian matrix. The coherence of
# $d$ atoms in $d$ dimensions could be 0 (Welch's bound says no more), so orthogonality is there
# for the taking.

# %% tags=["hide-input"]
atom_rows, spectrum_rows = [], []
gaussian = torch.randn(main.dim, main.dim, generator=torch.Generator().manual_seed(seed))
with torch.no_grad():
    for (name, weights), network in networks.items():
        for layer, step in enumerate(network.layers if name in with_ista else []):
            dictionary, step_size, _ = step.sparse_coding()
            here = {"model": name, "weights": weights, "layer": layer}
            row = {
                "mean": atom_cosines(dictionary).mean(),
                "largest": atom_cosines(dictionary).max(),
                "gap": orthogonality_gap(dictionary),
                "strength": step_strength(dictionary, step_size),
            }
            atom_rows.append(here | {key: value.item() for key, value in row.items()})
            for rank, value in enumerate(torch.linalg.svdvals(dictionary).tolist(), 1):
                spectrum_rows.append(here | {"rank": rank, "value": value})
atoms, spectrum = pd.DataFrame(atom_rows), pd.DataFrame(spectrum_rows)
if without := [name for name in names if name not in with_ista]:
    display(Markdown(f"Without a dictionary, and so left out: {', '.join(without)}."))

# %% mystnb={"figure": {"caption": "The dictionaries of all layers, trained and before training. Above: cosine between two atoms, its mean and its largest value. Below: distance from the nearest multiple of an orthogonal matrix, relative to the size of $D^\\top D$ (0 is orthogonal), and the singular values, one line a layer. Dotted: a Gaussian matrix.", "name": "fig-inside-dictionary"}, "image": {"alt": "Four plots: mean and largest cosine between atoms and distance from orthogonal against the layer, and sorted singular values, trained and at initialisation."}} tags=["hide-input"]
if with_ista:
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    ista_colours = {name: colours[name] for name in with_ista}
    levels = {
        "mean": ("mean $|\\cos|$ of two atoms", atom_cosines(gaussian).mean()),
        "largest": ("largest $|\\cos|$", atom_cosines(gaussian).max()),
        "gap": ("distance from orthogonal", orthogonality_gap(gaussian)),
    }
    for ax, (column, (label, level)) in zip(panels.flat, levels.items(), strict=False):
        layer_curves(curves(column, atoms), ista_colours, **by_weights, ylabel=label, ax=ax)
        reference_line(level.item(), "Gaussian", ax)
        ax.set_ylim(0, 1.15 * max(atoms[column].max(), level))
    spectra(spectrum, ista_colours, **by_weights, ylabel="singular value", ax=panels.flat[3])
    for ax in panels.flat[1:]:
        ax.get_legend().remove()
    save_figure(figure, atoms, output, "fig-inside-dictionary")

# %% [markdown]
# The trained dictionary is hardly to be told from a random matrix: no more orthogonal, no less
# coherent, with the same singular values but for the first few. What is fulfilled is the condition
# on the step: $\eta \lVert D \rVert^2$, which must stay below 2 for a gradient step not to
# overshoot, is at most {glue:text}`inside_strength`.
#
# ## Which way attention steps
#
# The gradient of the rate, from which attention is derived, is
#
# $$
# \nabla_Z R^c(Z \mid U_{[K]}) = \sum_{k=1}^{K} c\, U_k V_k \bigl(I + c\, V_k^\top V_k\bigr)^{-1},
# \qquad V_k = U_k^\top Z, \quad c = \frac{p}{N \epsilon^2}.
# $$ (eq-inside-gradient)
#
# {cite:t}`yu2023whitebox` step down it, replace the inverse by $I - c\, V_k^\top V_k$, the product
# in it by a softmax and $\sum_k U_k V_k$ by $Z$, and reach
# $(1 - \kappa c) Z + \kappa c\, \mathrm{MSSA}(Z)$: the tokens shrink, and attention is added. The
# code only adds. We compare a layer's step, $Z^{\ell+1/2} - Z^{\ell}$, with two descents:
#
# - *as derived*: {eq}`eq-inside-gradient` at $Z = \mathrm{LN}(Z^\ell)$, which is what the formula
#   sees;
# - *as measured*: the gradient, in $Z^\ell$, of the rate that {doc}`02-compression` shows, through
#   LayerNorm and the scaling of every projected token to unit length. It is blind to the length of
#   tokens.
#
# All tokens of a picture, `[CLS]` with them, count as one vector, and {numref}`fig-inside-cosine`
# shows its cosine with the descent: 1 is a step straight down. A direction drawn at random from
# all $d\,t$ dimensions would have a cosine of ± {glue:text}`inside_random`. That is too easy a
# level: attention makes steps that vary smoothly over tokens, and gradients do so too. The grey
# band is therefore two root mean squares of the cosine that the network's own step would have if
# it were turned by a random rotation of the $d$ coordinates, as a random output map would do.

# %% mystnb={"figure": {"caption": "Cosine of attention's step with the descent of the rate, as derived (left) and as measured (right). Mean and one standard deviation over pictures. Grey: plus and minus two root mean squares of the first model's trained step turned at random.", "name": "fig-inside-cosine"}, "image": {"alt": "Two line plots of a cosine against the layer for each model, trained and at initialisation, close to zero, with a grey band around zero."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
for ax, rate in zip(panels, downhill, strict=True):
    layer_curves(curves(f"own, {rate}"), colours, **by_weights, ax=ax)
    of_main = trained[trained.model == names[0]].groupby("layer")[f"turned, {rate}"]
    level = 2 * of_main.apply(lambda v: v.pow(2).mean() ** 0.5)
    band = level.rename("high").reset_index().assign(low=lambda f: -f.high)
    chance_band(band, ax)
    ax.set_title(f"as {rate}", pad=26, fontsize="medium")
panels[0].set_ylabel("cosine with the descent")
panels[0].get_legend().set_in_layout(False)
panels[1].get_legend().remove()
columns = keys + [f"{kind}, {rate}" for kind in ("own", "turned") for rate in downhill]
save_figure(figure, values[columns], output, "fig-inside-cosine")

# %% [markdown]
# ### Is it the output map?
#
# Two things lie between the derivation and the code. The derivation returns from the subspaces by
# $U_k$, the code by a map $W$ of its own; and the code has no shrinkage. {numref}`fig-inside-map`
# puts them back, one after the other: $\sum_k U_k V_k S_k$, with $S_k$ the layer's own softmax,
# and $\sum_k U_k (V_k S_k - V_k)$, in which every token gives up what it was as it takes on what
# it attends to.

# %% mystnb={"figure": {"caption": "The same cosines for the step as coded, with its output map $W$; with $U_k$ in place of $W$; and with the tokens' shrinkage too. Mean and one standard deviation over pictures, for the first model with MSSA.", "name": "fig-inside-map"}, "image": {"alt": "Two line plots of the cosine with the descent against the layer, as derived and as measured, for three kinds of step, trained and at initialisation."}} tags=["hide-input"]
if with_mssa:
    labels = dict(
        zip(steps, ("as coded, $W$", "$U_k$ for $W$", "$U_k$, and shrinking"), strict=True)
    )
    step_colours = dict(zip(labels.values(), (BLACK, GREEN, PURPLE), strict=True))
    of_main = values[values.model == with_mssa[0]]
    parts = [
        curves(f"{kind}, {rate}", of_main)[[*keys, "value"]].assign(model=label, rate=rate)
        for kind, label in labels.items()
        for rate in downhill
    ]
    shown = pd.concat(parts, ignore_index=True)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for ax, (rate, part) in zip(panels, shown.groupby("rate"), strict=True):
        layer_curves(part, step_colours, **by_weights, ax=ax)
        reference_line(0, "", ax)
        ax.set_title(f"as {rate}", pad=26, fontsize="medium")
    panels[0].set_ylabel("cosine with the descent")
    panels[0].get_legend().set_in_layout(False)
    panels[1].get_legend().remove()
    save_figure(figure, shown, output, "fig-inside-map")
else:
    display(Markdown("No model has MSSA, so there is no output map to put $U_k$ in place of."))

# %% [markdown]
# With $U_k$ as the way back, attention descends the measured rate at every layer, trained or not:
# a softmax of similarities pulls similar tokens together, and that lowers a rate of tokens of unit
# length. The same step *climbs* the rate of the derivation. There tokens get cheaper by getting
# shorter, and adding what one attends to makes them longer. With the shrinkage put back, the step
# goes down {eq}`eq-inside-gradient` too, most clearly before training and in the first layers. So
# the step that is derived does go down, if not straight. With the $W$ that training finds, nearly
# all of it is gone. What remains is a mean cosine of {glue:text}`inside_own_measured`; it is
# largest at layer {glue:text}`inside_best_layer`, with {glue:text}`inside_best_cosine`, and stands
# out of the band in {glue:text}`inside_ahead_layers` of {glue:text}`inside_depth` layers, against
# {glue:text}`inside_ahead_initial` before training. Training has turned $W$ a little towards the
# descent, not more.
#
# ## What attention does to the rate
#
# A step at a right angle to the gradient should do nothing, to first order. Yet
# {doc}`02-compression` shows that $R^c$ falls. {numref}`fig-inside-change` asks whether it falls
# because of where the step points. It compares the layer's own step with the same step turned at
# random ({glue:text}`inside_turns` rotations, each the same for all tokens), with its common part
# alone, the mean over tokens given to every token, and with a step that has $U_k$ in place of $W$
# and is as long as the layer's own in every picture.

# %% mystnb={"figure": {"caption": "Change of $R^c$, in the layer's own subspaces, by attention's step in the trained network, by the same step turned at random, by its mean over tokens alone, and by a step as long with $U_k$ as its way back (MSSA only). Mean and one standard deviation over pictures (and rotations). Below zero the step compresses.", "name": "fig-inside-change"}, "image": {"alt": "Line plots, one a model, of the change of the coding rate against the layer for the layer's own step and its controls."}} tags=["hide-input"]
kinds = {"change, own": "as coded", "change, U": "$U_k$ for $W$", "change, common": "mean alone"}
kinds |= dict.fromkeys(turned, "turned")
parts = [
    curves(column, trained)[["model", "layer", "image", "value"]].assign(step=label)
    for column, label in kinds.items()
    if column in trained
]
shown = pd.concat(parts, ignore_index=True)
step_colours = dict(zip(dict.fromkeys(kinds.values()), (BLACK, GREEN, PURPLE, GREY), strict=False))
columns = min(len(names), 2)
rows = -(-len(names) // columns)
figure, panels = plt.subplots(
    rows, columns, figsize=(max(4.6 * columns, 6), 3.8 * rows), layout="constrained", squeeze=False
)
for ax in panels.flat[len(names) :]:
    ax.set_visible(False)
for ax, name in zip(panels.flat, names, strict=False):
    part = shown[shown.model == name]
    layer_curves(part.assign(model=part.step), step_colours, ylabel="change of $R^c$ (nats)", ax=ax)
    reference_line(0, "", ax)
    ax.set_title(name, pad=26, fontsize="medium")
panels[0, 0].get_legend().set_in_layout(False)
for ax in panels.flat[1 : len(names)]:
    ax.get_legend().remove()
save_figure(figure, shown, output, "fig-inside-change")

# %% [markdown]
# Most of the fall is not a matter of direction: turned at random, the step brings
# {glue:text}`inside_turned_part` of it. Of the squared length of the step,
# {glue:text}`inside_common` is common to all tokens of a picture, for attention averages, and
# hands much the same vector to every token. Add one vector to all tokens, normalise, and they are
# more alike in whatever subspace one looks. That common part alone changes the rate by
# {glue:text}`inside_change_common` nats a layer. The step as coded is ahead of the turned one by
# {glue:text}`inside_change_excess` nats, so training has put something of the subspaces into $W$;
# it is well short of what $U_k$ would do. Before training the two do nearly the same
# ({glue:text}`inside_change_initial` and {glue:text}`inside_change_turned_initial`).
#
# ## What ISTA does to its objective
#
# For tokens $z$ of $\mathrm{LN}(Z^{\ell+1/2})$ the step is derived from the problem of finding a
# non-negative code $a$ with a small
#
# $$
# \tfrac{1}{2} \lVert z - D a \rVert^2 + \lambda \lVert a \rVert_1,
# $$ (eq-inside-lasso)
#
# and goes from $a = z$ to the layer's output. A step as short as this one
# ($\eta \lVert D \rVert^2 < 2$) cannot raise {eq}`eq-inside-lasso` if it shrinks from both sides;
# the ReLU also sets every negative entry to zero, and may. {numref}`fig-inside-ista` shows the
# objective before and after, and two levels to judge it by: what the ReLU does alone, without the
# dictionary, and what it costs to write nothing at all, $a = 0$.

# %% mystnb={"figure": {"caption": "The objective of ISTA, mean over tokens, at the code it starts from ($a = z$), after the ReLU alone, after the step, and at the empty code. Mean and one standard deviation over pictures.", "name": "fig-inside-ista"}, "image": {"alt": "Line plots of the sparse coding objective against the layer, trained and at initialisation, at four codes."}} tags=["hide-input"]
if with_ista:
    places = ["before", "ReLU alone", "after", "empty code"]
    code_colours = dict(zip(places, (PURPLE, GREEN, BLACK, GREY), strict=True))
    figure, panels = plt.subplots(
        len(with_ista),
        2,
        figsize=(9, 3.8 * len(with_ista)),
        layout="constrained",
        sharey="row",
        squeeze=False,
    )
    parts = [
        curves(place)[[*keys, "value"]].assign(code=place) for place in places if place in values
    ]
    shown = pd.concat(parts, ignore_index=True)
    for row, name in zip(panels, with_ista, strict=True):
        for ax, weights in zip(row, ("trained", "initial"), strict=True):
            part = shown[(shown.model == name) & (shown.weights == weights)]
            layer_curves(part.assign(model=part.code), code_colours, ax=ax)
            ax.set_title(f"{name}, {weights}", pad=26, fontsize="medium")
        row[0].set_ylabel("objective per token")
        row[0].set_ylim(0, None)
        row[0].get_legend().set_in_layout(False)
        row[1].get_legend().remove()
    save_figure(figure, shown, output, "fig-inside-ista")

# %% [markdown]
# The step lowers its objective in {glue:text}`inside_ista_share` of pictures and layers, least
# often at layer {glue:text}`inside_ista_worst` ({glue:text}`inside_ista_worst_share:.0%` of the
# pictures), and it goes lower than the ReLU alone. Both hold before training too, where $D$ is
# noise: a short gradient step on any dictionary does this. But the objective stays far above that
# of the empty code. Of what is left of it {glue:text}`inside_misfit` is misfit, so $D a$ is a
# worse account of the token than no account at all. (The same step from $a = 0$ would end below
# it.) The layer's output is therefore not a sparse code of its input in the sense of
# {eq}`eq-inside-lasso`: one step from $a = z$ does not get there, and training has found no $D$
# for which it would.
#
# ## Step by step
#
# {numref}`fig-inside-shares` counts, layer by layer, the pictures in which a half step lowers its
# own term.

# %% mystnb={"figure": {"caption": "Share of the pictures in which attention lowers $R^c$ in the layer's own subspaces (left; a ViT's keys), and in which ISTA lowers its objective (right).", "name": "fig-inside-shares"}, "image": {"alt": "Two line plots against the layer: the share of pictures in which attention lowers the rate, and in which ISTA lowers its objective."}} tags=["hide-input"]
falls = values[keys].assign(attention=(values["change, own"] < 0).astype(float))
if with_ista:
    coded = values.model.isin(with_ista)
    falls["ista"] = (values.after < values.before).astype(float).where(coded)
shares = falls.drop(columns="image").groupby(keys[:3]).mean().reset_index()
figure, panels = plt.subplots(
    1,
    1 + bool(with_ista),
    figsize=(9 if with_ista else 5, 3.6),
    sharey=True,
    squeeze=False,
    layout="constrained",
)
for ax, half in zip(panels.flat, shares.columns[3:], strict=True):
    layer_curves(curves(half, shares), colours, **by_weights, ax=ax)
    ax.set_title({"attention": "attention", "ista": "ISTA"}[half], pad=26, fontsize="medium")
panels[0, 0].set(ylabel="share of pictures with a fall", ylim=(-0.04, 1.04))
panels[0, 0].get_legend().set_in_layout(False)
if with_ista:
    panels[0, 1].get_legend().remove()
save_figure(figure, shares, output, "fig-inside-shares")

# %% tags=["hide-input"]
both = values.merge(falls, on=keys)
both["ahead"] = both["change, turned"] - both["change, own"]
if with_ista:
    both["worse than empty"] = (both.after > both["empty code"]).where(both.after.notna())
    both["misfit"] = both["misfit"] / both["after"]


def by_picture(column, name, weights="trained"):
    """The mean over layers, one a picture; none where it is not measured."""
    mine = both[(both.model == name) & (both.weights == weights)]
    return mine.groupby("image")[column].mean().dropna() if column in mine else pd.Series()


def over_layers(column, name=names[0], weights="trained", as_share=False):
    mine = by_picture(column, name, weights)
    if mine.empty:
        return "–"
    interval = mean_interval(mine)
    return "{:.0%} [{:.0%}, {:.0%}]".format(*interval) if as_share else str(interval)


def of_tokens(layer, weights="trained"):
    mine = values[(values.model == names[0]) & (values.weights == weights)]
    return str(mean_interval(mine[mine.layer == layer]["token dimension"]))


def of_part(frame, column):
    mine = frame[(frame.model == names[0]) & (frame.weights == "trained")] if len(frame) else frame
    return mine[column] if len(mine) else pd.Series([float("nan")])


mine = trained[trained.model == names[0]].groupby("layer")
best = mine["own, measured"].mean().idxmax()


def layers_ahead(weights):
    here = values[(values.model == names[0]) & (values.weights == weights)].groupby("layer")
    chance = here["turned, measured"].apply(lambda v: v.pow(2).mean() ** 0.5)
    return int((here["own, measured"].mean() > 2 * chance).sum())


ista = shares[(shares.model == names[0]) & (shares.weights == "trained")].set_index("layer")
has_ista = names[0] in with_ista
change = mine[["change, own", "change, turned"]].mean().mean()
for key, value in {
    "main": names[0],
    "n": len(values.image.unique()),
    "p": main.head_dim,
    "d": main.dim,
    "turns": n_turns,
    "overlap": f"{of_part(pairs, 'overlap').mean():.3f}",
    "chance": f"{main.head_dim / main.dim:.3g}",
    "coherence": f"{of_part(pairs, 'coherence').mean():.2f}",
    "dimension": f"{of_part(bases, 'effective dimension').mean():.1f}",
    "gap": f"{of_part(atoms, 'gap').mean():.2f}",
    "gap_gaussian": f"{orthogonality_gap(gaussian).item():.2f}",
    "strength": f"{of_part(atoms, 'strength').max():.2f}",
    "tokens_first": of_tokens(0),
    "tokens_last": of_tokens(main.depth - 1),
    "tokens_initial_first": of_tokens(0, "initial"),
    "tokens_initial_last": of_tokens(main.depth - 1, "initial"),
    "random": f"{(main.dim * (main.grid**2 + 1)) ** -0.5:.2g}",
    "own_derived": over_layers("own, derived"),
    "own_measured": over_layers("own, measured"),
    "ahead_layers": layers_ahead("trained"),
    "ahead_initial": layers_ahead("initial"),
    "depth": main.depth,
    "u_measured": over_layers("U, measured"),
    "u_derived": over_layers("U, derived"),
    "shrinking_derived": over_layers("U, shrinking, derived"),
    "best_layer": int(best) + 1,
    "best_cosine": str(mean_interval(mine["own, measured"].get_group(best))),
    "fall_share": over_layers("attention", as_share=True),
    "change": over_layers("change, own"),
    "change_turned": over_layers("change, turned"),
    "change_u": over_layers("change, U"),
    "change_common": over_layers("change, common"),
    "change_excess": over_layers("ahead"),
    "change_initial": over_layers("change, own", weights="initial"),
    "change_turned_initial": over_layers("change, turned", weights="initial"),
    "turned_part": f"{change['change, turned'] / change['change, own']:.0%}",
    "common": over_layers("common share", as_share=True),
    "ista_share": over_layers("ista", as_share=True),
    "empty_share": over_layers("worse than empty", as_share=True),
    "misfit": over_layers("misfit", as_share=True),
    "ista_worst": int(ista.ista.idxmin()) + 1 if has_ista else "–",
    "ista_worst_share": float(ista.ista.min()) if has_ista else float("nan"),
}.items():
    glue(f"inside_{key}", value, display=False)

# %% [markdown]
# The table has the means over all layers, with 95 % intervals over pictures.

# %% tags=["hide-input"]
quantities = {
    "cosine with the derived descent": "own, derived",
    "turned at random, derived (±)": "turned, derived",
    "Uₖ for W, derived": "U, derived",
    "Uₖ and shrinking, derived": "U, shrinking, derived",
    "cosine with the measured descent": "own, measured",
    "turned at random, measured (±)": "turned, measured",
    "Uₖ for W, measured": "U, measured",
    "Uₖ and shrinking, measured": "U, shrinking, measured",
    "step common to all tokens (share)": "common share",
    "change of Rᶜ by attention (nats)": "change, own",
    "change by the step turned at random": "change, turned",
    "change by its common part": "change, common",
    "change with Uₖ for W, as long": "change, U",
    "change down the measured gradient, as long": "change, gradient",
    "attention lowers Rᶜ (share)": "attention",
    "ISTA's objective before": "before",
    "after the ReLU alone": "ReLU alone",
    "after the step": "after",
    "at the empty code": "empty code",
    "ISTA lowers its objective (share)": "ista",
    "non-zero entries after ISTA (share)": "non-zero",
}
summary = {
    f"{name}, {weights}": {
        label: over_layers(column, name, weights) for label, column in quantities.items()
    }
    for name, weights in networks
}
table(pd.DataFrame(summary).rename_axis(""))

# %% [markdown]
# A step straight down the measured gradient, as long as attention's own, lowers the rate before
# training, when steps are short, and raises it in the trained CRATE: its steps are far too long
# for what a gradient knows. One layer is a large move, not an infinitesimal one, and a cosine says
# nothing about where such a move ends. That is why this chapter measures both.
#
# ## What would have disproved the claim
#
# - Subspaces that overlap no less than random ones, and a dictionary no nearer to orthogonal:
#   {numref}`fig-inside-overlap`, {numref}`fig-inside-dimension` and
#   {numref}`fig-inside-dictionary`. This is so. It does not touch the objective, but it takes away
#   assumptions that the derivation rests on.
# - A step that agrees with the descent no better than when turned at random:
#   {numref}`fig-inside-cosine` and {numref}`fig-inside-map`. For the network as coded this is
#   nearly so; for the step that was derived it is not.
# - A rate that falls no further than by the same step turned at random:
#   {numref}`fig-inside-change`. It falls further, though most of the fall needs no direction.
# - Half steps that raise their own term: {numref}`fig-inside-ista` and {numref}`fig-inside-shares`.
#   Neither does so often. But the sparse code is a poor one, and lowering that objective is no feat
#   of training.
#
# Layers as optimisation steps is thus a fair account of *what* the layers of this network do to the
# rate, and a poor one of *how* they do it.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
results = []
for name in names:
    for label in (
        "cosine with the derived descent",
        "cosine with the measured descent",
        "change of Rᶜ by attention (nats)",
        "change by the step turned at random",
        "change with Uₖ for W, as long",
        "attention lowers Rᶜ (share)",
        "ISTA lowers its objective (share)",
        "non-zero entries after ISTA (share)",
    ):
        mine = by_picture(quantities[label], name)
        if len(mine):
            results.append((name, label, *mean_interval(mine)))
save_results(results, output, "03-steps")
show_provenance("03-steps", parameters, models, pictures.values())
