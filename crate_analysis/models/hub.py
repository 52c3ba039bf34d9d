"""Checkpoints on the Hugging Face hub, by names such as `hf:timm/vit_small_patch8_224.dino`.

Files go through the hub's own cache and settings: `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` and a
login count as everywhere else. Fetched are the weights, their shards, and the two small files that
say how to read them (`config.json`, `preprocessor_config.json`); nothing is run.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from crate_analysis.specs import HUB_PREFIX, hub_parts

INDEX_ENDING = ".index.json"
DEFAULT_FILES = tuple(
    name + ending
    for name in ("model.safetensors", "pytorch_model.bin")
    for ending in ("", INDEX_ENDING)
)
"""What is looked for, in this order, where a name has no file; an index lists shards."""
COMPANIONS = ("config.json", "preprocessor_config.json")
"""What the weights leave open, beside them."""


def is_on_hub(name: str) -> bool:
    """Whether a model's name is one of the hub's."""
    return name.startswith(HUB_PREFIX)


def fetch(name: str) -> Path:
    """The local copy of a model's file on the hub, downloaded where the cache lacks it.

    Its shards and companions lie beside it.

    Parameters
    ----------
    name : `hf:OWNER/REPO`, of which `model.safetensors` is taken, or else `pytorch_model.bin`, or
        the index of either's shards; `hf:OWNER/REPO/FILE`; either with `:REVISION`, a branch, tag
        or commit.

    Raises ModuleNotFoundError where the optional dependency is missing, FileNotFoundError for a
    repository, revision or file that is not there, or that is neither cached nor can be reached,
    and ValueError for a name of another form.
    """
    repo, named_file, revision = hub_parts(name)
    source = _Source(name, repo, revision)
    files = (named_file,) if named_file else DEFAULT_FILES
    for file in files:
        if path := source.get(file):
            break
    else:
        wanted = named_file or "model.safetensors or pytorch_model.bin"
        if source.reachable:
            raise FileNotFoundError(
                f"{name}: {repo} has no {wanted}; name the file, {HUB_PREFIX}{repo}/FILE"
            )
        raise FileNotFoundError(
            f"{name}: {wanted} is not in the hub's cache, and the hub cannot be reached; "
            "download the file elsewhere, copy it here and name it: FILE@ARCH"
        )
    folder = PurePosixPath(file).parent
    if file.endswith(INDEX_ENDING):
        for shard in _listed(path):
            if source.get(str(folder / shard)) is None:
                raise FileNotFoundError(f"{name}: {repo} lists the shard {shard} and lacks it")
    for companion in COMPANIONS:
        source.get(str(folder / companion))
    return path


class _Source:
    """One repository; it is asked over the network until that fails, then only the cache is."""

    def __init__(self, name: str, repo: str, revision: str | None) -> None:
        self.name = name
        self.repo = repo
        self.revision = revision
        self.reachable = True
        try:
            from huggingface_hub import errors, hf_hub_download
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{name} needs huggingface_hub: pip install 'crate-analysis[hub]'"
            ) from None
        self.download, self.errors = hf_hub_download, errors

    def get(self, file: str) -> Path | None:
        """The local copy of a file; None where the repository or the cache has none."""
        name, repo, errors = self.name, self.repo, self.errors
        try:
            return Path(
                self.download(
                    repo, file, revision=self.revision, local_files_only=not self.reachable
                )
            )
        except errors.LocalEntryNotFoundError:
            self.reachable = False
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"{name}: {repo} has no revision {self.revision!r}; "
                "name a branch, tag or commit of it"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{name}: the hub shows no repository {repo}; "
                "check its name, or log in (`hf auth login`) if it is private or gated"
            ) from error
        except errors.HfHubHTTPError as error:
            answer = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"{name}: the hub refused: {answer}; try again later"
            ) from error
        except errors.HFValidationError as error:
            raise ValueError(f"{name}: {error}") from error


def _listed(index: Path) -> list[str]:
    """The shards that an index names; a broken index is told when it is read."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
