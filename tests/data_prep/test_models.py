"""A model of the hub, here on a server of the test's own, one of a package, and the small Llama of a preparation."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cellduality_plugin.examples import Example
from cellduality_plugin.hub import local_model
from cellduality_plugin.tasks import TASKS
from data_prep import models as fetched
from data_prep.models import ROWS, build_small_llama, build_smollm2, fetch_model, find_gguf
from tests.data_prep.conftest import content_of
from tests.data_prep.served import Served
from tests.refused import refused

DATED = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
FILES = {"config.json": "{}", "model.safetensors": "weights", "original/model.safetensors": "the same again"}


@pytest.fixture
def hub(file_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the files of the hub's only model, me/mine, or that it is refused."""
    from huggingface_hub import constants

    places = f"{file_server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", file_server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", places)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def hold(held: dict[str, str], code: str = "") -> None:
        commit, api = "a" * 40, "/api/models/me/mine"
        listed = {"id": "me/mine", "sha": commit, "siblings": [{"rfilename": name} for name in held]}
        tree = [{"type": "file", "path": name, "size": len(held[name]), "oid": "0"} for name in held]
        pages = {f"{api}/revision/main": json.dumps(listed), f"{api}/tree/{commit}": json.dumps(tree)}
        pages |= {f"/me/mine/resolve/{commit}/{name}": content for name, content in held.items()}
        marks = {path: {"X-Repo-Commit": commit, "ETag": f'"{path.replace("/", "-")}"'} for path in pages}
        served = {path: Served(content.encode(), headers=marks[path]) for path, content in pages.items()}
        file_server.paths = {} if code else served
        file_server.elsewhere = Served(status=403 if code else 404, headers={"X-Error-Code": code or "EntryNotFound"})

    return hold


def test_a_name_of_the_hub_becomes_a_folder_with_what_is_needed_of_it(hub, tmp_path: Path):
    hub({**FILES, "chat_template.jinja": DATED})
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model-00001-of-00002.safetensors").write_text("of another model")
    assert fetch_model("me/mine", tmp_path / "base")
    found = {path.name for path in (tmp_path / "base").iterdir()}
    assert found == {"config.json", "model.safetensors", "chat_template.jinja"}
    cached = local_model("me/mine")
    assert (cached / "model.safetensors").samefile(tmp_path / "base" / "model.safetensors"), "once on the disk"
    assert (cached / "chat_template.jinja").read_text() == DATED, "the hub's own stays"


def test_the_day_of_the_question_is_not_in_it(small_world, tmp_path: Path):
    small_world.tokenizer.save_pretrained(tmp_path / "own")
    for path, text in {**FILES, "chat_template.jinja": DATED}.items():
        (tmp_path / "own" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "own" / path).write_text(text)
    assert fetch_model(str(tmp_path / "own"), tmp_path / "base")
    chat = [{"role": "user", "content": "Which type?"}]
    dated, pinned = (
        AutoTokenizer.from_pretrained(tmp_path / name).apply_chat_template(chat, tokenize=False)
        for name in ("own", "base")
    )
    assert dated.startswith(str(datetime.date.today().day).zfill(2))
    assert pinned == "26 Jul 2024Which type?"
    assert not fetch_model(str(tmp_path / "base"), tmp_path / "again"), "it has none any more"


@pytest.mark.parametrize(
    ("files", "refusal", "code", "hint"),
    [
        (FILES, "GatedRepo", "no-model", "licence"),
        (FILES, "RepoNotFound", "no-model", "name"),
        ({"config.json": "{}", "pytorch_model.bin": ""}, "", "no-weights", "convert"),
    ],
)
def test_what_is_not_to_be_had_is_said_with_what_to_do(hub, files, refusal, code, hint, tmp_path: Path):
    hub(files, refusal)
    with refused(code) as told:
        fetch_model("me/mine", tmp_path / "base")
    assert hint in told.value.hint
    with refused("no-model"):
        fetch_model("no_such_folder", tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_weights_are_found_without_importing_the_package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "weights_for_a_test"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(folder.parent)
    for package, content, code in (
        ("no_such_package_here", None, "not-installed"),
        (folder.name, None, "not-installed"),
        (folder.name, b"not weights at all", "unreadable-file"),
    ):
        monkeypatch.setattr(fetched, "PACKAGE", package)
        if content:
            (folder / "SmolLM2.gguf").write_bytes(content)
            assert find_gguf() == folder / "SmolLM2.gguf"
        with refused(code):
            build_smollm2(tmp_path / "out")
    assert folder.name not in sys.modules
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tokenizer(small_llama):
    return AutoTokenizer.from_pretrained(small_llama)


def test_no_prompt_answer_or_dual_prompt_holds_an_unknown_word(prepared, tokenizer):
    texts = [text for name in ROWS for row in prepared.rows(name) for text in (row["input"], row.get("output", ""))]
    for row in prepared.rows("eval_test.jsonl"):
        example, task = Example.from_label(row["label"]), TASKS[row["datasource"]]
        dual = task.dual_prompt(example.known, example.gold, prepared.vocabulary)
        texts += [dual, task.answer_response(example.gold), task.rebuilt_response(example.unknown)]
    assert not [text for text in texts if tokenizer.unk_token_id in tokenizer(text).input_ids]
    assert tokenizer("an-unheard-of-word").input_ids == [tokenizer.unk_token_id]


def test_turn_ends_in_eos_and_the_prompt_is_a_prefix_of_the_conversation(prepared, tokenizer):
    row = prepared.rows("sft.jsonl")[0]
    chat = [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}]
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert whole == prompt + row["output"] + tokenizer.eos_token
    prompt_ids, whole_ids = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, whole))
    assert whole_ids[: len(prompt_ids)] == prompt_ids
    assert whole_ids[-1] == tokenizer.eos_token_id
    assert whole_ids.count(tokenizer.bos_token_id) == 1


def test_model_loads_as_small_tied_bf16_llama_and_runs(small_llama, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(small_llama)
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.num_parameters() < 2_000_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    logits = model(**tokenizer("Cell: CD74", return_tensors="pt", return_token_type_ids=False)).logits
    assert logits.shape == (1, 2, len(tokenizer))
    assert torch.isfinite(logits).all()


def test_same_seed_gives_the_same_bytes_and_a_second_run_does_nothing(prepared, small_llama, tmp_path):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    build_small_llama(prepared.folder, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)
    first = content_of(small_llama)
    assert first == content_of(tmp_path / "again")
    times = {path: path.stat().st_mtime_ns for path in small_llama.iterdir()}
    build_small_llama(prepared.folder, small_llama)
    assert {path: path.stat().st_mtime_ns for path in small_llama.iterdir()} == times
    build_small_llama(prepared.folder, tmp_path / "again", seed=1)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() != first["model.safetensors"]


def test_missing_data_and_uneven_heads_are_refused(prepared, tmp_path):
    with refused("missing-file"):
        build_small_llama(tmp_path, tmp_path / "out")
    with refused("uneven-heads"):
        build_small_llama(prepared.folder, tmp_path / "out", hidden_size=100, heads=3)
    assert not (tmp_path / "out").exists()
