"""Two evaluations of one checkpoint are the same bytes, also when one of them is killed, with the real engine; and the
labels that it gives to cells without one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks.preflight import Lengths, load_tokenizer, longest_of, sft_questions
from tests.stack.conftest import CELLDUALITY, CPU, ROOT

pytestmark = [pytest.mark.stack, pytest.mark.long]

SETTINGS = ("--max-len", "128", "--max-new-tokens", "40", "--samples", "2", "--batch", "128", "--real-cells")


@pytest.fixture
def evaluating(prepared, start, tmp_path):
    """Return a function that starts an evaluation of the SFT model in a folder of its own, in the same words."""

    def begin(name: str, data: Path | None = None):
        words = ("--model", f"SFT={prepared / 'sft'}", "--data", str(data or prepared / "data"), "--out", "test")
        return start(tmp_path / name, *CPU, *CELLDUALITY, "evaluate", *words, *SETTINGS, PYTHONPATH=str(ROOT))

    return begin


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_bytes_twice_and_after_a_kill_and_in_another_order(evaluating, prepared, tmp_path):
    once = evaluating("once")
    assert once.end(600) == 0, once.printed
    whole = written(tmp_path / "once" / "test")
    predictions = [f"predictions/SFT.{end}" for end in ("h5ad", "jsonl", "made_from.json")]
    assert list(whole) == ["metrics.json", "points.jsonl", *predictions]
    assert b"sampled_accuracy" in whole["metrics.json"]

    kept = tmp_path / "killed" / "test" / "predictions" / "SFT.partial"
    killed = evaluating("killed")
    killed.until(lambda: kept.exists() and kept.read_bytes().count(b"\n") >= 3, timeout=300)
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.end(30)
    answered = kept.read_bytes().count(b"\n") - 1
    assert answered >= 2
    assert not kept.with_name("SFT.jsonl").exists()
    resumed = evaluating("killed")
    assert resumed.end(600) == 0, resumed.printed
    assert written(tmp_path / "killed" / "test") == whole

    shuffled = Path(shutil.copytree(prepared / "data", tmp_path / "data"))
    for path in (shuffled / "eval_test.jsonl", shuffled / "eval_ood.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(random.Random(0).sample(lines, len(lines))))
    other = evaluating("shuffled", shuffled)
    assert other.end(600) == 0, other.printed
    again = written(tmp_path / "shuffled" / "test")
    for name in (*predictions[1:], "points.jsonl"):
        assert again[name] == whole[name], name
    assert json.loads(again["metrics.json"])["columns"] == json.loads(whole["metrics.json"])["columns"]


def test_cells_without_a_label_get_rows_that_sft_takes(prepared, start, tmp_path):
    model, data, out = prepared / "sft", prepared / "data", tmp_path / "pseudo.jsonl"
    files = {"model": model, "data": data, "labelled": data / "sft_traces.jsonl", "out": out}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    settings = ("--cells", "8", "--votes", "4", "--batch", "8", *SETTINGS[:4])
    run = start(tmp_path / "labelling", *CPU, *CELLDUALITY, "pseudo-label", *words, *settings, PYTHONPATH=str(ROOT))
    assert run.end(300) == 0, run.printed
    tasks = json.loads(out.with_suffix(".json").read_text())["tasks"]
    assert {name: found["cells"] for name, found in tasks.items()} == {
        "cell_type_annotation": 8,
        "drug_exposure_prediction": 8,
    }
    given = sum(found["labelled_by_policy"] for found in tasks.values())
    rows = list(read_jsonl(out))[: 2 * given]
    assert given > 8
    assert {row["direction"] for row in rows} == {"primal", "dual"}
    assert sum("<think></think>" not in row["output"] for row in rows) > given / 2  # the policy's own reasoning
    assert longest_of(sft_questions(out, Lengths(load_tokenizer(str(model)))), 128, out) <= 128


def test_several_engines_say_what_one_says(prepared, start, tmp_path):
    prompts, script = tmp_path / "prompts.json", str(Path(__file__).with_name("several_engines.py"))
    prompts.write_text(json.dumps([row["input"] for row in read_jsonl(prepared / "data" / "rl.jsonl")][:9]))
    words = (str(prepared / "sft"), str(prompts), "<answer>B cell</answer>")
    run = start(tmp_path / "engines", *CPU, "python", script, *words, PYTHONPATH=str(ROOT))
    assert run.end(300) == 0, run.printed
    found = json.loads(next(line for line in run.printed.splitlines() if line.startswith('{"several"')))
    assert found["several"] == found["one"]
    assert len(found["one"]["texts"]) == len(found["one"]["log_probs"]) == 9
