"""The widget: what the kernel answers, and its front end in a browser."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from crate_analysis import build_model, load_dataset, load_model
from crate_analysis.explorer import explore
from crate_analysis.explorer.images import pixel_bytes
from crate_analysis.explorer.widget import STATIC, Session, answer
from crate_analysis.interventions import ablate_head
from crate_analysis.measures import coding_rate


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("creatures", "val", 72, limit=40)


@pytest.fixture
def session(dataset):
    models = {name: load_model(name) for name in ("crate-creatures", "vit-creatures")}
    return Session(models, dataset, n_images=4)


def off(*heads, layers=6, count=4):
    return [[(layer, head) in heads for head in range(count)] for layer in range(layers)]


def test_open_gives_shape_classes_and_images(session, dataset):
    found, pixels = session.open("vit-creatures")
    assert found["shape"] == {"layers": 6, "heads": 4, "rows": 12, "columns": 12, "tokens": 145}
    assert found["classes"] == list(dataset.classes)
    assert len(found["images"]) == len(pixels) == 4
    assert pixels == [pixel_bytes(sample.image) for sample in session.samples]
    json.dumps(found)


def test_run_and_look_are_the_library(session):
    session.open("crate-creatures")
    image = session.samples[1].image
    found, _ = session.run(pixel_bytes(image), off())
    model = session.models["crate-creatures"]
    states = list(model.unroll(model.normalize(image[None])))
    assert found["edited"] == found["plain"]
    assert found["plain"]["rates"] == [coding_rate(s.projections).item() for s in states]
    found, _ = session.run(None, off((2, 1), (4, 0)))
    edits = [ablate_head(2, 1), ablate_head(4, 0)]
    changed = list(model.unroll(model.normalize(image[None]), edits))
    assert found["edited"]["rates"] == [coding_rate(s.projections).item() for s in changed]
    assert found["plain"]["rates"] == [coding_rate(s.projections).item() for s in states]
    seen, (edited, plain) = session.look(7)
    for buffer, wanted in ((edited, changed), (plain, states)):
        rows = torch.stack([s.attention(slice(7, 8))[0, :, 0] for s in wanted])
        np.testing.assert_array_equal(np.frombuffer(buffer, np.float32), rows.detach().flatten())
    assert len(seen["path"]) == 7 and len(seen["path"][0]["logits"]) == 12
    json.dumps(seen)


def test_a_session_takes_any_model_and_data_set():
    """Registers, an overcomplete code, no classes, images without labels and of another size."""
    torch.manual_seed(0)
    models = {
        "registers": build_model("vit_micro_patch6_72.creatures", registers=2, num_classes=0),
        "alpha": build_model("crate_micro_patch6_72.creatures", nonlinearity="ista_overcomplete"),
    }
    scenes = load_dataset("creatures-scenes", "val", 48, limit=3)
    session = Session({name: model.eval() for name, model in models.items()}, scenes)
    found, pixels = session.open("registers")
    assert found["shape"]["tokens"] == 1 + 2 + 64 and found["classes"] == []
    assert len(pixels) == 3
    session.run(pixels[0], off((0, 0)))
    seen, (edited, _) = session.look(3)
    assert len(np.frombuffer(edited, np.float32)) == 6 * 4 * 67
    assert seen["path"][0]["logits"] == []
    assert session.open("alpha")[0]["shape"]["tokens"] == 65
    images = Session(
        {"alpha": models["alpha"].eval()}, torch.zeros(2, 3, 72, 72, dtype=torch.uint8)
    )
    assert images.open("alpha")[0]["images"][1] == {"name": "images[1]", "label": None, "masks": []}
    session.run(pixels[1], off())
    session.look(0)


def test_other_classes_than_the_models_are_not_its_labels():
    exotic = load_dataset("creatures", "val", 72, limit=3)
    model = build_model("crate_micro_patch6_72.creatures", num_classes=5).eval()
    found, _ = Session({"five": model}, exotic).open("five")
    assert found["classes"] == [f"class {n}" for n in range(1, 6)]
    assert [image["label"] for image in found["images"]] == [None] * 3
    assert found["images"][0]["name"] in exotic.classes


def test_what_does_not_fit_is_told_at_once(dataset):
    model = load_model("crate-creatures")
    with pytest.raises(ValueError, match=r"resize"):
        Session({"crate": model}, load_dataset("creatures", "val", 70, limit=2))
    mixed = [dataset[0], load_dataset("creatures", "val", 96)[0]]
    with pytest.raises(ValueError, match=r"2 sizes; give load_dataset an image_size"):
        Session({"crate": model}, mixed)
    with pytest.raises(ValueError, match="no image that can be read"):
        Session({"crate": model}, [])
    with pytest.raises(ValueError, match="n_images=0"):
        Session({"crate": model}, dataset, 0)
    with pytest.raises(ValueError, match="no model is given"):
        explore([], dataset)
    with pytest.raises(ValueError, match=r"two models are called 'crate-creatures'"):
        explore([model, model], dataset)


def test_errors_reach_the_view(session):
    sent, buffers = answer(session, {"id": 3, "call": "open", "name": "nothing"}, [])
    assert sent == {"id": 3, "error": "KeyError: 'nothing'"} and buffers == []
    sent, _ = answer(session, {"id": 4, "call": "dance"}, [])
    assert "dance" in sent["error"]


def test_without_anywidget_the_error_says_what_to_install(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match=r"pip install 'crate-analysis\[book\]'"):
        explore("crate-creatures", dataset, n_images=1)


def test_front_end(browser, session):
    """The widget's own script, with a kernel behind it that answers as a real one does."""
    page = browser.new_page()
    trouble = []
    page.on("pageerror", lambda error: trouble.append(str(error)))

    def kernel(content, buffers):
        sent, numbers = answer(session, content, [base64.b64decode(text) for text in buffers])
        return sent, [base64.b64encode(data).decode() for data in numbers]

    page.expose_function("kernel", kernel)
    page.set_content('<div id="place"></div>')
    source = "\n".join(
        (STATIC / name).read_text(encoding="utf-8")
        for name in ("measures.js", "view.js", "widget.js")
    )
    page.evaluate(
        """async (source) => {
          const script = new Blob([source], { type: "text/javascript" });
          const { default: widget } = await import(URL.createObjectURL(script));
          const networks = [{ name: "crate-creatures" }, { name: "vit-creatures" }];
          const values = { networks, state: "layer=2&head=2&image=2" };
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const heard = {};
          window.model = {
            get: (name) => values[name],
            set: (name, value) => (values[name] = value),
            save_changes() {},
            on: (event, callback) => (heard[event] = callback),
            async send(content, callbacks, buffers) {
              const text = (x) =>
                btoa(Array.from(new Uint8Array(x), (byte) => String.fromCharCode(byte)).join(""));
              const [sent, numbers] = await window.kernel(content, buffers.map(text));
              heard["msg:custom"](sent, numbers.map((x) => new DataView(bytes(x).buffer)));
            },
          };
          widget.render({ model: window.model, el: document.querySelector("#place") });
        }""",
        source,
    )
    page.wait_for_selector(".ce[data-ready]")
    assert page.locator(".ce-map").count() == 24
    assert "image=2" in page.evaluate("model.get('state')")
    shown = [int(text) for text in page.locator(".ce-rate .ce-number").all_inner_texts()]
    model = session.models["crate-creatures"]
    images = model.normalize(session.samples[1].image[None])
    with torch.no_grad():
        rates = [coding_rate(state.projections).item() for state in model.unroll(images)]
    assert shown == [round(rate) for rate in rates]
    page.locator(".ce-power").first.evaluate("button => button.click()")
    page.wait_for_function("model.get('state').includes('off=1.1')")
    page.locator("select").select_option("vit-creatures")
    page.wait_for_function("model.get('state').includes('vit')")
    assert page.get_by_role("button", name="Copy a link").count() == 0
    assert not trouble
    page.close()


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "a",
            "metadata": {},
            "outputs": [],
            "source": "from crate_analysis.explorer import explore\n"
            "explore(['crate-creatures', 'vit-creatures'], n_images=3, state='layer=3')",
        },
    ],
    "metadata": {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on a free port, its address with a notebook open."""
    (tmp_path / "look.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    command += [
        "--ServerApp.port_retries=50",
        "--IdentityProvider.token=",
        f"--notebook-dir={tmp_path}",
    ]
    command += ["--ServerApp.disable_check_xsrf=True"]
    runtime = tmp_path / "runtime"
    environment = {"JUPYTER_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)}
    environment["OMP_NUM_THREADS"] = "1"
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            yield f"{_address(server, runtime)}lab/tree/look.ipynb?reset"
        finally:
            server.terminate()


def _address(server, runtime: Path, patience: float = 120) -> str:
    end = time.monotonic() + patience
    while time.monotonic() < end and server.poll() is None:
        for record in runtime.glob("jpserver-*.json"):
            url = json.loads(record.read_text(encoding="utf-8"))["url"]
            with urllib.request.urlopen(f"{url}api") as reply:
                if reply.status == 200:
                    return url
        time.sleep(0.5)
    raise RuntimeError("JupyterLab did not start")


@pytest.mark.slow
def test_in_jupyterlab(browser, lab, run_all_cells):
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto(lab)
    run_all_cells(page)
    page.wait_for_selector(".ce[data-ready]", timeout=300_000)
    assert page.locator(".ce-map").count() == 24
    assert page.locator(".ce-strip canvas").count() == 3
    before = page.locator(".ce-rate .ce-number").all_inner_texts()
    page.locator(".ce-power").nth(5).click()
    page.wait_for_function("document.querySelectorAll('.ce-is-off').length === 1")
    page.wait_for_function(
        """(before) => [...document.querySelectorAll(".ce-rate .ce-number")]
          .some((x, i) => x.textContent !== before[i])""",
        arg=before,
        timeout=120_000,
    )
    page.close()
