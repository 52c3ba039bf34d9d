"""Files on the Hugging Face hub, by huggingface_hub itself: a cache on disk, and a local server."""

from __future__ import annotations

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from crate_analysis import load_model
from crate_analysis.models import ARCHS, load_models, load_snapshots
from crate_analysis.models.checkpoints import locate
from crate_analysis.models.hub import fetch
from crate_analysis.models.registry import from_config
from crate_analysis.specs import default_label, parse_spec

COMMIT = "a" * 40
OLDER = "b" * 40


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    """An empty cache, offline as by HF_HUB_OFFLINE, and no way to another machine at all."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    look_up = socket.getaddrinfo

    def only_here(host, *args, **kwargs):
        assert host == "127.0.0.1", f"a request to {host} would leave this machine"
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)


@pytest.fixture
def cached(tmp_path):
    """Writes a file into the cache as the hub's library lays it out, and says where it lies."""

    def write(repo: str, file: str, content: bytes, commit: str = COMMIT, ref: str = "main"):
        folder = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
        blob = folder / "blobs" / f"{hash((content, file)):x}".strip("-")
        pointer = folder / "snapshots" / commit / file
        for path in (blob, pointer, folder / "refs" / ref):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        pointer.symlink_to(blob)
        (folder / "refs" / ref).write_text(commit)
        return pointer

    return write


def turn_to(address, monkeypatch):
    """As HF_ENDPOINT does, which is read once, when the library is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture
def online(monkeypatch):
    """A hub of one's own: files by `OWNER/REPO/REVISION/FILE`, and a record of what was asked."""
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(f"{self.command} {self.path}")
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            content = files.get(f"{repo}/{revision}/{file}")
            if content is None:
                if not any(key.startswith(f"{repo}/") for key in files):
                    self.answer(401, "RepoNotFound")
                elif not any(key.startswith(f"{repo}/{revision}/") for key in files):
                    self.answer(404, "RevisionNotFound")
                else:
                    self.answer(404, "EntryNotFound")
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD  # noqa: N815

        def answer(self, code, name):
            self.send_response(code)
            self.send_header("X-Error-Code", name)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    turn_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield files, asked
    server.shutdown()
    server.server_close()


def weights_of(model, path: Path) -> bytes:
    """The bytes of a published file, safetensors or pickle by its ending."""
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path, {"format": "pt"})
    else:
        torch.save(model.state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def vit(build_tiny, tmp_path, monkeypatch):
    """A ViT, its bytes as safetensors and as a pickle, and `vit_test` as its architecture."""
    model = build_tiny("vit")
    half = (0.5, 0.5, 0.5)
    monkeypatch.setitem(ARCHS, "vit_test", model.config.override(pixel_mean=half, pixel_std=half))
    names = ("a.safetensors", "b.bin")
    return model, *(weights_of(model, tmp_path / name) for name in names)


def assert_same_weights(loaded, model):
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def message_of(kind, call, *args) -> str:
    with pytest.raises(kind) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is cached ---------------------------------------------------------------------------


def test_a_cached_file_is_loaded_offline(vit, cached):
    model, safetensors, _ = vit
    cached("timm/vit_test.dino", "model.safetensors", safetensors)
    loaded = load_model("hf:timm/vit_test.dino@vit_test")
    assert_same_weights(loaded, model)
    assert loaded.name == "vit_test.dino"
    assert loaded.config.pixel_mean == (0.5, 0.5, 0.5)
    assert load_model("hf:timm/vit_test.dino", heads=3).config == model.config


def test_everything_that_takes_a_name_takes_the_hub_s(vit, cached):
    _, safetensors, _ = vit
    pointer = cached("timm/vit", "model.safetensors", safetensors)
    given = "hf:timm/vit@vit_test"
    assert locate(parse_spec(given)) == pointer
    assert list(load_snapshots(given)) == []
    assert list(load_models([given])) == ["vit"]
    cached("other/vit", "model.safetensors", safetensors)
    same = load_models([given, "other=hf:other/vit@vit_test"])
    assert list(same) == ["vit", "other"]


def test_safetensors_come_before_a_pickle(vit, build_tiny, cached, tmp_path):
    model, safetensors, _ = vit
    cached("a/b", "pytorch_model.bin", weights_of(build_tiny("vit", seed=1), tmp_path / "c.bin"))
    assert_same_weights(load_model("hf:a/b@vit_test"), build_tiny("vit", seed=1))
    cached("a/b", "model.safetensors", safetensors)
    assert_same_weights(load_model("hf:a/b@vit_test"), model)


def test_a_file_in_a_folder_and_a_revision(vit, build_tiny, cached, tmp_path):
    model, _, pickled = vit
    other = weights_of(build_tiny("vit", seed=1), tmp_path / "c.bin")
    cached("a/b", "torch/base.pth", pickled)
    cached("a/b", "torch/base.pth", other, OLDER, "v1.0")
    assert_same_weights(load_model("hf:a/b/torch/base.pth@vit_test"), model)
    for revision in ("v1.0", OLDER):
        found = load_model(f"hf:a/b/torch/base.pth:{revision}@vit_test")
        assert_same_weights(found, build_tiny("vit", seed=1))
        assert found.name == "base"
    assert fetch(f"hf:a/b/torch/base.pth:{COMMIT}").read_bytes() == pickled


class Payload:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


def test_code_in_a_file_on_the_hub_is_never_run(cached, tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "bad.bin")
    cached("a/b", "pytorch_model.bin", (tmp_path / "bad.bin").read_bytes())
    message = message_of(ValueError, load_model, "hf:a/b@vit_small_patch8_224")
    assert "pytorch_model.bin: holds executable code" in message and "never run here" in message


def test_what_is_not_cached_is_told_with_the_remedy():
    message = message_of(FileNotFoundError, load_model, "hf:a/b@vit_small_patch8_224")
    assert message == (
        "hf:a/b: model.safetensors or pytorch_model.bin is not in the hub's cache, and the hub "
        "cannot be reached; download the file elsewhere, copy it here and name it: FILE@ARCH"
    )
    message = message_of(FileNotFoundError, fetch, "hf:a/b/c.pth")
    assert message.startswith("hf:a/b/c.pth: c.pth is not in the hub's cache")


# --- what is downloaded -----------------------------------------------------------------------


def test_a_file_is_downloaded_once(vit, online, tmp_path):
    model, safetensors, _ = vit
    files, asked = online
    files["timm/vit/main/model.safetensors"] = safetensors
    assert_same_weights(load_model("hf:timm/vit@vit_test"), model)
    assert_same_weights(load_model("hf:timm/vit@vit_test"), model)
    assert [line for line in asked if line.startswith("GET")] == [
        "GET /timm/vit/resolve/main/model.safetensors"
    ]
    assert fetch("hf:timm/vit").is_relative_to(tmp_path / "cache" / "models--timm--vit")


def test_a_repository_with_a_pickle_only(vit, online):
    model, _, pickled = vit
    files, _ = online
    files["a/b/v2/pytorch_model.bin"] = pickled
    assert_same_weights(load_model("hf:a/b:v2@vit_test"), model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:a/none", "hf:a/none: the hub shows no repository a/none; check its name, or log in"),
        ("hf:a/b:v9", "hf:a/b:v9: a/b has no revision 'v9'; name a branch, tag or commit"),
        ("hf:a/b/c.pth", "hf:a/b/c.pth: a/b has no c.pth; name the file, hf:a/b/FILE"),
        ("hf:a/b", "hf:a/b: a/b has no model.safetensors or pytorch_model.bin; name the file"),
    ],
)
def test_what_the_hub_lacks_is_named(online, name, message):
    files, _ = online
    files["a/b/main/README.md"] = b"no weights"
    assert message in message_of(FileNotFoundError, load_model, f"{name}@vit_small_patch8_224")


def test_a_cached_file_serves_while_the_hub_is_down(vit, online, cached, monkeypatch):
    model, _, pickled = vit
    _, asked = online
    cached("a/b", "pytorch_model.bin", pickled)
    turn_to("http://127.0.0.1:9", monkeypatch)  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert_same_weights(load_model("hf:a/b@vit_test"), model)
    assert not asked
    assert "cannot be reached" in message_of(FileNotFoundError, fetch, "hf:a/c")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b/", "hf:a/b:", "hf:a b/c"]
)
def test_a_name_of_another_form_is_told_how(name):
    message = message_of(ValueError, load_model, name)
    assert (
        f"{name!r} names nothing on the hub; write hf:OWNER/REPO or hf:OWNER/REPO/FILE" in message
    )


def test_a_model_is_called_as_its_repository_or_its_file():
    assert default_label("hf:timm/vit_small_patch8_224.dino") == "vit_small_patch8_224.dino"
    assert default_label("hf:a/b/deep/model.safetensors:v1") == "b"


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = message_of(ModuleNotFoundError, load_model, "hf:a/b@vit_small_patch8_224")
    assert message == "hf:a/b needs huggingface_hub: pip install 'crate-analysis[hub]'"


# --- the names that users type ----------------------------------------------------------------


def small(arch, **changes):
    """A published network with two layers."""
    torch.manual_seed(0)
    return from_config(ARCHS[arch].override(depth=2, **changes)).eval()


@pytest.mark.parametrize("offline", [False, True])
def test_dino_v1_as_the_hub_has_it(online, cached, monkeypatch, tmp_path, others, offline):
    files, asked = online
    model = small("vit_small_patch8_224.dino")
    save_file(others.transformers_vit(model.state_dict()), tmp_path / "x.safetensors")
    found = {
        "pytorch_model.bin": None,
        "model.safetensors": (tmp_path / "x.safetensors").read_bytes(),
        "config.json": json.dumps(
            {"model_type": "vit", "num_attention_heads": 6, "layer_norm_eps": 1e-12}
        ).encode(),
        "preprocessor_config.json": b'{"image_mean": [0.485, 0.456, 0.406]}',
    }
    for name, content in found.items():
        if content and offline:
            cached("facebook/dino-vits8", name, content)
        elif content:
            files[f"facebook/dino-vits8/main/{name}"] = content
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = load_model("hf:facebook/dino-vits8")
    assert_same_weights(loaded, model)
    assert (loaded.name, loaded.config.heads, loaded.config.norm_eps) == ("dino-vits8", 6, 1e-12)
    assert bool(asked) is not offline


def test_dinov2_in_shards(online, tmp_path, others):
    files, _ = online
    model = small("vit_small_patch14_518.dinov2")
    others.sharded(others.transformers(model.state_dict()), tmp_path)
    for path in tmp_path.glob("model*"):
        files[f"facebook/dinov2-small/main/{path.name}"] = path.read_bytes()
    config = {"model_type": "dinov2", "num_attention_heads": 6}
    files["facebook/dinov2-small/main/config.json"] = json.dumps(config).encode()
    loaded = load_model("small=hf:facebook/dinov2-small")
    assert_same_weights(loaded, model)
    assert (loaded.name, loaded.config.position_resize) == ("small", "size")
    del files["facebook/dinov2-small/main/model-00002-of-00002.safetensors"]
    files["other/dinov2/main/model.safetensors.index.json"] = files[
        "facebook/dinov2-small/main/model.safetensors.index.json"
    ]
    message = message_of(FileNotFoundError, load_model, "hf:other/dinov2")
    assert "other/dinov2 lists the shard model-00001-of-00002.safetensors and lacks it" in message


def test_crate_alpha_in_its_folder(online, tmp_path):
    files, _ = online
    model = small("crate_base_patch16_224.alpha")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    name = "UCSC-VLAA/CRATE-alpha"
    files[f"{name}/main/torch/crate_alpha_B16.pth"] = (tmp_path / "x.pth").read_bytes()
    loaded = load_model(f"hf:{name}/torch/crate_alpha_B16.pth")
    assert_same_weights(loaded, model)
    assert loaded.config == model.config and loaded.name == "crate_alpha_B16"
