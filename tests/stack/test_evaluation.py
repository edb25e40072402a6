"""Two evaluations of one checkpoint are the same bytes, also when one of them is killed, with the real engine; and the
labels that it gives to cells without one."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks.preflight import Lengths, load_tokenizer, longest_of, sft_questions
from tests.stack.conftest import CELLDUALITY, CPU, MAX_LEN

pytestmark = [pytest.mark.stack, pytest.mark.long]

LENGTHS = ("--max-len", MAX_LEN, "--max-new-tokens", 40)
SETTINGS = (*LENGTHS, "--samples", 2, "--batch", 128, "--real-cells")


@pytest.fixture
def evaluating(prepared, start, tmp_path):
    """Return a function that starts an evaluation of the SFT model in a folder of its own, in the same words."""

    def begin(name: str, data: Path | None = None):
        words = ("--model", f"SFT={prepared / 'sft'}", "--data", data or prepared / "data", "--out", "test", *SETTINGS)
        return start(tmp_path / name, *CPU, *CELLDUALITY, "evaluate", *map(str, words))

    return begin


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_bytes_twice_and_after_a_kill_and_in_another_order(evaluating, prepared, tmp_path):
    evaluating("once").ends_well(600)
    whole = written(tmp_path / "once" / "test")
    predictions = [f"predictions/SFT.{end}" for end in ("h5ad", "jsonl", "made_from.json")]
    assert list(whole) == ["metrics.json", "points.jsonl", *predictions]
    assert b"sampled_accuracy" in whole["metrics.json"]

    kept = tmp_path / "killed" / "test" / "predictions" / "SFT.partial"
    killed = evaluating("killed")
    killed.until(lambda: kept.exists() and kept.read_bytes().count(b"\n") >= 3, timeout=300)
    killed.send(signal.SIGKILL)
    killed.end(30)
    assert kept.read_bytes().count(b"\n") - 1 >= 2
    assert not kept.with_name("SFT.jsonl").exists()
    evaluating("killed").ends_well(600)
    assert written(tmp_path / "killed" / "test") == whole

    shuffled = Path(shutil.copytree(prepared / "data", tmp_path / "data"))
    for path in (shuffled / "eval_test.jsonl", shuffled / "eval_ood.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(random.Random(0).sample(lines, len(lines))))
    evaluating("shuffled", shuffled).ends_well(600)
    again = written(tmp_path / "shuffled" / "test")
    for name in (*predictions[1:], "points.jsonl"):
        assert again[name] == whole[name], name
    assert json.loads(again["metrics.json"])["columns"] == json.loads(whole["metrics.json"])["columns"]


def test_cells_without_a_label_get_rows_that_sft_takes(prepared, cellduality, tmp_path):
    model, data, out = prepared / "sft", prepared / "data", tmp_path / "pseudo.jsonl"
    words = ("--model", model, "--data", data, "--labelled", data / "sft_traces.jsonl", "--out", out)
    cellduality(tmp_path / "run", "pseudo-label", *words, "--cells", 8, "--votes", 4, "--batch", 8, *LENGTHS)
    tasks = json.loads(out.with_suffix(".json").read_text())["tasks"]
    assert {name: found["cells"] for name, found in tasks.items()} == dict.fromkeys(
        ("cell_type_annotation", "drug_exposure_prediction"), 8
    )
    given = sum(found["labelled_by_policy"] for found in tasks.values())
    rows = list(read_jsonl(out))[: 2 * given]
    assert given > 8
    assert {row["direction"] for row in rows} == {"primal", "dual"}
    assert sum("<think></think>" not in row["output"] for row in rows) > given / 2  # the policy's own reasoning
    assert longest_of(sft_questions(out, Lengths(load_tokenizer(str(model)))), MAX_LEN, out) <= MAX_LEN


def test_several_engines_say_what_one_says(prepared, start, tmp_path):
    prompts, script = tmp_path / "prompts.json", str(Path(__file__).with_name("several_engines.py"))
    prompts.write_text(json.dumps([row["input"] for row in read_jsonl(prepared / "data" / "rl.jsonl")][:9]))
    words = (str(prepared / "sft"), str(prompts), "<answer>B cell</answer>")
    run = start(tmp_path / "engines", *CPU, "python", script, *words).ends_well()
    found = json.loads(next(line for line in run.printed.splitlines() if line.startswith('{"several"')))
    assert found["several"] == found["one"]
    assert len(found["one"]["texts"]) == len(found["one"]["log_probs"]) == 9
