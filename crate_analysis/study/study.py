"""One object for what every chapter sets up, and for what it leaves."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython import get_ipython
from IPython.display import display
from jaxtyping import Float, UInt8
from torch import Tensor

from crate_analysis.datasets import Sample, SampleDataset, batches, load_dataset, stack_images
from crate_analysis.datasets.batches import AbsentError, attempts
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.models import UnrolledModel, load_model, load_snapshots
from crate_analysis.models.registry import from_config
from crate_analysis.models.zoo import gate_note
from crate_analysis.plotting import Colour, model_colours
from crate_analysis.probes import papers_layer
from crate_analysis.provenance import provenance
from crate_analysis.segmentation.rivals import FROM_TRAINING, RIVALS
from crate_analysis.specs import parse_spec, parse_specs
from crate_analysis.study.findings import (
    ByName,
    Finding,
    Subject,
    Subjects,
    markdown_table,
    results_frame,
    write_sentences,
)
from crate_analysis.study.parameters import ParameterError, read_parameters
from crate_analysis.study.showing import (
    Exhibit,
    figure_bundle,
    record_html,
    table_bundle,
)
from crate_analysis.walk import Reading, check_layer
from crate_analysis.writing import write_text

Truth = Literal["masks", "parts", "labels", "train"]
"""What images may come with: masks, masks of parts, labels, and a training split beside them."""
Needs = Truth | Sequence[Truth] | pd.DataFrame
"""What an output cannot be made without: truth, or a frame with at least one row."""
Choices = Sequence[Any] | Mapping[str, Any]
"""What a picker offers: values, or what to call them -> values."""
Draw = Callable[..., pd.DataFrame]

TRUTHS: dict[str, Callable[[Any], bool]] = {
    "masks": lambda sample: len(sample.masks) > 0,
    "parts": lambda sample: any(whole is not None for whole in sample.part_of),
    "labels": lambda sample: sample.label is not None,
}
"""How a sample shows that it has a truth."""


@dataclass(frozen=True)
class Network:
    """One network of a study, with what it is measured on.

    `weights` is `trained` or `untrained`; `images` are those of the validation split and
    `train_images` those of the training split, at this network's image size; `layer` is the one
    that is read, from 0.
    """

    label: str
    weights: Literal["trained", "untrained"]
    model: UnrolledModel
    images: SampleDataset
    layer: int
    study: Study

    @property
    def train_images(self) -> SampleDataset | None:
        """As many images of the training split, None where the data have no such split."""
        try:
            return self.study.load_images(self.model, "train")
        except FileNotFoundError:
            return None

    def snapshots(self) -> Iterator[tuple[int, UnrolledModel]]:
        """Pairs of training step and model, in order, where snapshots were kept; else none.

        See `load_snapshots`; an untrained twin has none.
        """
        if self.weights == "untrained":
            return iter(())
        return load_snapshots(self.study._specs[self.label], self.study.device)

    @property
    def colour(self) -> Colour:
        """The one that this network has in all figures."""
        return self.study.colours[self.label]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        """Some of the images with their truth, at this network's size."""
        return [self.images[index] for index in indices]

    def pixels(self, indices: Iterable[int]) -> list[UInt8[np.ndarray, "H W 3"]]:
        """Some of the images as figures draw them."""
        return [sample.image.permute(1, 2, 0).numpy() for sample in self.samples(indices)]

    def inputs(self, indices: Iterable[int]) -> Float[Tensor, "b 3 H W"]:
        """Some of the images as the model takes them: normalised, on its device."""
        images = stack_images(self.samples(indices)).to(self.study.device)
        return self.model.normalize(images)


class Study:
    """What a chapter is run with and what it shows.

    >>> study = Study(globals(), "07-segmentation")  # doctest: +SKIP
    >>> scores = study.each(lambda network: attention_iou(network.model, network.images))
    ... # doctest: +SKIP

    It checks the parameters at once and loads nothing before it is read. The parameters are its
    attributes: `study.dataset`, `study.keep`. All of `models, dataset, n_images, image_size,
    device, workers, seed, output` are needed; `layer` is taken where there is one.

    Outputs are made by decorated functions, which run at once. Their variables are their own, so
    that a cell can be run again by itself::

        @study.figure("IoU of the best head by layer.", alt="Curves that rise.", needs="masks")
        def iou_by_layer():
            layer_curves(scores, study.colours)
            return scores

    Parameters
    ----------
    namespace : the notebook's ``globals()``.
    chapter : the notebook's name, which begins the names of all files that it leaves.

    Raises ParameterError (one line in a notebook) for an unknown parameter or a wrong value.
    """

    def __init__(self, namespace: MutableMapping[str, Any], chapter: str) -> None:
        self.chapter = chapter
        self.parameters = read_parameters(namespace)
        for name, least in (("n_images", 1), ("workers", 0)):
            if self.parameters.get(name, least) < least:
                raise ParameterError(
                    f"parameter {name!r} must be at least {least}, not {self.parameters[name]}"
                )
        earlier = namespace.get("study")
        self._numbers: dict[str, int] = {}
        self._lacks_truth = False  # that an output of this run would need
        if isinstance(earlier, Study) and earlier.chapter == chapter:
            self._numbers = earlier._numbers
        if get_ipython() is not None:
            from matplotlib_inline.backend_inline import set_matplotlib_formats

            set_matplotlib_formats("retina")

    def __getattr__(self, name: str) -> Any:
        parameters = self.__dict__.get("parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"a study has no {name!r}, and this notebook no such parameter")

    # --- networks and images ------------------------------------------------------------------

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The trained networks, in the order of `models`; the first is the chapter's main one.

        One that needs a package which is not installed is left out, and a line says how to get it.
        Raises ModuleNotFoundError where none is left.
        """
        found, missing = [], None
        for label, spec in self._specs.items():
            try:
                model = load_model(spec, device=self.device)
            except ModuleNotFoundError as error:
                _say(f"`{label}` is left out: {error}.")
                missing = error
            else:
                found.append(self._network(label, "trained", model))
        if missing and not found:
            raise missing
        return tuple(found)

    @cached_property
    def _specs(self) -> dict[str, str]:
        """Label -> the model as it was given."""
        specs = parse_specs(self.models)
        return {spec.label: given for spec, given in zip(specs, self.models, strict=True)}

    @cached_property
    def untrained(self) -> tuple[Network, ...]:
        """Of each network a twin with its first weights, drawn by `seed`."""
        return tuple(
            self._network(network.label, "untrained", self._untrained(network.model))
            for network in self.networks
        )

    def _untrained(self, model: UnrolledModel) -> UnrolledModel:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            twin = from_config(model.config).eval().to(self.device)
        twin.name = model.name
        return twin

    def _network(
        self, label: str, weights: Literal["trained", "untrained"], model: UnrolledModel
    ) -> Network:
        asked = self.parameters.get("layer")
        layer = papers_layer(model) if asked is None else check_layer(model, asked)
        return Network(label, weights, model, self.load_images(model, "val"), layer, self)

    def load_images(self, model: UnrolledModel, split: str) -> SampleDataset:
        """`n_images` images of a split, at the size that a model is measured at.

        That is `image_size`, which may hold sizes by the networks' labels, or the model's own.
        """
        size = self.image_size
        if isinstance(size, dict):
            size = size.get(model.name)
        size = size or model.config.image_size
        return load_dataset(self.dataset, split, size, self.n_images, self.seed)

    @cached_property
    def gate_notes(self) -> dict[str, str]:
        """Of each network that did not learn its task, a line that says so, by label."""
        notes = {label: gate_note(parse_spec(self._specs[label]).what) for label in self.labels}
        return {label: f"{note}." for label, note in notes.items() if note}

    @property
    def labels(self) -> list[str]:
        """The networks' names in tables and figures."""
        return [network.label for network in self.networks]

    @cached_property
    def colours(self) -> dict[str, Colour]:
        """A colour for each network, by label."""
        return model_colours(self.labels)

    @property
    def layer_rule(self) -> str:
        """Which layer is read, in words."""
        if self.parameters.get("layer") is None:
            return "the paper's: the last but one for CRATE, the last for a ViT"
        return "the one that was asked for"

    @property
    def layer_choices(self) -> dict[str, int | None]:
        """The layers that a figure may offer: the one that is read, and all that every network has.

        Numbers are from 1 for the reader, from 0 for the code.
        """
        depth = min(len(network.model.layers) for network in self.networks)
        return {"as read": None, **{str(layer + 1): layer for layer in range(depth)}}

    def at_layer(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of each network at the layer that is read; those without a layer (-1) stay."""
        read = {network.label: network.layer for network in self.networks}
        return frame[(frame["layer"] == frame["model"].map(read)) | (frame["layer"] < 0)]

    @property
    def reading(self) -> Reading:
        """How images are read: by `workers` processes, with a bar where a person looks on."""
        return Reading(workers=self.workers, progress=is_live())

    @property
    def rivals(self) -> tuple[str, ...]:
        """Those of `RIVALS` that can be had: without training images, those that need none."""
        if self.networks[0].train_images is None:
            return tuple(name for name in RIVALS if name not in FROM_TRAINING)
        return RIVALS

    def starts(self, count: int) -> range:
        """Where each group of `count` images begins, for a picker."""
        return range(0, len(self.networks[0].images), count)

    def indices(self, count: int, first: int = 0) -> list[int]:
        """The indices of `count` images that can be read, from `first` on."""
        images = self.networks[0].images
        rest = range(first, len(images))
        tries = zip(rest, attempts(images, rest, workers=0, ahead=count), strict=True)
        read = (index for index, found in tries if not isinstance(found, UnreadableSampleError))
        return list(islice(read, count))

    @cached_property
    def _truth(self) -> dict[str, bool]:
        return {}

    def has(self, truth: Truth) -> bool:
        """Whether some of the images come with this truth, or whether there is a split `train`."""
        if truth not in self._truth and truth == "train":
            self._truth[truth] = self.networks[0].train_images is not None
        elif truth not in self._truth:
            samples = (found for _, (found,) in batches(self.networks[0].images, 1))
            self._truth[truth] = any(map(TRUTHS[truth], samples))
        return self._truth[truth]

    def each(
        self,
        measure: Callable[[Network], pd.DataFrame | None],
        untrained: bool = False,
        needs: Needs = (),
    ) -> pd.DataFrame:
        """What `measure` finds for each network, in one frame, beginning with model and weights.

        `untrained` measures their twins too, whose `weights` are `untrained`. Networks for which
        `measure` returns None are passed over. Where the images lack the truth that it `needs`,
        nothing is measured, a line says so, and the frame is empty.
        """
        missing = self._missing(needs)
        if missing:
            _say(f"Nothing is measured: {missing}.")
            return pd.DataFrame(columns=["model", "weights"])
        frames, absent = [], {}
        for network in (*self.networks, *(self.untrained if untrained else ())):
            try:
                frame = measure(network)
            except AbsentError as error:
                frame, absent = error.frame, error.absent
            if frame is None:
                continue
            names = {"model": network.label, "weights": network.weights}
            rest = [column for column in frame if column not in names]
            frames.append(frame.assign(**names)[[*names, *rest]])
        self._lacks_truth |= bool(absent)
        for reason in absent.values():
            _say(f"`{self.dataset}`: {reason}; what is made from it is left out.")
        if not frames:
            return pd.DataFrame(columns=["model", "weights"])
        return pd.concat(frames, ignore_index=True)

    # --- outputs ------------------------------------------------------------------------------

    def report(
        self, headline: str, *sentences: str, needs: Needs = ()
    ) -> Callable[[Callable[[], Iterable[Finding]]], pd.DataFrame]:
        """Decorate the generator of a chapter's `Finding`s: sentences and a table of them.

        Sentences are Markdown with places for numbers: `{main}` and `{other}` are the first and
        the last network, `{by[centre prior]}` any other row's model, `{main[IoU]}` a mean with its
        interval, `{main[IoU].mean:.0%}` the mean alone, `{main[gain]:rises|falls|stays}` words for
        an interval above, below or about 0, `{main.layer}` and `{main.depth}` the layer read (from
        1) and the number of layers. The headline is set in bold. A sentence whose numbers are not
        there is left out. A network that did not learn its task decides no claim, and a line says
        so. All rows go to `CHAPTER-results.csv`.
        """

        def show(function: Callable[[], Iterable[Finding]]) -> pd.DataFrame:
            missing = self._missing(needs)
            notes = self.gate_notes
            findings = [
                replace(finding, claim="") if finding.model in notes else finding
                for finding in ([] if missing else function())
            ]
            frame = results_frame(findings)
            write_text(self._file("-results.csv"), frame.to_csv(index=False))
            if missing:
                _say(f"Findings are left out: {missing}.")
                return frame
            first, *rest = (headline, *sentences)
            written = write_sentences([f"**{first}**", *rest], self._subjects(frame, findings))
            text = "\n\n".join([" ".join(written), *notes.values(), markdown_table(frame)])
            display({"text/markdown": text, "text/plain": text}, raw=True)
            return frame

        return show

    def figure(
        self,
        caption: str,
        *,
        alt: str,
        needs: Needs = (),
        pick: Mapping[str, Choices] | None = None,
    ) -> Callable[[Draw], pd.DataFrame]:
        """Decorate a function that draws on the current figure and returns the numbers behind it.

        The function's name is the figure's, with hyphens. It is saved as SVG and its numbers as
        CSV, and links to it are ``[Figure 1](#fig-NAME)``. `caption` is Markdown, `alt` describes
        the figure to those who cannot see it. `needs` names truth without which a line stands in
        its place. `pick` offers choices for the function's arguments, in JupyterLab; its defaults
        are what is saved, and what is shown elsewhere.
        """

        def show(function: Draw) -> pd.DataFrame:
            exhibit = self._exhibit("Figure", function, caption, (".svg", ".csv"))
            missing = self._missing(needs)
            if missing:
                _say(f"{exhibit.title} is left out: {missing}.")
                return pd.DataFrame()
            data, bundle = _draw(function, exhibit, alt)
            write_text(self._file(f"-{exhibit.name}.svg"), bundle["image/svg+xml"])
            write_text(self._file(f"-{exhibit.name}.csv"), bundle["text/csv"])
            if pick and is_live():
                _show_with_picker(function, exhibit, alt, pick, bundle)
            else:
                display(bundle, raw=True)
            return data

        return show

    def table(
        self,
        caption: str,
        *,
        needs: Needs = (),
        formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    ) -> Callable[[Callable[[], pd.DataFrame]], pd.DataFrame]:
        """Decorate a function that returns a table; shown with its caption and saved as CSV.

        `formats` gives the format of some columns, such as ``{"share": "{:.0%}"}``. The index is
        not shown. Links to it are ``[Table 1](#tab-NAME)``.
        """

        def show(function: Callable[[], pd.DataFrame]) -> pd.DataFrame:
            exhibit = self._exhibit("Table", function, caption, (".csv",))
            missing = self._missing(needs)
            if missing:
                _say(f"{exhibit.title} is left out: {missing}.")
                return pd.DataFrame()
            frame = function()
            bundle = table_bundle(exhibit, frame, formats or {})
            write_text(self._file(f"-{exhibit.name}.csv"), bundle["text/csv"])
            display(bundle, raw=True)
            return frame

        return show

    def provenance(self) -> None:
        """Show how the page came about, and write the whole record to `CHAPTER-provenance.json`."""
        has_models = bool(self.parameters.get("models"))  # a chapter about others has none
        models = [self._specs[label] for label in self.labels] if has_models else []
        images = [network.images for network in self.networks] if has_models else []
        record = provenance(self.chapter, self.parameters, models, images)
        write_text(self._file("-provenance.json"), json.dumps(record, indent=2) + "\n")
        code = record["code"]
        commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
        rows = {
            "finished": record["finished"].replace("T", " ").replace("+00:00", " UTC"),
            "code": f"crate-analysis {code['version']}{commit}"
            + (" with changes" if code["changed_since"] else "")
            + f", library {code['library']}",
            "parameters": ", ".join(
                f"{name} = {value!r}" for name, value in self.parameters.items()
            ),
            "checkpoints": ", ".join(
                f"{one['given']} (SHA-256 {one['sha256'][:16]}…)" for one in record["models"]
            ),
            "read as": ", ".join(
                f"{network.label}: {'; '.join(network.model.notes)}"
                for network in (self.networks if has_models else ())
                if network.model.notes
            ),
            "data": ", ".join(
                f"{one['dataset']}, {one['images']} images"
                + (f" at {one['image_size']} px" if one["image_size"] else "")
                + f" (fingerprint {one['data']})"
                for one in record["data"]
            ),
            "versions": ", ".join(f"{name} {found}" for name, found in record["versions"].items())
            + f"; {record['system']}",
        }
        rows = {name: value for name, value in rows.items() if value}
        plain = "\n".join(f"{name}: {value}" for name, value in rows.items())
        display({"text/html": record_html(rows), "text/plain": plain}, raw=True)

    def _file(self, ending: str) -> Path:
        folder = Path(self.output).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.chapter}{ending}"

    def _exhibit(
        self,
        kind: Literal["Figure", "Table"],
        function: Callable[..., Any],
        caption: str,
        endings: Iterable[str],
    ) -> Exhibit:
        """A figure or table with its number: the next one, or, when it is shown again, its own."""
        name = function.__name__.replace("_", "-")
        key = f"{kind} {name}"
        of_kind = sum(known.startswith(kind) for known in self._numbers)
        number = self._numbers.setdefault(key, of_kind + 1)
        files = {ending[1:].upper(): str(self._file(f"-{name}{ending}")) for ending in endings}
        return Exhibit(kind, number, name, caption, files)

    def _missing(self, needs: Needs) -> str:
        """What is lacking that an output needs, in words; empty where all is there."""
        if isinstance(needs, pd.DataFrame):
            return "" if len(needs) else "there is nothing to make it from"
        wanted = [needs] if isinstance(needs, str) else list(needs)
        names = {
            "masks": "masks",
            "parts": "masks of parts",
            "labels": "labels",
            "train": "split `train`",
        }
        lacking = [names[truth] for truth in wanted if not self.has(truth)]
        self._lacks_truth |= bool(lacking)
        return f"`{self.dataset}` has no {' and no '.join(lacking)}" if lacking else ""

    def _subjects(self, frame: pd.DataFrame, findings: Sequence[Finding]) -> Subjects:
        quantities = list(dict.fromkeys(finding.quantity for finding in findings))
        if self._lacks_truth or len(self.networks) < 2:
            quantities = []  # what no finding is called may be what this run does not have
        of = {str(name): rows for name, rows in frame.groupby("model", sort=False)}
        networks = {
            network.label: {"layer": network.layer + 1, "depth": len(network.model.layers)}
            for network in self.networks
        }
        by = ByName(
            (name, Subject(name, of.get(name, frame[:0]), quantities, **networks.get(name, {})))
            for name in dict.fromkeys([*networks, *(finding.model for finding in findings)])
        )
        subjects = Subjects(main=by[self.labels[0]], by=by)
        if len(self.networks) > 1:
            subjects["other"] = by[self.labels[-1]]
        return subjects


def is_live() -> bool:
    """Whether a person looks on, in JupyterLab, and not papermill or the book."""
    return get_ipython() is not None and "JPY_SESSION_NAME" in os.environ


def _draw(
    function: Draw, exhibit: Exhibit, alt: str, **choices: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    before = plt.get_fignums()
    try:
        data = function(**choices)
        if plt.get_fignums() == before:
            raise ValueError(f"{function.__name__} drew no figure: begin with plt.subplots()")
        return data, figure_bundle(exhibit, plt.gcf(), alt, data)
    finally:
        for number in set(plt.get_fignums()) - set(before):
            plt.close(number)


def _show_with_picker(
    function: Draw,
    exhibit: Exhibit,
    alt: str,
    pick: Mapping[str, Choices],
    bundle: dict[str, Any],
) -> None:
    """Controls above the figure, which is drawn anew for each choice; what was saved stays."""
    import ipywidgets

    defaults = {
        name: argument.default for name, argument in inspect.signature(function).parameters.items()
    }
    controls = {}
    for name, choices in pick.items():
        options = choices if isinstance(choices, Mapping) else {str(one): one for one in choices}
        controls[name] = ipywidgets.SelectionSlider(
            options=list(options.items()),
            index=list(options.values()).index(defaults[name]),  # a value may be None
            description=name.replace("_", " "),
            continuous_update=False,
        )
    display(ipywidgets.HBox(list(controls.values())))
    shown = display(bundle, raw=True, display_id=True)

    def draw_again(_: Any) -> None:
        choices = {name: control.value for name, control in controls.items()}
        shown.update(_draw(function, exhibit, alt, **choices)[1], raw=True)

    for control in controls.values():
        control.observe(draw_again, "value")


def _say(line: str) -> None:
    display({"text/markdown": line, "text/plain": line}, raw=True)
