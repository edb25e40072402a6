"""What preflight finds out before Ray starts, and how it tells: what, where, how to mend it."""

from __future__ import annotations

import copy
import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary

Check = Callable[..., None]


@pytest.fixture
def refused() -> Check:
    """Return a check that a call raises one clear line with `what`, at `where`."""

    def check(call: Callable[[], Any], what: str, where: str, mend: str = "") -> None:
        with pytest.raises(CellDualityError) as raised:
            call()
        error = raised.value
        assert what in error.what
        assert where in error.where
        assert error.mend
        assert mend in error.mend
        assert "\n" not in str(error)

    return check


@pytest.fixture
def tokenizer(small_world):
    return small_world.tokenizer


@pytest.fixture
def rl_rows(small_world) -> list[dict[str, Any]]:
    return list(read_jsonl(small_world.data / "rl.jsonl"))


@pytest.fixture
def sft_rows(small_world) -> list[dict[str, Any]]:
    return list(read_jsonl(small_world.data / "sft.jsonl"))


class TestModelFolder:
    def test_a_whole_folder_gives_its_tokenizer(self, small_world):
        assert preflight.load_tokenizer(str(small_world.model)).eos_token == "<|end|>"

    def test_a_missing_folder(self, tmp_path, refused):
        gone = str(tmp_path / "gone")
        refused(lambda: preflight.load_tokenizer(gone), "no model there", gone, "recipes/grpo_duality.sh")

    def test_a_folder_without_a_model(self, tmp_path, refused):
        refused(lambda: preflight.load_tokenizer(str(tmp_path)), "no config.json", str(tmp_path))

    def test_a_folder_without_a_tokenizer(self, small_world, tmp_path, refused):
        folder = tmp_path / "bare"
        shutil.copytree(small_world.model, folder, ignore=shutil.ignore_patterns("*token*", "*.jinja"))
        refused(lambda: preflight.load_tokenizer(str(folder)), "cannot load the tokenizer", str(folder))

    def test_a_cut_tokenizer_file(self, small_world, tmp_path, refused):
        folder = tmp_path / "cut"
        shutil.copytree(small_world.model, folder)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": ')
        refused(lambda: preflight.load_tokenizer(str(folder)), "cannot load the tokenizer", str(folder))

    def test_a_tokenizer_file_that_holds_something_else(self, small_world, tmp_path, refused):
        folder = tmp_path / "other"
        shutil.copytree(small_world.model, folder)
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        refused(lambda: preflight.load_tokenizer(str(folder)), "cannot load the tokenizer", str(folder))

    def test_a_model_of_the_hub_while_the_hub_is_away_takes_no_minute(self, monkeypatch, refused):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        before = time.monotonic()
        refused(lambda: preflight.load_tokenizer("nobody/nothing"), "cannot load the tokenizer", "nobody/nothing")
        assert time.monotonic() - before < 20

    def test_the_hub_answers_whatever_it_says(self, monkeypatch):
        class Refuse(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            assert preflight._hub_answers()
            thread.join()
        for gone in ("http://127.0.0.1:9", "no address at all"):
            monkeypatch.setenv("HF_ENDPOINT", gone)
            assert not preflight._hub_answers()

    def test_a_chat_template_that_is_given_counts_instead_of_its_own(self, small_world, refused):
        model = str(small_world.model)
        assert preflight.load_tokenizer(model, "{{ messages[0].content }}").chat_template == "{{ messages[0].content }}"
        refused(lambda: preflight.load_tokenizer(model, "{{ messages"), "cannot be rendered", model)

    def test_a_folder_without_weights(self, small_world, tmp_path, refused):
        folder = tmp_path / "no weights"
        shutil.copytree(small_world.model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        refused(lambda: preflight.load_tokenizer(str(folder)), "no weights", str(folder))

    def test_a_tokenizer_without_a_chat_template(self, small_world, tmp_path, refused):
        folder = tmp_path / "bare"
        shutil.copytree(small_world.model, folder)
        bare = copy.deepcopy(small_world.tokenizer)
        bare.chat_template = None
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        bare.save_pretrained(folder)
        refused(lambda: preflight.load_tokenizer(str(folder)), "no chat template", str(folder), "chat_template")


def test_lengths_count_the_frame_of_the_prompt_and_the_end_of_the_response(tokenizer):
    lengths = preflight.Lengths(tokenizer)
    assert lengths.prompt("CD74 LYZ") == len(["<s>", "<|user|>", "CD74", "LYZ", "<|end|>", "<|assistant|>"])
    assert lengths.response("<answer> T </answer>") == len(["<answer>", "T", "</answer>", "<|end|>"])


def test_many_are_counted_as_one_by_one(tokenizer):
    lengths, texts = preflight.Lengths(tokenizer), ["CD74 LYZ", "T", "CD74 LYZ", "", "CD3D NKG7 FTL"]
    assert lengths.prompts(texts) == [lengths.prompt(text) for text in texts]
    assert lengths.responses(texts) == [lengths.response(text) for text in texts]


class TestSupervisedRows:
    def test_that_fit_to_the_token_pass(self, small_world, tokenizer):
        longest = preflight.check_sft(small_world.data / "sft.jsonl", tokenizer, 256)
        assert preflight.check_sft(small_world.data / "sft.jsonl", tokenizer, longest) == longest

    def test_too_long_by_one_token_names_the_line(self, small_world, tokenizer, sft_rows, refused):
        lengths, path = preflight.Lengths(tokenizer), small_world.data / "sft.jsonl"
        needed = [lengths.prompt(row["input"]) + lengths.response(row["output"]) for row in sft_rows]
        limit = max(needed) - 1
        line = 1 + next(n for n, tokens in enumerate(needed) if tokens > limit)
        refused(
            lambda: preflight.check_sft(path, tokenizer, limit),
            f"SFT row needs {limit + 1} tokens, more than max_len {limit}",
            f"{path}:{line}",
            "MAX_LEN",
        )

    def test_too_long_far_behind_the_first_names_its_line(self, tokenizer, sft_rows, tmp_path, refused):
        row, path = sft_rows[0], tmp_path / "sft.jsonl"
        long = {**row, "input": row["input"] + " CD74"}
        write_jsonl(path, [*[row] * 1300, long, row])
        limit = preflight.check_sft(path, tokenizer, 256) - 1
        refused(lambda: preflight.check_sft(path, tokenizer, limit), f"needs {limit + 1} tokens", f"{path}:1301")

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda row: row.pop("output"), lambda row: row.pop("input"), lambda row: row.update(output=None),
            lambda row: row.update(input=["a"]), lambda row: row.update(output={"text": "a"}),
        ],
    )  # fmt: skip
    def test_malformed_names_the_line(self, spoil, sft_rows, tokenizer, tmp_path, refused):
        spoil(sft_rows[2])
        path = tmp_path / "sft.jsonl"
        write_jsonl(path, sft_rows)
        refused(lambda: preflight.check_sft(path, tokenizer, 256), "malformed SFT row", f"{path}:3", "prepare")

    @pytest.mark.parametrize(("line", "what"), [("{", "not JSON"), ("[1]", "not a JSON object")])
    def test_not_json_names_the_line(self, line, what, small_world, tokenizer, tmp_path, refused):
        path = tmp_path / "sft.jsonl"
        first = (small_world.data / "sft.jsonl").read_text().splitlines()[0]
        path.write_text(f"{first}\n{line}\n")
        refused(lambda: preflight.check_sft(path, tokenizer, 256), what, f"{path}:2")

    def test_that_are_no_text(self, tokenizer, tmp_path, refused):
        path = tmp_path / "sft.jsonl"
        path.write_bytes(b"\xff\xfe{}")
        refused(lambda: preflight.check_sft(path, tokenizer, 256), "", str(path))

    def test_that_are_a_folder(self, tokenizer, tmp_path, refused):
        refused(lambda: preflight.check_sft(tmp_path, tokenizer, 256), "", str(tmp_path))

    def test_none_at_all(self, tokenizer, tmp_path, refused):
        path = tmp_path / "sft.jsonl"
        path.touch()
        refused(lambda: preflight.check_sft(path, tokenizer, 256), "no rows", str(path))


class TestRlRows:
    @pytest.fixture
    def check(self, small_world, tokenizer) -> Callable[..., int]:
        config = Config.load(small_world.config)

        def run(rows: list[dict[str, Any]] | Path, max_len: int = 256, max_new_tokens: int = 32) -> int:
            path = rows if isinstance(rows, Path) else small_world.data / "checked.jsonl"
            if not isinstance(rows, Path):
                write_jsonl(path, rows)
            return preflight.check_rl(path, config, tokenizer, max_len=max_len, max_new_tokens=max_new_tokens)

        return run

    def row_of(self, rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
        return next(row for row in rows if row["datasource"] == name)

    @pytest.mark.parametrize("name", TASKS)
    def test_that_fit_to_the_token_pass_and_one_token_less_does_not(self, name, rl_rows, check, refused):
        rows = [self.row_of(rl_rows, name)]
        longest = check(rows)
        assert check(rows, max_len=longest) == longest
        refused(lambda: check(rows, max_len=longest - 1), f"needs {longest} tokens", "checked.jsonl:1", "MAX_LEN")

    def test_a_primal_that_does_not_fit(self, rl_rows, check, tokenizer, refused):
        row = self.row_of(rl_rows, "cell_type_annotation")
        prompt = preflight.Lengths(tokenizer).prompt(row["input"])
        refused(
            lambda: check([row], max_len=prompt + 31),
            f"prompt with its response needs {prompt + 32}",
            "checked.jsonl:1",
        )

    def test_a_dual_that_does_not_fit_though_the_primal_does(self, rl_rows, check, tokenizer, refused):
        row = self.row_of(rl_rows, "conditional_cell_generation")
        primal = preflight.Lengths(tokenizer).prompt(row["input"]) + 32
        refused(lambda: check([row], max_len=primal), "dual prompt with its response needs", "checked.jsonl:1")

    def test_every_dual_has_to_fit_with_the_longest_label(self, rl_rows, tokenizer, vocabulary, tmp_path, refused):
        long = " ".join(["long"] * 60)
        labels = {**vocabulary.labels, "cell_type": (*vocabulary.labels["cell_type"], long)}
        longer = Vocabulary(genes=vocabulary.genes, labels=labels)
        longer.save(tmp_path / "vocabulary.json")
        Config.read({"tasks": {name: {"pair": name} for name in TASKS}}).save(tmp_path / "cellduality.json")
        row = self.row_of(rl_rows, "cell_type_annotation")
        label = json.loads(row["label"])
        wider = {**row, "label": json.dumps({**label, "known": {"observed": [*label["known"]["observed"], "CD3D"]}})}
        path, config = tmp_path / "rl.jsonl", Config.load(tmp_path / "cellduality.json")
        write_jsonl(path, [row, row, wider])

        def check(max_len: int) -> int:
            return preflight.check_rl(path, config, tokenizer, max_len=max_len, max_new_tokens=1)

        example, task = Example.from_label(wider["label"]), TASKS["cell_type_annotation"]
        lengths = preflight.Lengths(tokenizer)
        dual = lengths.prompt(task.dual_prompt(example.known, long, longer))
        needed = dual + lengths.response(task.rebuilt_response(example.unknown))
        assert check(256) == needed
        refused(lambda: check(needed - 1), f"needs {needed} tokens", f"{path}:3")

    def test_a_longer_response_makes_a_longer_dual_where_the_dual_shows_it(self, rl_rows, check):
        row = self.row_of(rl_rows, "conditional_cell_generation")
        assert check([row], max_new_tokens=42) == check([row], max_new_tokens=32) + 10

    @pytest.mark.parametrize(
        ("spoil", "what"),
        [
            (lambda row: row.pop("label"), "malformed RL row"),
            (lambda row: row.update(input=None), "malformed RL row"),
            (lambda row: row.update(label=json.loads(row["label"])), "malformed RL row"),
            (lambda row: row.update(label="T"), "malformed label row: not JSON"),
            (lambda row: row.update(label='{"schema": 99}'), "not a row of schema 1"),
            (lambda row: row.update(label=row["label"].replace('"unknown"', '"unknwon"')), "'unknown' is missing"),
            (lambda row: row.update(label=row["label"].replace('"cell_type_annotation"', '"other"')), "unknown task"),
        ],
    )
    def test_malformed_names_the_line(self, spoil, what, rl_rows, check, refused):
        good = self.row_of(rl_rows, "conditional_cell_generation")
        bad = self.row_of(rl_rows, "cell_type_annotation")
        spoil(bad)
        refused(lambda: check([good, bad]), what, "checked.jsonl:2", "prepare")

    @pytest.fixture
    def judged_by(self, small_world, tokenizer, tmp_path):
        """Return a check of one row under another reward of its task."""

        def run(row: dict[str, Any], reward: str) -> int:
            name, folder = row["datasource"], tmp_path / "judged"
            folder.mkdir(exist_ok=True)
            shutil.copy(small_world.data / "vocabulary.json", folder)
            Config.read({"tasks": {name: {"pair": name, "reward": reward}}}).save(folder / "cellduality.json")
            write_jsonl(folder / "rl.jsonl", [row])
            config = Config.load(folder / "cellduality.json")
            return preflight.check_rl(folder / "rl.jsonl", config, tokenizer, max_len=256, max_new_tokens=32)

        return run

    def test_without_the_gold_that_the_oracle_needs_name_the_line(self, rl_rows, judged_by, refused):
        row = self.row_of(rl_rows, "cell_type_annotation")
        refused(lambda: judged_by(row, "oracle"), "the oracle needs the true answer", "rl.jsonl:1", "--rewards")
        row["label"] = json.dumps({**json.loads(row["label"]), "gold": "T"})
        assert judged_by(row, "oracle") == judged_by(row, "duality")

    def test_have_to_fit_with_every_label_that_the_posterior_asks_about(
        self, rl_rows, judged_by, tokenizer, vocabulary
    ):
        row = self.row_of(rl_rows, "conditional_cell_generation")
        lengths = preflight.Lengths(tokenizer)
        label = json.loads(row["label"])
        labels = sorted(vocabulary.labels["cell_type"], key=lengths.response)
        for hidden in (labels[0], labels[-1]):
            row["label"] = json.dumps({**label, "unknown": hidden})
            room = lengths.response(labels[-1]) - lengths.response(hidden)
            assert judged_by(row, "posterior") == judged_by(row, "duality") + room

    def test_judged_in_a_way_that_their_task_cannot_be(self, rl_rows, judged_by, refused):
        row = self.row_of(rl_rows, "conditional_cell_generation")
        refused(lambda: judged_by(row, "duality-rwjs"), "compares ranked lists", "tasks.conditional_cell_generation")

    def test_not_there(self, tmp_path, check, refused):
        refused(lambda: check(tmp_path / "gone.jsonl"), "no such file", "gone.jsonl", "prepare")

    def test_none_at_all(self, tmp_path, check, refused):
        path = tmp_path / "rl.jsonl"
        path.touch()
        refused(lambda: check(path), "no rows", str(path))
