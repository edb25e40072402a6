"""What preflight finds out before Ray starts, and where it says so."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cellduality_plugin.chat import render, token_count
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"


@contextlib.contextmanager
def refused_at(where: object, code: str = "", what: str = "") -> Iterator[None]:
    """Check that the block ends in one line that says where and what to do; it has ``code`` where it is preflight's."""
    with pytest.raises(CellDualityError) as raised:
        yield
    assert str(where) in raised.value.where
    assert what in raised.value.what
    assert not code or raised.value.code == code
    assert raised.value.hint
    assert "\n" not in str(raised.value)


@pytest.fixture
def tokenizer(small_world):
    return small_world.tokenizer


@pytest.fixture
def prompt_length(tokenizer) -> Callable[[str], int]:
    return lambda text: len(render(tokenizer, text))


@pytest.fixture
def response_length(tokenizer) -> Callable[[str], int]:
    return lambda text: token_count(tokenizer, text) + 1


def test_a_whole_folder_gives_its_tokenizer_with_its_template_or_the_one_given(small_world, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the hub is away
    model, template = str(small_world.model), "{{ messages[0].content }}"
    assert preflight.load_tokenizer(model).eos_token == "<|end|>"
    assert preflight.load_tokenizer(model, template).chat_template == template
    for name, template, code in ((model, "{{ messages", "bad-chat-template"), ("nobody/nothing", None, "no-tokenizer")):
        with refused_at(name, code):
            preflight.load_tokenizer(name, template)


@pytest.mark.parametrize(
    ("gone", "written", "code"),
    [
        ("*", {}, "no-model"),
        ("*.safetensors", {}, "no-weights"),
        ("*token*", {}, "no-tokenizer"),
        ("", {"tokenizer.json": '{"version": "1.0"}'}, "no-tokenizer"),
        ("chat_template.jinja", {}, "no-chat-template"),
    ],
)
def test_an_incomplete_folder_is_refused(gone, written, code, small_world, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small_world.model, folder, ignore=shutil.ignore_patterns(gone))
    for name, text in written.items():
        (folder / name).write_text(text)
    with refused_at(folder, code):
        preflight.load_tokenizer(str(folder))


def test_sft_rows_fit_to_the_token_and_one_that_does_not_or_is_malformed_is_named(
    small_world, tmp_path, tokenizer, prompt_length, response_length
):
    rows, path = list(read_jsonl(small_world.data / "sft.jsonl")), tmp_path / "sft.jsonl"
    needed = [prompt_length(row["input"]) + response_length(row["output"]) for row in rows]
    longest, short = max(needed), rows[needed.index(min(needed))]
    lengths = preflight.Lengths(tokenizer)

    def check(limit: int, *some: dict[str, Any]) -> int:
        write_jsonl(path, some)
        return preflight.longest_of(preflight.sft_questions(path, lengths), limit, path)

    many = [*[short] * 1300, *rows]
    assert check(longest, *many) == longest
    with refused_at(f"{path}:{1300 + needed.index(longest) + 1}", "too-long", f"SFT row needs {longest} "):
        check(longest - 1, *many)
    for change in ({"output": None}, {"input": ["a"]}):
        with refused_at(f"{path}:2", "malformed-row"):
            check(256, rows[0], {**rows[1], **change})
    with refused_at(path, "no-rows"):
        check(256)


class TestRlRows:
    @pytest.fixture
    def row_of(self, small_world) -> Callable[[str], dict[str, Any]]:
        rows = list(read_jsonl(small_world.data / "rl.jsonl"))
        return lambda name: next(row for row in rows if row["datasource"] == name)

    @pytest.fixture
    def check(self, small_world, tokenizer, tmp_path) -> Callable[..., int]:
        """Return a check of rows, with settings of their one task if there are some."""
        lengths, path = preflight.Lengths(tokenizer), tmp_path / "rl.jsonl"

        def run(*rows: Any, max_len: int = 256, max_new_tokens: int = 32, labels: Any = None, **task: Any) -> int:
            vocabulary = Vocabulary.load(small_world.data / "vocabulary.json")
            if labels:
                vocabulary = Vocabulary(genes=vocabulary.genes, labels={**vocabulary.labels, "cell_type": labels})
            vocabulary.save(tmp_path / "vocabulary.json")
            dual = task.pop("dual", {})
            names = {rows[0]["datasource"]} if task else TASKS
            settings = {"tasks": {name: {"pair": name, **task} for name in names}, "dual": dual}
            Config.read(settings).save(tmp_path / "cellduality.json")
            write_jsonl(path, rows)
            config = Config.load(tmp_path / "cellduality.json")
            questions = preflight.rl_questions(path, config, lengths, max_new_tokens)
            return preflight.longest_of(questions, max_len, path)

        return run

    @pytest.mark.parametrize("name", TASKS)
    def test_that_fit_to_the_token_pass_and_one_token_less_does_not(self, name, row_of, check):
        longest = check(row_of(name))
        assert check(row_of(name), max_len=longest) == longest
        with refused_at("rl.jsonl:1", "too-long", f"needs {longest} "):
            check(row_of(name), max_len=longest - 1)

    def test_primal_and_dual_have_to_fit(self, row_of, check, prompt_length):
        row = row_of(GENERATION)
        primal = prompt_length(row["input"]) + 32
        with refused_at("rl.jsonl:1", "too-long", f"prompt with its response needs {primal} "):
            check(row, max_len=primal - 1)
        with refused_at("rl.jsonl:1", "too-long", "dual prompt"):
            check(row, max_len=primal)
        assert check(row, max_new_tokens=42) == check(row) + 10, "the dual shows the whole response"

    def test_every_dual_has_to_fit_with_the_longest_label(
        self, row_of, check, prompt_length, response_length, vocabulary
    ):
        long, row, task = " ".join(["long"] * 60), row_of(ANNOTATION), TASKS[ANNOTATION]
        label = json.loads(row["label"])
        wider = {**row, "label": json.dumps({**label, "known": {"observed": [*label["known"]["observed"], "CD3D"]}})}
        example = Example.from_label(wider["label"])
        dual = prompt_length(task.dual_prompt(example.known, long, vocabulary))
        needed = dual + response_length(task.rebuilt_response(example.unknown))
        settings = {"max_new_tokens": 1, "labels": (*vocabulary.labels["cell_type"], long)}
        assert check(row, row, wider, **settings) == needed
        with refused_at("rl.jsonl:3", "too-long", f"needs {needed} "):
            check(row, row, wider, max_len=needed - 1, **settings)

    @pytest.mark.parametrize(
        ("label", "code"),
        [
            (None, "malformed-row"),
            ({"schema": 99}, ""),
            ({"unknown": None}, ""),
            ({"task": "other"}, "unknown-task"),
        ],
    )
    def test_malformed_names_the_line(self, label, code, row_of, check):
        row = row_of(ANNOTATION)
        bad = {**row, "label": label and json.dumps({**json.loads(row["label"]), **label})}
        with refused_at("rl.jsonl:2", code):
            check(row_of(GENERATION), bad)

    def test_have_to_fit_with_every_label_that_the_posterior_asks_about(
        self, row_of, check, response_length, vocabulary
    ):
        row, labels = row_of(GENERATION), sorted(vocabulary.labels["cell_type"], key=response_length)
        for hidden in (labels[0], labels[-1]):
            hiding = {**row, "label": json.dumps({**json.loads(row["label"]), "unknown": hidden})}
            room = response_length(labels[-1]) - response_length(hidden)
            assert check(hiding, reward="posterior") == check(hiding, reward="duality") + room

    def test_have_to_fit_with_a_whole_cell_behind_its_reasoning(
        self, row_of, check, prompt_length, response_length, cell, vocabulary
    ):
        task, row = TASKS[ANNOTATION], row_of(ANNOTATION)
        prompts = [task.dual_prompt({"length": "8"}, label, vocabulary) for label in vocabulary.labels["cell_type"]]
        written = max(map(prompt_length, prompts)) + response_length(task.rebuilt_response(cell.genes))
        settings = {"max_new_tokens": 1, "max_len": 512, "hidden": 1}
        reasons = {**settings, "traces": 1, "dual": {"max_new_tokens": 200}}
        assert check(row, **reasons, reward="likelihood") == written + 200
        again = prompt_length(task.primal_prompt({"cell": cell.genes}, vocabulary))
        assert check(row, **settings, reward="consistency") > again
