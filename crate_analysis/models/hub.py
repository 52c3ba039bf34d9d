"""Checkpoints on the Hugging Face hub, by names such as `hf:timm/vit_small_patch8_224.dino`.

Files go through the hub's own cache and settings: `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` and a
login count as everywhere else. Nothing but the file itself is fetched, and none of it is run.
"""

from __future__ import annotations

from pathlib import Path

from crate_analysis.specs import HUB_PREFIX as PREFIX
from crate_analysis.specs import hub_parts

DEFAULT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What is looked for, in this order, where a name has no file."""


def is_on_hub(name: str) -> bool:
    """Whether a model's name is one of the hub's."""
    return name.startswith(PREFIX)


def fetch(name: str) -> Path:
    """The local copy of a file on the hub, downloaded where the cache has none or an old one.

    Parameters
    ----------
    name : `hf:OWNER/REPO`, of which `model.safetensors` is taken, or else `pytorch_model.bin`;
        `hf:OWNER/REPO/FILE`; either with `:REVISION`, a branch, tag or commit.

    Raises ModuleNotFoundError where the optional dependency is missing, FileNotFoundError for a
    repository, revision or file that is not there, or that is neither cached nor can be reached,
    and ValueError for a name of another form.
    """
    repo, named_file, revision = hub_parts(name)
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{name} needs huggingface_hub: pip install 'crate-analysis[hub]'"
        ) from None
    files = (named_file,) if named_file else DEFAULT_FILES
    reachable = True  # until a request fails; then only the cache is asked, which takes no time
    for file in files:
        try:
            found = hf_hub_download(repo, file, revision=revision, local_files_only=not reachable)
            return Path(found)
        except errors.LocalEntryNotFoundError:
            reachable = False
        except errors.EntryNotFoundError:
            continue
        except errors.RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"{name}: {repo} has no revision {revision!r}; name a branch, tag or commit of it"
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
    wanted = " or ".join(files)
    if reachable:
        raise FileNotFoundError(
            f"{name}: {repo} has no {wanted}; name the file, {PREFIX}{repo}/FILE"
        )
    raise FileNotFoundError(
        f"{name}: {wanted} is not in the hub's cache, and the hub cannot be reached; "
        "download the file elsewhere, copy it here and name it: FILE@ARCH"
    )
