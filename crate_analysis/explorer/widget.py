"""The same view in JupyterLab, of any model and data set, computed by the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.explorer.images import image_record, one_of_each, pixel_bytes
from crate_analysis.interventions import ablate_head
from crate_analysis.measures import coding_rate, nonzero_fraction
from crate_analysis.models import LayerState, UnrolledModel, load_models

if TYPE_CHECKING:
    import anywidget

STATIC = Path(__file__).parent / "static"

Answer = tuple[dict[str, Any], list[bytes]]
"""What goes to the view as JSON, and after it as numbers."""


class Session:
    """Models and images under one reader's hand: the kernel's side of `explore`.

    `open` a network, `run` an image through it, `look` from a token: see the head of view.js.
    """

    def __init__(
        self, models: Mapping[str, UnrolledModel], dataset: Samples, n_images: int = 12
    ) -> None:
        self.models = dict(models)
        size = next(iter(self.models.values())).config.image_size
        given = as_samples(dataset, image_size=size)
        self.classes = given.classes
        self.samples = one_of_each(given, n_images)
        sizes = {(sample.image.shape[1], sample.image.shape[2]) for sample in self.samples}
        if len(sizes) > 1:
            raise ValueError(
                f"the images are of {len(sizes)} sizes; give load_dataset an image_size, "
                "a multiple of the models' patch size"
            )
        self.size = sizes.pop()
        for model in self.models.values():
            model.patch_grid(_batch(model, self.samples[0].image))  # or say now what does not fit

    def open(self, name: str) -> Answer:
        """The network's shape, its classes, and the images."""
        self.model = self.models[name]
        batch = _batch(self.model, self.samples[0].image)
        rows, columns = self.model.patch_grid(batch)
        with torch.inference_mode():
            state = next(iter(self.model.unroll(batch)))
            tokens, heads = state.tokens.shape[1], state.projections.shape[1]
        shape = {
            "layers": len(self.model.layers),
            "heads": heads,
            "rows": rows,
            "columns": columns,
            "tokens": tokens,
        }
        width = self.model.config.num_classes
        images = [image_record(sample, self.classes) for sample in self.samples]
        classes = list(self.classes)
        if len(classes) != width:  # the model was trained to tell others: no label is one of them
            classes = [f"class {number}" for number in range(1, width + 1)]
            images = [{**image, "label": None} for image in images]
        answer = {"shape": shape, "size": self.size, "classes": classes, "images": images}
        return answer, [pixel_bytes(sample.image) for sample in self.samples]

    def run(self, pixels: bytes | None, off: Sequence[Sequence[bool]]) -> Answer:
        """Every layer with and without the heads that are off; without pixels, the same image."""
        if pixels is not None:
            values = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)
            self.image = values.view(*self.size, 3).permute(2, 0, 1)
            self.plain = self._unroll([])
        heads = [
            (layer, head)
            for layer, row in enumerate(off)
            for head, is_off in enumerate(row)
            if is_off
        ]
        self.edited = self._unroll(heads) if heads else self.plain
        summaries = {"edited": self._summary(self.edited), "plain": self._summary(self.plain)}
        return {**summaries, "from": 0}, []

    def look(self, query: int) -> Answer:
        """Where a token looks in every head, with and without edits, and its path."""
        attention = [self._rows(states, query) for states in (self.edited, self.plain)]
        last = [state.output for state in self.edited]
        path = [self._step(z, query) for z in (self.edited[0].tokens, *last)]
        return {"path": path}, attention

    def _unroll(self, off: Sequence[tuple[int, int]]) -> list[LayerState]:
        edits = [ablate_head(layer=layer, head=head) for layer, head in off]
        with torch.inference_mode():
            return list(self.model.unroll(_batch(self.model, self.image), edits))

    @torch.inference_mode()
    def _summary(self, states: Sequence[LayerState]) -> dict[str, list[float]]:
        return {
            "rates": [coding_rate(state.projections).item() for state in states],
            "nonzero": [nonzero_fraction(state.sparsified).item() for state in states],
            "logits": self.model.classify(states[-1].output)[0].tolist(),
        }

    @torch.inference_mode()
    def _rows(self, states: Sequence[LayerState], query: int) -> bytes:
        rows = [state.attention(slice(query, query + 1))[0, :, 0] for state in states]
        return torch.stack(rows).float().cpu().numpy().astype(np.float32).tobytes()

    @torch.inference_mode()
    def _step(self, tokens: Tensor, query: int) -> dict[str, Any]:
        token = tokens[:, query : query + 1]
        likeness = torch.cosine_similarity(token[0, 0], tokens[0, 0], dim=0).item()
        logits = self.model.classify(token)[0].tolist() if self.model.config.num_classes else []
        return {"norm": token.norm().item(), "likeness": likeness, "logits": logits}


def _batch(model: UnrolledModel, image: Tensor) -> Tensor:
    return model.normalize(image[None].to(next(model.parameters()).device))


def explore(
    model: str | UnrolledModel | Sequence[str | UnrolledModel],
    dataset: Samples = "creatures",
    n_images: int = 12,
    state: str = "",
) -> anywidget.AnyWidget:
    """A view of networks at work in JupyterLab, as the book's page *Look inside*.

    Hover a patch to see where it looks in every head, click heads away, paint on the image: the
    kernel computes it all again.

    Parameters
    ----------
    model : a model, or what `load_model` takes, or several of them.
    dataset : a data set, or a list of samples or images, of one size; or what `load_dataset`
        takes, of which the validation images are read at the first model's size.
    n_images : how many images there are to choose from, one of each class first.
    state : what is chosen at first: the attribute `state` of such a view, or what follows the `#`
        in a link to the page.

    Raises ImportError without anywidget, ValueError where images and models do not fit, and what
    `load_model` and `load_dataset` raise.

    >>> view = explore("crate-creatures", n_images=2)
    >>> view.networks
    [{'name': 'crate-creatures'}]
    """
    given = [model] if isinstance(model, (str, UnrolledModel)) else list(model)
    models: dict[str, UnrolledModel] = {}
    for one in given:
        loaded = load_models([one]) if isinstance(one, str) else {one.name: one}
        for name, network in loaded.items():
            if name in models:
                raise ValueError(f"two models are called {name!r}; set model.name of one of them")
            models[name] = network.eval()
    if not models:
        raise ValueError("no model is given; give at least one, such as 'crate-creatures'")
    return _widget(Session(models, dataset, n_images), state)


def _widget(session: Session, state: str) -> anywidget.AnyWidget:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError("explore needs anywidget: pip install 'crate-analysis[book]'") from error

    class Explorer(anywidget.AnyWidget):
        """The view; `state` is what is chosen in it, as in a link to the page."""

        _esm = "\n".join(_source(name) for name in ("measures.js", "view.js", "widget.js"))
        _css = _source("explorer.css")
        networks: traitlets.List = traitlets.List().tag(sync=True)
        state: traitlets.Unicode = traitlets.Unicode().tag(sync=True)

    view = Explorer(networks=[{"name": name} for name in session.models], state=state)
    view.on_msg(lambda _, content, buffers: view.send(*answer(session, content, buffers)))
    return view


def answer(session: Session, content: Mapping[str, Any], buffers: Sequence[Any]) -> Answer:
    """The answer to one question of the view, or the reason why there is none."""
    try:
        match content["call"]:
            case "open":
                found, numbers = session.open(content["name"])
            case "run":
                pixels = None if content["same"] else bytes(buffers[0])
                found, numbers = session.run(pixels, content["off"])
            case "look":
                found, numbers = session.look(content["query"])
            case other:
                raise ValueError(f"there is no question {other!r}")
    except Exception as error:  # the view shows it; a traceback here would be seen by nobody
        return {"id": content["id"], "error": f"{type(error).__name__}: {error}"}, []
    return {"id": content["id"], "answer": found}, numbers


def _source(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
