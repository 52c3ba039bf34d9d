"""What an experiment declared, measured on each of its runs: one table that chapters read.

A run's numbers are kept beside its weights, with a digest of these, the code and what was asked, so
that a killed measurement goes on and nothing is measured twice. The table has no weights and is
small: it is what of all runs but the first is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from crate_analysis.bars import bar
from crate_analysis.datasets import SampleDataset, load_dataset
from crate_analysis.fingerprints import of_code
from crate_analysis.interventions import chosen_costs, head_costs, questions_of, record
from crate_analysis.measures import (
    MEASURES,
    MeanInterval,
    cross_fit,
    dictionary_frame,
    mean_interval,
    measure_layers,
    paired_difference,
)
from crate_analysis.models import UnrolledModel, load_model
from crate_analysis.names import digest
from crate_analysis.paths import data_folder
from crate_analysis.probes import accuracy_under, shuffle_patches
from crate_analysis.segmentation import (
    Scoring,
    best_heads,
    best_overlaps,
    coco_average_precision,
    head_scores,
    image_specific,
    scores_with_rivals,
    true_objects,
)
from crate_analysis.segmentation.detection import find_objects
from crate_analysis.segmentation.rivals import OTHERS, PRIOR, RANDOM
from crate_analysis.training.experiments import MEASURES as NAMES
from crate_analysis.training.experiments import Experiment, Run, is_finished
from crate_analysis.training.gate import raw_pixel_accuracy
from crate_analysis.training.knn import knn_accuracy
from crate_analysis.training.recipe import Recipe
from crate_analysis.walk import READING, walk
from crate_analysis.writing import read_sealed, seal, write_text

COLUMNS = ["cell", "seed", "step", "learning_rate", "quantity", "mean", "low", "high"]
TABLE = "measured.csv"
AP = "average_precision"
WITHIN = Scoring(within=("object",), values=("average_precision",))
"""How heads are scored for parts: within the animal."""
N_IMAGES = 200
N_SCENES = 60
N_EDITED = 100
"""Images whose heads are taken out one by one."""
N_VOTING = 4_000
"""Training images whose features vote."""
N_ASKED = 1_000
"""Images that accuracy is measured on."""


class Subject(NamedTuple):
    """A network of a run, and what its numbers are measured with."""

    model: UnrolledModel
    first: UnrolledModel | None
    """The same before training, where it was kept."""
    recipe: Recipe
    n_images: int
    cache: Path

    def images(self, split: str = "val", limit: int = 0) -> SampleDataset:
        """Of the data set that the run was trained on."""
        recipe, size = self.recipe, self.model.config.image_size
        return load_dataset(recipe.dataset, split, size, limit or self.n_images, recipe.data_seed)


Numbers = dict[str, MeanInterval]


def accuracy(subject: Subject) -> Numbers:
    """Share of images named rightly, as they are and with the objects' patches shuffled."""
    size = subject.model.config.patch_size
    shuffled = {"shuffled": lambda sample: shuffle_patches(sample, size, "objects", 0)}
    whole = accuracy_under(subject.model, subject.images(limit=N_ASKED), {}, READING)
    broken = accuracy_under(subject.model, subject.images(), shuffled, READING)
    return {
        "accuracy": mean_interval(whole.hit),
        "accuracy, shuffled": mean_interval(broken[broken.change == "shuffled"].hit),
    }


def maps(subject: Subject) -> Numbers:
    """Image-specific IoU of the best head: at the cross-fitted best layer, and over all layers."""
    images, scoring = subject.images(), Scoring(values=("iou",))
    scores = scores_with_rivals(
        subject.model, images, images, scoring, rivals=[OTHERS], reading=READING
    )
    frame = image_specific(best_heads(scores.query("not is_part")))
    columns = ["layer", "image", "iou", "image_specific"]
    best = cross_fit(frame[columns], "layer", "image_specific")
    return {
        "image-specific IoU": mean_interval(best.image_specific),
        "image-specific IoU, mean over layers": mean_interval(
            frame.groupby("image").image_specific.mean()
        ),
        "IoU": mean_interval(best.iou),
    }


def objects(subject: Subject) -> Numbers:
    """What MaskCut finds on scenes, at the cross-fitted best layer: mean best IoU, and AP50.

    AP50 belongs to a set of images: it is of the layer that most images chose.
    """
    size = 24 * subject.model.config.patch_size
    scenes = load_dataset(
        f"{subject.recipe.dataset}-scenes", "val", size, N_SCENES, subject.recipe.data_seed
    )
    true = true_objects(scenes)
    found = find_objects(subject.model, scenes, range(len(subject.model.layers)), reading=READING)
    covers = pd.concat(
        best_overlaps(part, true).assign(layer=layer) for layer, part in found.groupby("layer")
    ).rename(columns={"mask": "cover"})
    best = cross_fit(covers[["layer", "image", "cover"]], "layer", "cover")
    layer = best.layer.mode()[0]
    precision = coco_average_precision(found[found.layer == layer], true)
    row = precision[(precision.kind == "mask") & (precision.metric == "AP50")].iloc[0]
    return {
        "MaskCut's mean best IoU": mean_interval(best.cover),
        "MaskCut's AP50": MeanInterval(row.value, row.low, row.high),
    }


def parts(subject: Subject) -> Numbers:
    """How well the best head ranks the pixels of each part, chosen on the other half of the images.

    For each part: AP, its image-specific part, and AP less that of the location prior.
    """
    rivals = [OTHERS, PRIOR, RANDOM]
    frame = scores_with_rivals(
        subject.model, subject.images(), subject.images("train"), WITHIN, rivals=rivals,
        reading=READING,
    )  # fmt: skip
    chosen = cross_fit(frame, ["layer", "head"], AP, by=["maps", "mask"])
    numbers: Numbers = {}
    for mask, rows in chosen.groupby("mask", sort=False):
        by = {name: part.set_index("image")[AP] for name, part in rows.groupby("maps")}
        both = image_specific(
            frame[(frame["mask"] == mask) & frame["maps"].isin(["own", OTHERS])], AP
        )
        own = rows[rows["maps"] == "own"][["image", "layer", "head"]]
        specific = both.merge(own, on=["image", "layer", "head"]).image_specific
        numbers[f"{mask}: AP"] = mean_interval(by["own"])
        numbers[f"{mask}: image-specific"] = mean_interval(specific)
        numbers[f"{mask}: AP less the prior"] = paired_difference(by["own"], by[PRIOR])
        numbers[f"{mask}: prior"] = mean_interval(by[PRIOR])
        numbers[f"{mask}: random maps"] = mean_interval(by[RANDOM])
    return numbers


def edits(subject: Subject) -> Numbers:
    """What the head that ranks a part best costs when it is taken out (by its mean).

    For each part that the classes ask for: points of its own question, and of the others.
    """
    images = subject.images(limit=min(N_EDITED, subject.n_images))
    asked = questions_of(images).names
    if not asked:
        return {}
    train = subject.images("train", limit=N_EDITED)
    others = record(subject.model, train, reading=READING)
    costs = head_costs(subject.model, images, others, ["mean"], READING)
    frame = head_scores(subject.model, images, WITHIN, reading=READING)
    chosen = cross_fit(frame[frame["mask"].isin(asked)], ["layer", "head"], AP, by=["mask"])
    lost = chosen_costs(costs, chosen[["model", "mask", "image", "layer", "head"]])
    told = costs.drop_duplicates(["image", "question"])
    numbers: Numbers = {}
    for part in asked:
        rows = lost[lost["mask"] == part]
        numbers[f"{part}: answer right"] = mean_interval(told[told.question == part].before)
        numbers[f"{part}: lost in its question"] = mean_interval(rows.own)
        numbers[f"{part}: lost in the others"] = mean_interval(rows.other_questions)
        numbers[f"{part}: lost by other heads"] = mean_interval(rows.other_heads)
    return numbers


def sparsity(subject: Subject) -> Numbers:
    """Share of non-zero codes, mean over layers, with and before training; change of D."""
    if subject.model.config.nonlinearity == "mlp":
        return {}
    images = subject.images(limit=min(100, subject.n_images))
    wanted = {"share": MEASURES["nonzero_fraction"]}
    numbers: Numbers = {}
    shares = {}
    for name, model in (("", subject.model), (" before training", subject.first)):
        if model is not None:
            frame = measure_layers(model, images, wanted, reading=READING)
            shares[name] = frame.groupby("image").value.mean()
            numbers[f"non-zero share{name}"] = mean_interval(shares[name])
            for layer in range(len(model.layers)):
                of = frame[frame.layer == layer]
                numbers[f"non-zero share{name}, layer {layer + 1}"] = mean_interval(of.value)
    if subject.first is not None:
        numbers["non-zero share, training's change"] = paired_difference(
            shares[""], shares[" before training"]
        )
        changes = dictionary_frame(subject.model, subject.first).drop_duplicates("layer")
        for name in ("change", "cosine"):
            value = float(changes[name].mean())
            numbers[f"dictionary's {name}"] = MeanInterval(value, np.nan, np.nan)
    return numbers


@torch.inference_mode()
def neighbours(subject: Subject) -> Numbers:
    """Accuracy of the vote of neighbours: of [CLS], and of raw pixels, which is its gate."""
    features = {}
    for split, limit in (("train", N_VOTING), ("val", N_ASKED)):
        images = subject.images(split, limit=limit)
        last = [len(subject.model.layers) - 1]
        found = [
            (next(iter(batch.states)).output[:, 0], [sample.label for sample in batch.samples])
            for batch in walk(subject.model, images, last, READING)
        ]
        features[split] = (
            torch.cat([tokens for tokens, _ in found]),
            torch.tensor([label for _, labels in found for label in labels]),
        )
    own = knn_accuracy(*features["train"], *features["val"])
    recipe = subject.recipe
    pixels = raw_pixel_accuracy(
        recipe.dataset, subject.model.config.image_size, recipe.data_seed, subject.cache
    )
    return {
        "neighbours' accuracy": MeanInterval(own, np.nan, np.nan),
        "neighbours' accuracy of raw pixels": MeanInterval(pixels, np.nan, np.nan),
    }


Measure = Callable[[Subject], Numbers]
MEASURED: dict[str, Measure] = dict(
    zip(NAMES, (accuracy, maps, objects, parts, edits, sparsity, neighbours), strict=True)
)


def measure_run(
    folder: Path,
    recipe: Recipe,
    names: tuple[str, ...],
    snapshots: bool,
    n_images: int,
    cache: Path,
    threads: int = 1,
) -> pd.DataFrame:
    """The numbers of one finished run, with the training step; read where they were kept."""
    torch.set_num_threads(threads)
    kept = sorted((folder / "snapshots").glob("step-*.safetensors"))
    files = {int(path.stem.removeprefix("step-")): path for path in kept}
    files[recipe.steps] = folder / "model.safetensors"
    first = load_model(files[0]) if 0 in files else None
    rows = []
    for step, path in sorted(files.items()):
        if step != recipe.steps and not snapshots:
            continue
        subject = Subject(load_model(path), first, recipe, n_images, cache)
        for name in names:
            about = digest([path.read_bytes(), _code().encode(), name.encode(), b"%d" % n_images])
            store = folder / "measured" / f"{name}-{step:06d}.json"
            numbers = _kept(store, about)
            if numbers is None:
                numbers = {key: list(value) for key, value in MEASURED[name](subject).items()}
                store.parent.mkdir(exist_ok=True)
                write_text(store, seal({"numbers": numbers}, about))
            rows += [(step, quantity, *value) for quantity, value in numbers.items()]
    return pd.DataFrame(rows, columns=["step", "quantity", "mean", "low", "high"])


@cache
def _code() -> str:
    return of_code(Path(__file__).parents[1])


def _kept(store: Path, about: str) -> dict[str, list[float]] | None:
    """The numbers that were measured before, if they are of the same weights and code."""
    try:
        numbers: dict[str, list[float]] = read_sealed(store, about)["numbers"]
    except (FileNotFoundError, ValueError):
        return None
    return numbers


def measure_experiment(
    experiment: Experiment,
    folder: Path,
    cache: Path,
    n_images: int = N_IMAGES,
    jobs: int = 1,
    threads: int = 1,
) -> pd.DataFrame:
    """Measure every finished run of an experiment, as its file's `measure` says.

    Parameters
    ----------
    folder, cache : as of `run_experiment`.
    n_images : of the split `val`, that every number is measured on where no other count is declared
        in this module.
    jobs, threads : how many runs at a time, and threads of each.

    Writes `folder/measured.csv` and returns it: a row for each run, step (the last, or each
    snapshot) and quantity, with cell, seed, learning_rate, and the mean over images with its 95 %
    interval (NaN where a number has none). What was measured before is read. Raises ValueError
    where no run is finished.
    """
    runs = [
        run
        for cell in experiment.cells
        for run in experiment.main_runs(cell, folder)
        if is_finished(folder / run.name)
    ]
    if not runs:
        raise ValueError(f"{folder} holds no finished run of {experiment.name}; train some first")
    one = partial(
        measure_run,
        names=experiment.measure,
        snapshots=experiment.along,
        n_images=n_images,
        cache=cache,
        threads=threads,
    )
    tasks = (delayed(one)(folder / run.name, run.recipe) for run in runs)
    found = Parallel(jobs, return_as="generator")(tasks)
    frames = list(bar(_named(runs, found), experiment.name, len(runs), unit="run"))
    table = pd.concat(frames, ignore_index=True)[COLUMNS]
    write_text(folder / TABLE, table.to_csv(index=False, float_format="%.5g"))
    return table


def _named(runs: list[Run], found: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for run, frame in zip(runs, found, strict=True):
        recipe = run.recipe
        yield frame.assign(cell=run.cell, seed=recipe.seed, learning_rate=recipe.learning_rate)


def measured(name: str) -> pd.DataFrame:
    """The table of an experiment's runs: a shipped one by its name, or a file.

    An empty name is for none, and gives an empty table.

    >>> sorted(measured("labels").cell.unique())[:2]
    ['crate-coats', 'crate-parts']

    Raises ValueError that names those there are, or the columns that a file lacks.
    """
    if not name:
        return pd.DataFrame(columns=COLUMNS)
    folder = data_folder() / "experiments"
    path = folder / f"{name}.csv"
    if not path.is_file():
        path = Path(name).expanduser()
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in folder.glob("*.csv")))
        raise ValueError(f"no table of runs {name!r}: name a file, or one of {there}")
    try:
        table = pd.read_csv(path)
        missing = [column for column in COLUMNS if column not in table]
    except ValueError as error:
        raise ValueError(f"{path} is no table of runs ({error})") from None
    if missing:
        raise ValueError(f"{path} is no table of runs: it has no column {missing[0]!r}")
    return table


def by_seed(
    table: pd.DataFrame,
    cell: str,
    quantity: str,
    gate: float | None = None,
    gated: str = "accuracy",
) -> pd.Series:
    """Of the runs of a cell the last value of a quantity, by seed; empty where there is none.

    With `gate` only of the runs whose `gated`, another quantity of the table, is more than this.
    """
    rows = table[(table.cell == cell) & (table.quantity == quantity)].sort_values("step")
    values = rows.groupby("seed")["mean"].last()
    if gate is None:
        return values
    judged = by_seed(table, cell, gated)
    return values[values.index.isin(judged.index[judged > gate])]


def each_run(
    table: pd.DataFrame,
    cells: Mapping[str, str],
    quantity: str,
    gate: float,
    gated: str = "accuracy",
) -> pd.DataFrame:
    """The last value of a quantity of each run of some cells, as `plotting.run_dots` takes it.

    Columns: `cell`, as `cells` calls it; `run`, its seed; `value`; and `counts`, whether the run
    passes the gate of `by_seed`.
    """
    rows = [
        (name, seed, value, seed in counted)
        for cell, name in cells.items()
        for counted in [by_seed(table, cell, quantity, gate, gated).index]
        for seed, value in by_seed(table, cell, quantity).items()
    ]
    return pd.DataFrame(rows, columns=["cell", "run", "value", "counts"])


class Criterion(NamedTuple):
    """What was declared before the runs, and what they show."""

    of: str
    """The cell, design or set of runs that it is about."""
    declared: str
    found: str
    met: bool | None
    """None where the runs cannot say."""


def gate_criteria(table: pd.DataFrame, cells: Mapping[str, str], gate: float) -> list[Criterion]:
    """Of each cell that has runs whether all are right on more than `gate` of the images.

    `cells` gives the names to call them by.
    """
    accuracies = {name: by_seed(table, cell, "accuracy") for cell, name in cells.items()}
    return [
        Criterion(
            name,
            f"more than {gate:.0%} right",
            ", ".join(f"{share:.1%}" for share in accuracy),
            bool((accuracy > gate).all()),
        )
        for name, accuracy in accuracies.items()
        if len(accuracy)
    ]


def criteria_frame(criteria: Iterable[Criterion]) -> pd.DataFrame:
    """Criteria as a table: `met` is yes, no, or open.

    >>> criteria_frame([Criterion("CRATE", "more than 85% right", "91.0%", True)]).met[0]
    'yes'
    """
    frame = pd.DataFrame(criteria, columns=list(Criterion._fields))
    return frame.assign(met=[{True: "yes", False: "no"}.get(one, "open") for one in frame.met])
