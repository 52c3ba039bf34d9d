"""Study: what a chapter sets up, and the outputs that it leaves."""

import json
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from crate_analysis import load_dataset
from crate_analysis.study import Finding, ParameterError, Study
from crate_analysis.study import study as module
from crate_analysis.study.showing import inline_html

KINDS = {
    "models": list[str], "dataset": str, "n_images": int,
    "image_size": "dict[str, int] or int or None",
    "layer": "int or None", "device": str, "workers": int, "seed": int, "output": str,
}  # fmt: skip


@pytest.fixture
def shown(monkeypatch) -> list[dict]:
    """What was displayed, a MIME bundle each."""
    found: list[dict] = []
    monkeypatch.setattr(module, "display", lambda bundle, **_: found.append(bundle))
    return found


@pytest.fixture
def make(tmp_path, shown):
    def study(**changes) -> Study:
        values = {
            "models": ["crate-creatures", "vit-creatures"], "dataset": "creatures", "n_images": 3,
            "image_size": None, "layer": None, "device": "cpu", "workers": 0, "seed": 0,
            "output": str(tmp_path / "out"),
        } | changes  # fmt: skip
        return Study({**values, "__annotations__": KINDS}, "07-test")

    return study


@pytest.fixture
def photographs(tmp_path) -> str:
    for index, sample in enumerate(load_dataset("creatures", "dev", 72, limit=3)):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    return f"folder:{tmp_path}"


def line():
    """Draw."""
    _, ax = plt.subplots()
    ax.plot([0, 1])
    return pd.DataFrame({"x": [0, 1]})


def test_parameters_are_attributes_and_misses_are_told(make):
    study = make()
    assert (study.n_images, study.seed) == (3, 0)
    with pytest.raises(AttributeError, match="no 'sed'"):
        study.sed  # noqa: B018
    with pytest.raises(ParameterError, match="'n_images' must be at least 1, not 0"):
        make(n_images=0)


def test_networks_know_their_images_layer_and_colour(make):
    study = make(models=["crate-creatures", "mine=vit-creatures"])
    crate, vit = study.networks
    assert study.labels == ["crate-creatures", "mine"]
    assert (crate.layer, vit.layer) == (4, 5)  # the paper's
    assert crate.images.image_size == 72 and len(crate.images) == 3
    assert crate.train_images.split == "train"
    assert crate.colour == study.colours["crate-creatures"] != vit.colour
    assert crate.inputs([0, 2]).shape == (2, 3, 72, 72)
    assert crate.pixels([1])[0].shape == (72, 72, 3)
    assert make(layer=-1).networks[0].layer == 5


def test_a_network_that_did_not_learn_its_task_decides_no_claim(make, shown, monkeypatch):
    why = "vit-creatures did not learn its task"
    monkeypatch.setattr(module, "gate_note", lambda name: why if name == "vit-creatures" else None)
    study = make(models=["crate-creatures", "mine=vit-creatures"])
    assert study.gate_notes == {"mine": f"{why}."}

    @study.report("{main[IoU]}.")
    def frame():
        for label in study.labels:
            yield Finding(label, "IoU", [0.2, 0.4, 0.3], claim="segmentation")

    assert frame.set_index("model").claim.to_dict() == {
        "crate-creatures": "segmentation",
        "mine": "",
    }
    assert f"{why}." in shown[-1]["text/markdown"].split("\n\n")


def test_an_image_size_may_be_one_networks_own(make):
    sizes = {"mine": 84, "another": 60}  # of another, which this run has not, nothing is asked
    study = make(models=["crate-creatures", "mine=vit-creatures"], image_size=sizes)
    assert [network.images.image_size for network in study.networks] == [72, 84]
    assert [network.train_images.image_size for network in study.networks] == [72, 84]


def test_a_network_whose_package_is_missing_is_left_out_with_a_line(make, shown, monkeypatch):
    real = module.load_model

    def load(spec, device):
        if "vit" in spec:
            raise ModuleNotFoundError("vit is in the package vits: pip install vits")
        return real(spec, device=device)

    monkeypatch.setattr(module, "load_model", load)
    study = make(models=["gone=vit-creatures", "crate-creatures"])
    assert study.labels == ["crate-creatures"] and study.networks[0].model.name == study.labels[0]
    (said,) = shown
    assert said["text/plain"] == (
        "`gone` is left out: vit is in the package vits: pip install vits."
    )
    assert study.gate_notes == {} and list(study.networks[0].snapshots())
    study.provenance()
    assert "crate-creatures" in shown[-1]["text/plain"] and "vits" not in shown[-1]["text/plain"]
    with pytest.raises(ModuleNotFoundError, match="pip install vits"):
        make(models=["vit-creatures"]).networks  # noqa: B018


def test_untrained_twins_are_settled_by_the_seed(make):
    first, again, other = (make(seed=seed).untrained[0].model for seed in (0, 0, 1))
    trained = make().networks[0].model
    name = next(iter(first.state_dict()))
    weights = [model.state_dict()[name] for model in (first, again, other, trained)]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any() and (weights[0] != weights[3]).any()


def test_each_measures_every_network_into_one_frame(make):
    study = make()
    frame = study.each(lambda network: pd.DataFrame({"layer": [network.layer]}), untrained=True)
    assert list(frame) == ["model", "weights", "layer"]
    assert frame.model.tolist() == ["crate-creatures", "vit-creatures"] * 2
    assert frame.weights.tolist() == ["trained"] * 2 + ["untrained"] * 2
    rival = pd.DataFrame({"model": "vit-creatures", "layer": [-1, 5, 4]})
    assert study.at_layer(rival)["layer"].tolist() == [-1, 5]


def test_indices_leave_out_what_cannot_be_read(make, photographs, tmp_path):
    (tmp_path / "1.png").write_bytes(b"no image")
    assert make(dataset=photographs).indices(2) == [0, 2]
    assert make().indices(2, first=1) == [1, 2]


def test_truth_is_looked_for_in_the_images(make, photographs):
    assert all(make().has(truth) for truth in ("masks", "parts", "labels"))
    study = make(dataset=photographs)
    assert not any(study.has(truth) for truth in ("masks", "parts", "labels"))
    assert study.networks[0].train_images is None
    assert study.rivals == ("other images", "random maps", "patch ceiling")


def test_a_figure_is_shown_and_saved_with_caption_alt_and_numbers(make, shown, tmp_path):
    study = make()
    data = study.figure("IoU of *all* `heads`, $R^c$.", alt='A "line".')(line)
    assert data["x"].tolist() == [0, 1]
    (bundle,) = shown
    page = bundle["text/html"]
    assert '<figure id="fig-line"' in page and 'alt="A &quot;line&quot;."' in page
    caption = r"<strong>Figure 1.</strong> IoU of <em>all</em> <code>heads</code>, "
    assert caption in page and r"\(R^c\)" in page
    for suffix, mime in ((".svg", "image/svg+xml"), (".csv", "text/csv")):
        file = tmp_path / "out" / f"07-test-line{suffix}"
        assert file.read_text() == bundle[mime]
        assert f'href="{file}" download' in page
    assert not plt.get_fignums()


def test_the_same_figure_gives_the_same_output(make, shown):
    make().figure("A.", alt="A line.")(line)
    make().figure("A.", alt="A line.")(line)
    assert shown[0] == shown[1]


def test_numbers_stay_when_a_cell_or_the_set_up_is_run_again(make, shown):
    study = make()

    def other():
        return line()

    for function in (line, other, line):
        study.figure("A.", alt="A line.")(function)
    study.table("B.")(line_table)
    titles = [re.search(r"<strong>(.*?)\.</strong>", one["text/html"])[1] for one in shown]
    assert titles == ["Figure 1", "Figure 2", "Figure 1", "Table 1"]
    values = {**study.parameters, "__annotations__": KINDS, "study": study}
    Study(values, "07-test").figure("A.", alt="A line.")(other)
    assert "Figure 2." in shown[-1]["text/html"]


def line_table():
    return pd.DataFrame({"share": [0.25, None], "name": ["<a>", "b"]})


def test_a_table_has_its_caption_and_formats(make, shown, tmp_path):
    make().table("Shares.", formats={"share": "{:.0%}"})(line_table)
    page = shown[0]["text/html"]
    assert all(text in page for text in (">25%<", ">–<", "&lt;a&gt;", "Table 1.", "Shares."))
    assert 'id="tab-line-table"' in page and "T_" not in page
    assert (tmp_path / "out" / "07-test-line-table.csv").exists()


def test_an_image_is_shown_as_png_at_twice_the_density(make, shown):
    def picture():
        _, ax = plt.subplots(figsize=(2, 2))
        ax.imshow([[0, 1]])
        return pd.DataFrame()

    make().figure("A.", alt="Two pixels.")(picture)
    page = shown[0]["text/html"]
    assert "data:image/png" in page
    assert 100 < int(re.search(r'width="(\d+)"', page)[1]) < 250


def test_without_its_truth_a_line_stands_in_the_place_of_an_output(make, shown, photographs):
    study = make(dataset=photographs)

    def never():
        raise AssertionError("nothing is computed")

    def scores(network):
        raise AssertionError("nothing is measured")

    assert study.each(scores, needs="masks").empty
    study.figure("A.", alt="A line.", needs="masks")(never)
    study.table("A.", needs=("parts", "labels"))(never)
    frame = study.report("{main[IoU]}.", needs="masks")(never)
    study.figure("A.", alt="A line.")(line)
    assert frame.empty and "quantity" in frame
    said = [one["text/plain"] for one in shown]
    assert said[1] == f"Figure 1 is left out: `{photographs}` has no masks."
    assert said[2] == f"Table 1 is left out: `{photographs}` has no masks of parts and no labels."
    assert said[4].startswith("Figure 2.")


def test_a_report_shows_sentences_and_a_table_and_saves_the_rows(make, shown, tmp_path):
    def findings():
        yield Finding("crate-creatures", "IoU", [0.2, 0.4, 0.3], claim="segmentation")
        yield Finding("vit-creatures", "IoU", [0.1, 0.1, 0.1])

    frame = make().report("{main} {main[IoU]:finds|misses|may find} it.", "{other} less.")(findings)
    text = shown[0]["text/markdown"]
    assert text.startswith("**`crate-creatures` finds it.** `vit-creatures` less.\n\n| mean")
    saved = pd.read_csv(tmp_path / "out" / "07-test-results.csv")
    assert saved["mean"].tolist() == pytest.approx([0.3, 0.1])
    assert frame.verdict.tolist() == ["holds", ""]


def test_a_slip_in_a_sentence_is_told_and_what_a_run_lacks_is_left_out(make, shown, photographs):
    def findings():
        yield Finding("crate-creatures", "accuracy", [0.2, 0.4, 0.3])

    sentences = "{main[accuracy].mean:.1f}.", "{main[IoU]}."
    without_masks = make(dataset=photographs)
    without_masks.each(line, needs="masks")
    alone = make(models=["crate-creatures"])
    for study in (without_masks, alone):
        study.report(*sentences)(findings)
        assert shown[-1]["text/markdown"].startswith("**0.3.**\n\n|")
    with pytest.raises(KeyError, match="no finding is called 'IoU'; did you mean 'accuracy'"):
        make().report(*sentences)(findings)


def test_a_function_that_draws_nothing_is_told(make):
    with pytest.raises(ValueError, match="empty drew no figure"):
        make().figure("A.", alt="Nothing.")(empty)


def empty():
    return pd.DataFrame()


def test_provenance_tells_models_data_and_parameters(make, shown, tmp_path):
    make(models=["crate-creatures"], image_size=24).provenance()
    page = shown[0]["text/html"]
    file = tmp_path / "out" / "07-test-provenance.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    for told in (
        f"crate-creatures (SHA-256 {record['models'][0]['sha256'][:16]}",
        f"creatures, val, seed 0, 3 images at 24 px (fingerprint {record['data'][0]['data']})",
        record["code"]["library"],
        f"torch {record['versions']['torch']}",
        "n_images = 3",
        "dataset = &#39;creatures&#39;",
    ):
        assert told in page


@pytest.mark.parametrize(
    ("markdown", "page"),
    [
        ("a `b` *c*", "a <code>b</code> <em>c</em>"),
        ("<b>", "&lt;b&gt;"),
        (
            "x $a_1 < b_2$ y",
            r'x <span class="math notranslate nohighlight">\(a_1 &lt; b_2\)</span> y',
        ),
    ],
)
def test_captions_are_one_paragraph_of_markdown(markdown, page):
    assert inline_html(markdown) == page
