"""Model specs: what each part is, and everything that is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crate_analysis.specs import ModelSpec, default_label, hub_parts, parse_spec, parse_specs

FIELDS = {"heads": 8, "step_size": 0.3}


@pytest.mark.parametrize(
    ("text", "label", "what", "arch", "fields"),
    [
        ("crate-creatures", "crate-creatures", "crate-creatures", None, {}),
        ("x.pth@heads=8,step_size=0.3", "x", "x.pth", None, FIELDS),
        ("mine=runs/a/model.safetensors", "mine", "runs/a/model.safetensors", None, {}),
        ("runs/a/model.safetensors", "a", "runs/a/model.safetensors", None, {}),
        ("runs/lr=0.1/x.pth", "x", "runs/lr=0.1/x.pth", None, {}),
        ("a@b/x.pth@vit", "x", "a@b/x.pth", "vit", {}),
        ("m=x.pth@vit@heads=8,step_size=0.3", "m", "x.pth", "vit", FIELDS),
        ("m=x.pth@heads=8,step_size=0.3@vit", "m", "x.pth", "vit", FIELDS),
        ("m=x.pth@pixel_mean=0,1,.5,on=true", "m", "x.pth", None,
         {"pixel_mean": (0, 1, 0.5), "on": True}),
        ("x@eps=1e-05,nonlinearity=ista_soft,n=-3", "x", "x", None,
         {"eps": 1e-5, "nonlinearity": "ista_soft", "n": -3}),
        ("hf:facebook/dino-vits8", "dino-vits8", "hf:facebook/dino-vits8", None, {}),
        ("hf:a/b/torch/crate_B16.pth:v1@vit", "crate_B16", "hf:a/b/torch/crate_B16.pth:v1",
         "vit", {}),
        ("dino=hf:a/b@heads=8,step_size=0.3", "dino", "hf:a/b", None, FIELDS),
        (" two words = a b.pth ", "two words", "a b.pth", None, {}),
    ],
)  # fmt: skip
def test_the_parts_of_a_spec(text, label, what, arch, fields):
    spec = parse_spec(text)
    assert (spec.label, spec.what, spec.arch, spec.fields) == (label, what, arch, fields)
    assert parse_spec(str(spec)) == spec and parse_spec(spec) is spec


@pytest.mark.parametrize(
    ("what", "label"),
    [
        ("runs/a/last.safetensors", "a"),
        ("runs/a/snapshots/step-000010.safetensors", "a"),
        ("runs/mae/checkpoint-799.pth", "mae"),
        ("runs/mae/best_model.pth.tar", "mae"),
        ("runs/a/_best.pth", "a"),
        ("runs/_mine.pth", "mine"),
        ("hub/models--a--b/snapshots/" + "0a" * 20 + "/model.safetensors", "models--a--b"),
        ("b/model.safetensors.index.json", "b"),
        ("dinov2-small/", "dinov2-small"),
        ("vit.v2/x.y.pth", "x.y"),
        ("/model.pth", "model"),
        ("hf:a/b/torch/model.pth", "b"),
    ],
)
def test_a_stem_that_says_nothing_gives_way_to_its_folder(what, label):
    assert default_label(what) == parse_spec(what).label == label


def test_what_exists_is_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("run=1.pth", "a@b=2", "x@y.pth", "c=d@e.pth"):
        (tmp_path / name).touch()
        assert parse_spec(name).what == name
        assert parse_spec(f"{name}@heads=2") == parse_spec(str(parse_spec(f"{name}@heads=2")))
        assert parse_spec(f"{name}@heads=2").what == name
        assert parse_spec(f"mine={name}@vit").what == name
        assert parse_spec(f"~/{name}").what == f"~/{name}"
        assert parse_spec(str(parse_spec(f"mine={name}"))) == parse_spec(f"mine={name}")
    assert parse_spec("run=2.pth").label == "run"
    assert parse_spec(tmp_path / "run=1.pth").label == "run=1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "named by a text such as 'crate-creatures', not by ''"),
        ("=x.pth", "'=x.pth': '' is no label"),
        ("_a=x.pth", "'_a' is no label; write a word before '=' that does not begin with '_'"),
        ("a\n=x.pth@b", None),
        ("a=", "'a=' names no model"),
        ("a=@vit", "names no model"),
        ("x.pth@", "'x.pth@': nothing, or a second time the same, after an @"),
        ("x.pth@vit@vit", "a second time the same"),
        ("x.pth@heads=2@heads=3", "a second time the same"),
        ("x.pth@heads=", "'heads=' lacks a field or a value"),
        ("x.pth@heads=2,", "'' lacks a field or a value"),
        ("x.pth@heads=2,heads=3", "'heads=3' is not one field=value, each field once"),
        ("x.pth@2h=3", "'2h=3' is not one field=value"),
        ("x.pth@a=b=c", "'a=b=c' is not one field=value"),
        ("x.pth@step_size=nan", "nan is not a finite number"),
        ("x.pth@step_size=-Infinity", "-Infinity is not a finite number"),
        ("x.pth@step_size=1e999", "1e999 is not a finite number"),
        ("x.pth@heads=" + "9" * 5000, "is too large a number"),
    ],
)
def test_other_forms_are_refused_in_one_line(text, message):
    if message is None:
        assert "\n" not in parse_spec(text).label
        return
    with pytest.raises(ValueError) as caught:
        parse_spec(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_labels_are_unique_and_the_remedy_works():
    specs = parse_specs(["crate-creatures", "a/model.pth", "b/model.pth", "mine=b/model.pth"])
    assert [spec.label for spec in specs] == ["crate-creatures", "a", "b", "mine"]
    with pytest.raises(ValueError) as caught:
        parse_specs(["a/x.pth", "vit", "b/x.pth@heads=2"])
    message = str(caught.value)
    assert "'a/x.pth' and 'b/x.pth@heads=2' would both be called 'x'" in message
    assert message.endswith('as in models: ["x-1=a/x.pth", "x-2=b/x.pth@heads=2"]')
    pasted = eval(message.partition("models: ")[2])
    assert [spec.what for spec in parse_specs(pasted)] == ["a/x.pth", "b/x.pth"]
    with pytest.raises(ValueError, match=r"'vit' and 'vit' would both"):
        parse_specs(["vit", "vit"])
    with pytest.raises(ValueError, match=r"'vit' and 'vit=a\.pth' would both"):
        parse_specs(["vit", "vit=a.pth"])


@pytest.mark.parametrize("texts", ["crate-creatures", 3, None, parse_spec("crate-creatures")])
def test_models_are_a_list(unchecked, texts):
    with pytest.raises(ValueError, match=r"models are a list, not .*; write models: "):
        parse_specs(texts)
    with pytest.raises(ValueError, match="named by a text such as 'crate-creatures', not by 3"):
        parse_specs([3])
    with pytest.raises(ValueError, match="no model is named"):
        parse_specs([])


def test_names_on_the_hub():
    assert hub_parts("hf:a/b") == ("a/b", None, None)
    assert hub_parts("hf:a/b/c/d.pth:v1") == ("a/b", "c/d.pth", "v1")
    with pytest.raises(ValueError, match="'hf:a' names nothing on the hub"):
        hub_parts("hf:a")


@pytest.mark.parametrize("text", ["/", "//", "/@0", "a=/", "/ "])
def test_slashes_name_no_model(text):
    with pytest.raises(ValueError, match="names no model"):
        parse_spec(text)


def test_a_name_of_underscores_is_called_model():
    """Legends leave out what begins with one; a label holds no slash."""
    assert [parse_spec(text).label for text in ("_", "/_@0")] == ["model"] * 2


@given(st.text(max_size=30))
@example("/@0")
@example("_/")
def test_any_text_is_a_spec_or_one_line(text):
    try:
        spec = parse_spec(text)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert isinstance(spec, ModelSpec) and spec.label and "/" not in spec.label


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUES = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.from_regex(r"[b-e][a-e]{1,8}", fullmatch=True),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=3), NAMES, st.dictionaries(NAMES, VALUES))
def test_a_spec_is_what_it_was_written_from(label, path, arch, fields):
    fields = {name.replace("-", "_"): value for name, value in fields.items()}
    spec = ModelSpec(label, "/".join([*path, "x.pth"]), arch, fields)
    assert parse_spec(str(spec)) == spec


def test_a_spec_is_read_without_torch():
    code = "import sys, crate_analysis.specs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("False", "True")
