"""Models that are named as the hub names them: their folder, downloaded where it is not there yet."""

from __future__ import annotations

from pathlib import Path

from cellduality_plugin.errors import CellDualityError

_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def looks_local(model: str) -> bool:
    """Return whether ``model`` means a folder, and not a model of the hub."""
    return Path(model).is_absolute() or model.startswith(".") or model.count("/") != 1 or Path(model).exists()


def local_model(model: str | Path) -> Path:
    """Return the folder of ``model``, itself or the hub's copy; a CellDualityError if there are no safetensors."""
    name = str(model)
    if looks_local(name):
        return Path(model)
    try:
        from huggingface_hub import snapshot_download

        # Llama's repositories hold the weights a second time, in original/.
        folder = Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=["original/*"]))
    except ImportError as error:
        hint = "install it (recipes/setup.sh), or give a folder"
        raise CellDualityError(f"cannot import {error.name}", code="not-installed", where=name, hint=hint) from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"no such folder, and not to be had from the hub: {reason:.160}"
        raise CellDualityError(what, code="no-model", where=name, hint=advice(error)) from error
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        what, hint = "the hub's model has no config.json or no safetensors", "convert it, and give the folder"
        raise CellDualityError(what, code="no-weights", where=name, hint=hint)
    return folder


def advice(error: BaseException) -> str:
    """Return what to do when the hub refuses; the hub's own client wraps its reasons several times."""
    reason: BaseException | None = error
    while reason is not None and type(reason).__name__ != "GatedRepoError":
        reason = reason.__cause__ or reason.__context__
    if reason is not None:
        return "accept the model's licence on its page, then log in (hf auth login) or set HF_TOKEN"
    return "check the name and the network"
