from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.evaluation.confidence import confidence_metrics, reliability, risk_coverage, set_metrics
from cellduality_plugin.evaluation.curves import chosen, divided, read_curves
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.report import needed_to_repeat, questions_of, write_report
from cellduality_plugin.tasks import TASKS
from tests.browser.conftest import audited
from tests.evaluation.conftest import OF_ONE, RuleDecoder
from tests.refused import refused

LOG = "\n".join(
    f"\x1b[36m(PPOTrainer pid=77)\x1b[0m INFO Global step {step}: {{'reward': {step / 10}, 'kl': {1 / step:.1e}, "
    f"'dual_similarity': {step / 20}, 'actor_lr': 1e-06, 'timing/total': {step}.5, 'loss': nan}}"
    for step in range(1, 6)
)
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


def tags_of(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the tags of a page, which must nest, and the values of each attribute."""
    tags, opened, values = list[str](), list[str](), dict[str, list[str]]()
    for closing, tag, rest in re.findall(r"<(/?)([a-zA-Z][\w:-]*)([^>]*)>", text):
        if closing:
            assert opened.pop() == tag
            continue
        tags.append(tag)
        opened += [tag] * (tag not in VOID and not rest.endswith("/"))
        for name, value in re.findall(r'([\w:-]+)="([^"]*)"', rest):
            values.setdefault(name, []).append(value)
    assert opened == []
    return tags, values


@pytest.fixture
def run(run_of_one: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_of_one, tmp_path / "run"))


def confidence() -> dict:
    sure, right = [0.9, 0.8, 0.4, 0.3], [1, 1, 0, 1]
    numbers = confidence_metrics(sure, right) | set_metrics(np.eye(4, dtype=bool), [0, 1, 2, 0])
    return {
        **{"format": "cellduality-confidence", "version": 1, "split": "test", "in_sample": False, "n": 4},
        **{"task": "cell_type_annotation", "asked": "verify 8, temperature 1", "coverage": 0.9},
        "calibration": {"labels": 128}, "metrics": {"calibrated": numbers},
        "reliability": {"calibrated": reliability(sure, right)},
        "risk_coverage": {"calibrated": np.transpose(risk_coverage(sure, right)).tolist()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def text(run_of_one: Path, tmp_path_factory) -> str:
    """The page of a run with everything there may be: an audit with a choice, confidence, curves, ground truth."""
    folder = tmp_path_factory.mktemp("whole")
    run = Path(shutil.copytree(run_of_one, folder / "run"))
    (run / "confidence.json").write_text(json.dumps(confidence()))
    choice = {"conditional_cell_generation": {"reward": "", "contender": None, "why": "none <agrees>"}}
    audited(folder / "audit.json", choice=choice)
    (folder / "empty").mkdir()
    own = "'dual_reward/cell_type_annotation': {}, 'dual_share/cell_type_annotation': 0.5, 'dual_truncated': 0.5"
    truth = ", 'dual_truth/cell_type_annotation': 0.25, 'dual_truth_share/cell_type_annotation': 0.5"
    logs = {"plain": LOG} | {
        name: "\n".join(f"Global step {n}: {{{own.format(n / 20)}{more}}}" for n in range(1, 8))
        for name, more in {"with": truth, "without": ""}.items()
    }
    curves = {"SFT": folder / "nowhere.log", "base": folder / "empty"}
    for name, lines in logs.items():
        curves[name] = folder / f"{name}.log"
        curves[name].write_text(lines)
    return write_report(run, folder / "report.html", curves, "A run", folder / "audit.json").read_text()


def test_the_page_is_well_formed_loads_nothing_and_tells_what_was_found(run_of_one: Path, text: str) -> None:
    tags, values = tags_of(text)
    loads = [load for name in ("src", "href", "xlink:href", "action", "poster") for load in values.get(name, ())]
    assert all(load.startswith(("#", "data:")) for load in loads)
    assert not {"script", "iframe", "img", "object"} & set(tags)
    assert not re.search(r"@import|url\((?!#)", text)
    ids, referred = values["id"], {load[1:] for load in loads if load.startswith("#")}
    assert len(set(ids)) == len(ids)
    assert referred | {*re.findall(r"url\(#([^)]+)\)", text)} <= set(ids)
    assert re.findall(r'<h2 id="(\w+)"', text) == re.findall(r'<li><a href="#(\w+)"', text)
    assert "GRPO is better than SFT" in text
    assert re.search("o baseline beats every checkpoint in any of|A baseline beats every checkpoint in", text)
    metrics = json.loads((run_of_one / "metrics.json").read_text())
    assert all(space in text for space in metrics["spaces"].values())
    assert metrics["provenance"]["models"]["SFT"]["model"] in text
    assert text.count("<b>best reward") == text.count("<b>worst reward") == 2


def test_what_was_given_is_on_the_page(text: str) -> None:
    for words, times in {
        "no training curves": 1,
        "No curves were recorded.": 1,
        '<p class="alarm"><b>truncation</b> at step 5': 2,
        "cell_type_annotation: reward from 0.10 to 0.50, accuracy from 0.50 to 0.50": 1,
        "--gold-for-monitoring": 1,  # where rows held no gold
        "&lt;&amp; more&gt;": 6,  # the words of each verdict
        "0.80 (0.60–0.90)": 6,
        "<b>Stays out: none &lt;agrees&gt;.</b>": 1,
        "Calibrated on 128 validation cells": 1,
    }.items():
        assert text.count(words) == times, words


def test_what_was_not_given_is_not_on_the_page_and_markup_in_model_output_stays_text(run: Path, tmp_path: Path) -> None:
    path = run / "predictions" / "GRPO.jsonl"
    path.write_text(path.read_text().replace("<think></think>", "<think><script src='http://x'></script></think>"))
    bare = write_report(run, tmp_path / "report.html", audit=tmp_path / "none.json").read_text()
    assert "&lt;think&gt;&lt;script" in bare
    assert "script" not in tags_of(bare)[0]
    assert "No training log was given." in bare
    assert "Audit of rewards" not in bare
    assert 'id="confidence"' not in bare
    assert len(bare) < 300_000


def test_the_prepared_folder_adds_the_questions_and_the_same_run_is_the_same_page(run_of_two, two_sources, tmp_path):
    pages = [write_report(run_of_two, tmp_path / name, data=two_sources).read_text() for name in "ab"]
    without = write_report(run_of_two, tmp_path / "c").read_text()
    assert pages[0] == pages[1]
    for told in ("Asked: perturbation", "perturbation response generation, held-out cell types, <b>best reward"):
        assert told in pages[0]
        assert told not in without
    assert all(told in without for told in ("t-SNE (perplexity", "B cell, cytokine IFN-beta", "mean shift"))


def test_a_run_without_readable_cells_still_has_a_report(data: Path, model: Path, tmp_path: Path) -> None:
    def opener(model):
        return nullcontext(RuleDecoder(lambda request: "???"))

    evaluate({"base": model}, data, "test", tmp_path / "run", OF_ONE, opener=opener)
    text = write_report(tmp_path / "run", tmp_path / "report.html").read_text()
    assert "No checkpoint generated a cell that could be read." in text
    assert re.search(r"unknown_label</th><td>30</td>", text)


@pytest.mark.parametrize("name", ["metrics.json", "audit.json", "confidence.json"])
def test_a_file_of_another_kind_is_refused(name: str, run: Path) -> None:
    (run / name).write_text("{}")
    with refused("wrong-format"):
        write_report(run, run / "report.html", audit=run / "audit.json")


def test_event_files_become_curves(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path / "tb" / "ppo"))
    for step in (1, 2):
        for tag in ("train/reward", "eval/score"):
            value = Summary.Value(tag=tag, simple_value=step / 4)
            writer.add_event(Event(step=step, wall_time=step, summary=Summary(value=[value])))
    writer.close()
    assert read_curves(tmp_path / "tb") == {"reward": [(1, 0.25), (2, 0.5)], "eval/score": [(1, 0.25), (2, 0.5)]}


def test_the_reward_comes_first_and_what_says_nothing_is_left_out(tmp_path: Path) -> None:
    (log := tmp_path / "log").write_text(f"{LOG}\nGlobal step 5: {{'reward': 0.9}}")
    finite = {name: points for name, points in read_curves(log).items() if name != "loss"}
    assert list(chosen(finite)) == ["reward", "dual_similarity", "kl"]
    assert "score" not in chosen({"score": finite["reward"], **finite})
    assert list(chosen(finite, at_most=1)) == ["reward"]
    assert finite["reward"][-1] == (5, 0.9), "resumed"
    means = {"dual_reward/t": [(1, 0.25), (2, 0.5)], "dual_share/t": [(1, 0.5), (2, 0.5)], "dual_groups": [(1, 1.0)]}
    assert divided(means) == {"dual_reward/t": [(1, 0.5), (2, 1.0)]}


@pytest.fixture
def metrics(run_of_two: Path):
    return json.loads((run_of_two / "metrics.json").read_text())


def test_the_questions_are_those_of_the_folder_that_was_evaluated(metrics, two_sources, tmp_path):
    assert list(questions_of(metrics, two_sources, TASKS)) == list(metrics["spaces"])
    other = shutil.copytree(two_sources, tmp_path / "other")
    for spoil in (lambda path: path.write_text("{}"), Path.unlink):
        spoil(other / "cells.jsonl")
        with refused("other-data"):
            questions_of(metrics, other, TASKS)


def test_commands_in_the_order_of_their_stages_seeds_rewards_and_hashes_are_told(metrics, tmp_path):
    metrics["provenance"]["command"] = ["cellduality", "evaluate", "--data", "my data"]
    assert needed_to_repeat(metrics, None, None)["commands"] == {"evaluate": "cellduality evaluate --data 'my data'"}
    for age, stage in enumerate(("grpo", "sft", "prepare")):
        path = tmp_path / f"{stage}.command"
        path.write_text(f"train {stage} --seed 1 --logger.wandb.key abc --rollout.max_new_tokens 64\n")
        os.utime(path, (1000 - age, 1000 - age))
    manifest = {"seed": 7, "source": "mine", "source_sha256": "ab"}
    (tmp_path / "cells.jsonl.manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "cellduality.json").write_text(json.dumps({"tasks": {"a": {"reward": "likelihood"}}}))
    found = needed_to_repeat(metrics, tmp_path, tmp_path)
    line = "train {} --seed 1 --logger.wandb.key *** --rollout.max_new_tokens 64"
    assert list(found["commands"].items()) == [(stage, line.format(stage)) for stage in ("prepare", "sft", "grpo")]
    assert 7 in found["seeds"].values()
    assert (found["sources"], found["rewards"]) == (["mine", "ab"], {"a": "likelihood"})
    (tmp_path / "cellduality.json").write_text("{")
    with refused("not-json"):
        needed_to_repeat(metrics, tmp_path, None)
