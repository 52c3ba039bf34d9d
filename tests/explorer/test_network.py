"""The networks in JavaScript against those in torch."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from crate_analysis import build_model, load_model
from crate_analysis.explorer import page_networks
from crate_analysis.measures import coding_rate, nonzero_fraction
from crate_analysis.models import save_model
from crate_analysis.models.zoo import shipped_files

PASS = """([weights, pixels, off, plain, query]) => {
  const engine = crateEngine(plain ? { vectors: false } : {});
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const session = engine.session();
  const { shape } = session.open(bytes(weights).buffer);
  const none = off.map((row) => row.map(() => false));
  session.run(bytes(pixels), none);
  const result = session.run(null, off);
  const { attention, plain: before, path } = session.look(query);
  return { shape, ...result, attention: Array.from(attention), before: Array.from(before), path };
}"""
"""The image without edits first, as the page does it, then what the edits change."""


def run(page, path, image, off, query=0, plain=False):
    pixels = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    texts = [base64.b64encode(data).decode() for data in (path.read_bytes(), pixels)]
    return page.evaluate(PASS, [*texts, off, plain, query])


def output_map(model, layer):
    """The linear layer in which the heads' outputs lie side by side."""
    part = model.layers[layer]
    return part.attn.proj if model.config.family == "vit" else part.attention.fn.to_out[0]


@torch.no_grad()
def expected(model, image, off, query=0):
    """What torch has; a head is switched off by the columns of the output map that read it."""
    model = model.eval()
    width = model.config.head_dim
    for layer, row in enumerate(off):
        for head, is_off in enumerate(row):
            if is_off:
                weight = output_map(model, layer).weight
                weight[:, head * width : (head + 1) * width] = 0
    states = list(model.unroll(model.normalize(image[None])))
    tokens = [states[0].tokens, *(state.output for state in states)]
    return {
        "rates": [coding_rate(state.projections).item() for state in states],
        "nonzero": [nonzero_fraction(state.sparsified).item() for state in states],
        "logits": model.classify(states[-1].output)[0].tolist(),
        "attention": torch.stack(
            [state.attention(slice(query, query + 1))[0, :, 0] for state in states]
        ).flatten(),
        "norms": [z[0, query].norm().item() for z in tokens],
        "likeness": [torch.cosine_similarity(z[0, query], z[0, 0], dim=0).item() for z in tokens],
        "read": [model.classify(z[:, query : query + 1])[0].tolist() for z in tokens],
    }


def check(found, wanted, has_classes=True):
    close = {"rtol": 1e-4, "atol": 1e-4}
    for name in ("rates", "nonzero", "logits"):
        np.testing.assert_allclose(found["edited"][name], wanted[name], err_msg=name, **close)
    np.testing.assert_allclose(found["attention"], wanted["attention"], atol=1e-4, rtol=0)
    path = found["path"]
    np.testing.assert_allclose([step["norm"] for step in path], wanted["norms"], **close)
    np.testing.assert_allclose([step["likeness"] for step in path], wanted["likeness"], **close)
    if has_classes:
        np.testing.assert_allclose([step["logits"] for step in path], wanted["read"], **close)


def all_on(model):
    return [[False] * model.config.heads for _ in range(model.config.depth)]


@pytest.fixture(scope="module")
def sample():
    from crate_analysis import load_dataset

    return load_dataset("creatures", "val", 72)[3]


@pytest.mark.parametrize("name", page_networks())
def test_shipped_networks_agree_with_torch(name, scripts):
    """Each that the page offers: whole, seen from a patch, and with two heads off."""
    from crate_analysis import load_dataset

    model = load_model(name)
    size = model.config.image_size
    image = load_dataset("creatures", "val", size)[3].image
    has_classes = model.config.num_classes > 0
    off = all_on(model)
    found = run(scripts, shipped_files()[name], image, off)
    check(found, expected(model, image, off), has_classes)
    assert found["edited"] == found["plain"]

    off[1][model.config.heads - 1] = off[-2][0] = True
    query = 1 + model.config.grid * (model.config.grid // 2)
    found = run(scripts, shipped_files()[name], image, off, query)
    check(found, expected(load_model(name), image, off, query), has_classes)
    assert found["from"] == 1, "the layer before the first edit is not computed again"
    before = expected(load_model(name), image, all_on(model), query)
    np.testing.assert_allclose(found["before"], before["attention"], atol=1e-4)
    assert np.abs(np.subtract(found["edited"]["logits"], before["logits"])).max() > 1e-3


OTHERS = {
    "one head, no output map": ("crate_micro_patch6_72.creatures", {"heads": 1}),
    "mhsa and mlp": (
        "crate_micro_patch6_72.creatures",
        {"attention": "mhsa", "nonlinearity": "mlp", "mlp_ratio": 3.0},
    ),
    "projector": ("crate_micro_patch6_72.creatures", {"projector_dim": 24}),
    "no classifier": ("vit_micro_patch6_72.creatures", {"num_classes": 0}),
    "other steps and sizes": (
        "crate_micro_patch6_72.creatures",
        {"step_size": 0.3, "sparsity": 0.2, "dim": 60, "heads": 3, "patch_size": 8, "depth": 3},
    ),
    "alpha": (
        "crate_micro_patch6_72.creatures",
        {
            "nonlinearity": "ista_overcomplete",
            "stem": "conv",
            "output_bias": False,
            "norm_eps": 1e-3,
            "mlp_ratio": 2.0,
        },
    ),
    "registers and LayerScale": (
        "vit_micro_patch6_72.creatures",
        {"registers": 3, "layer_scale": True, "norm_eps": 1e-2, "head_eps": 1e-4},
    ),
    "other pixels": (
        "vit_micro_patch6_72.creatures",
        {"pixel_mean": (0.5, 0.4, 0.3), "pixel_std": (0.2, 0.3, 0.4)},
    ),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("plain", [False, True], ids=["vectors", "plain"])
def test_other_configurations_agree_with_torch(case, plain, scripts, sample, tmp_path):
    arch, fields = OTHERS[case]
    torch.manual_seed(0)
    model = build_model(arch, **fields)
    with torch.no_grad():  # biases and norms that do nothing would hide that they are left out
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.2 * torch.randn_like(weight))
    save_model(model, tmp_path / "model.safetensors")
    off = all_on(model)
    if model.config.heads > 1:
        off[1][1] = True
    found = run(scripts, tmp_path / "model.safetensors", sample.image, off, 5, plain)
    check(found, expected(model, sample.image, off, 5), model.config.num_classes > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_of_each_precision_are_read_exactly(dtype, scripts, sample, tmp_path):
    model = load_model("crate-creatures")
    model.cls_token.data[0, 0, 0] = 3e-6  # not normal in half precision
    path = tmp_path / "model.safetensors"
    save_model(model, path, dtype=dtype)
    found = run(scripts, path, sample.image, all_on(model))
    check(found, expected(load_model(path), sample.image, all_on(model)))


def test_unknown_precision_and_missing_weights_are_named(scripts, sample, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    save_model(load_model("crate-creatures"), path)
    weights = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del weights["transformer.layers.2.1.fn.weight"]
    save_file(weights, path, metadata)
    off = [[False] * 4] * 6
    with pytest.raises(Exception, match=r"lack transformer\.layers\.2\.1\.fn\.weight"):
        run(scripts, path, sample.image, off)
    save_file({name: weight.double() for name, weight in weights.items()}, path, metadata)
    with pytest.raises(Exception, match="F64"):
        run(scripts, path, sample.image, off)


def test_edits_of_one_session_do_not_add_up(scripts, sample):
    """Heads on and off in any order give what a fresh pass gives."""
    path = shipped_files()["crate-creatures"]
    found = scripts.evaluate(
        """([weights, pixels]) => {
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const session = crateEngine().session();
          session.open(bytes(weights).buffer);
          const upTo = (count) => [...Array(count).keys()];
          const row = (l, off) => upTo(4).map((h) => off.includes(`${l}.${h}`));
          const rows = (...off) => upTo(6).map((l) => row(l, off));
          const image = bytes(pixels);
          session.run(image, rows());
          const steps = [["1.2"], ["1.2", "4.0"], ["4.0"], ["3.3", "4.0"], []];
          const one = steps.map((off) => session.run(null, rows(...off)));
          const fresh = steps.map((off) => session.run(image, rows(...off)));
          const logits = (results) => results.map((x) => x.edited.logits);
          return { one: logits(one), fresh: logits(fresh), from: one.map((x) => x.from) };
        }""",
        [
            base64.b64encode(path.read_bytes()).decode(),
            base64.b64encode(sample.image.permute(1, 2, 0).contiguous().numpy().tobytes()).decode(),
        ],
    )
    assert found["one"] == found["fresh"]
    assert found["from"] == [1, 4, 4, 3, 6]


def test_products_of_any_shape(scripts):
    """The vector instructions fill rows and columns up; nothing of that may be seen."""
    worst = scripts.evaluate(
        """() => {
          const engine = crateEngine(), plain = crateEngine({ vectors: false });
          let seed = 1;
          const next = () => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5;
          const numbers = (n) => Float32Array.from({ length: n }, next);
          const shapes = [
            [1, 1, 1], [145, 131, 37], [4, 8, 3], [5, 9, 128], [197, 16, 129], [2, 700, 600],
          ];
          return shapes.map(([m, n, k]) => {
            const [a, b, bias] = [numbers(m * k), numbers(n * k), numbers(n)];
            const [x, y] = [engine, plain].map((e) => e.product(a, b, m, n, k, bias));
            let exact = 0;
            for (let i = 0; i < k; i++) exact += a[(m - 1) * k + i] * b[(n - 1) * k + i];
            exact += bias[n - 1];
            const apart = Math.max(...x.map((value, i) => Math.abs(value - y[i])));
            return Math.max(apart, Math.abs(x.at(-1) - exact));
          });
        }"""
    )
    assert max(worst) < 1e-5


def test_vector_instructions_are_in_use(scripts, sample):
    """How long a pass takes is for the benchmark; here, that it takes clearly less than without."""
    with_them, without = scripts.evaluate(
        """([weights, pixels]) => {
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const image = bytes(pixels), off = Array(6).fill(Array(4).fill(false));
          const sessions = [true, false].map((vectors) => crateEngine({ vectors }).session());
          sessions.forEach((session) => session.open(bytes(weights).buffer));
          const best = [Infinity, Infinity];
          for (let i = 0; i < 4; i++) sessions.forEach((session, s) => {
            const begun = performance.now();
            session.run(image, off);
            best[s] = Math.min(best[s], performance.now() - begun);
          });
          return best;
        }""",
        [
            base64.b64encode(shipped_files()["vit-creatures"].read_bytes()).decode(),
            base64.b64encode(sample.image.permute(1, 2, 0).contiguous().numpy().tobytes()).decode(),
        ],
    )
    assert with_them < 0.8 * without
