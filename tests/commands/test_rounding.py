"""`cellduality pseudo-label` and `rounds` from the flags to the files; mistakes are found before a model loads."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.commands.pseudo_labels import PseudoSettings, Work
from cellduality_plugin.commands.rounding import read_namers
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.parsing import split_response
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import write_manifest
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.commands.conftest import invoke
from tests.evaluation.audit.conftest import GENES, TYPES, PlantedPolicy, own
from tests.evaluation.rounds.test_rounds import KEY, write_round
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
NAMES = (ANNOTATION, GENERATION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder: 12 labelled training cells, 60 without a label, 6 of another split, of three types."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    tasks, vocabulary = [TASKS[name] for name in NAMES], Vocabulary(GENES, {"cell_type": TYPES})
    cells = [
        Cell(f"made/{number}", tuple(rng.permutation(own(kind))[:8].tolist()), {"cell_type": kind})
        for number, kind in enumerate(TYPES * 26)
    ]
    splits = ["train"] * 72 + ["validation"] * 6
    rows = [
        {"id": cell.id, "split": split, "labelled": number < 12, "genes": list(cell.genes), **cell.obs}
        for number, (cell, split) in enumerate(zip(cells, splits, strict=True))
    ]
    vocabulary.save(data / "vocabulary.json")
    write_jsonl(data / "cells.jsonl", rows)
    write_manifest(data / "cells.jsonl", {"settings": {"hidden": 0.25}})
    made = RowMaker(tasks, vocabulary, PrepareSettings(n_rl=8, rl_includes_labelled=False, masks=2))
    write_jsonl(data / "sft.jsonl", made.sft(cells[:12], rng))
    write_jsonl(data / "rl.jsonl", made.rl(cells[:12], cells[12:72], [1.0] * len(tasks), rng))
    config = {"tasks": {name: {"pair": name, "reward": "posterior"} for name in NAMES}}
    Config.read(config).save(data / "cellduality.json")
    return data


def label(folder: Path, skill: float = 0.6, dual: float = 0.95, **settings):
    """Return the summary, the rows, and what the dual was asked."""
    options = {name: settings.pop(name) for name in ("previous", "tell_truth") if name in settings}
    policy = PlantedPolicy(dual)

    @contextmanager
    def opened():
        yield Players(policy, policy, PlantedPolicy(skill, seed=1), len, len)

    config = Config.load(folder / "cellduality.json")
    work = Work(folder, config, PseudoSettings.read(settings), folder / "sft.jsonl", **options)
    out = folder / settings.get("judge", "pseudo") / "pseudo.jsonl"
    content = work.write(out, opened, {"model": "planted"})
    return json.loads(json.dumps(content)), list(read_jsonl(out)), policy.asked


def pseudo_rows(rows, direction="primal"):
    known = {f"made/{number}" for number in range(12)}
    return [row for row in rows if row["id"] not in known and row["direction"] == direction]


def test_cells_without_a_label_get_rows_in_both_directions_of_the_schema_of_the_labelled_ones(folder):
    content, rows, asked = label(folder)
    labelled = list(read_jsonl(folder / "sft.jsonl"))
    assert {tuple(row) for row in rows} == {tuple(labelled[0])}
    primal, dual = pseudo_rows(rows), pseudo_rows(rows, "dual")
    assert {row["id"] for row in primal} <= {f"made/{number}" for number in range(12, 72)}
    assert [row["id"] for row in primal] == [row["id"] for row in dual]
    assert {row["datasource"] for row in (*primal, *dual)} == {ANNOTATION}
    for question, rebuilt in zip(primal, dual, strict=True):
        example = Example.from_label(rebuilt["label"])
        assert example.masks == ()
        assert split_response(question["output"]).answer == example.gold
        assert split_response(question["output"]).trace == "seen"
        assert f"Type: {example.gold}\n" in rebuilt["input"]
        assert split_response(rebuilt["output"]).answer.split() == list(example.unknown)
        assert len(example.unknown) == 2
    assert content["rows"] == {"pseudo": 2 * len(primal), "labelled": len(labelled), "times": 3}
    assert rows[content["rows"]["pseudo"] :] == 3 * labelled
    again = label(folder)
    assert (again[:2], again[2], bool(asked)) == ((content, rows), [], True), "nothing is asked twice"


def test_where_the_whole_cell_is_hidden_the_dual_row_writes_it(folder):
    config = json.loads((folder / "cellduality.json").read_text())
    config["tasks"][ANNOTATION]["hidden"] = 1.0
    (folder / "cellduality.json").write_text(json.dumps(config))
    _, rows, asked = label(folder)
    for row in pseudo_rows(rows, "dual"):
        example = Example.from_label(row["label"])
        assert example.unknown == example.inputs["cell"]
        prompt = TASKS[GENERATION].primal_prompt({"cell_type": example.gold, "length": "8"}, Vocabulary((), {}))
        assert row["input"] == prompt
        assert prompt in {question for question, _ in asked}  # judged as it is taught


def test_the_judge_corrects_what_the_votes_get_wrong(folder):
    judged, _, asked = label(folder, skill=0.4, choice="best", tell_truth=True)
    voted, _, unasked = label(folder, skill=0.4, judge="none", choice="best", tell_truth=True)
    found, plain = (content["tasks"][ANNOTATION] for content in (judged, voted))
    assert found["accuracy"] > plain["accuracy"] + 0.2
    assert plain["accuracy"] == plain["accuracy_of_votes"] == found["accuracy_of_votes"]
    assert (plain["overruled_votes"], found["overruled_votes"] > 0.2) == (0.0, True)
    assert unasked == []
    assert len(asked) == len(set(asked))  # each different answer is judged once, under each of its two masks


def test_without_votes_the_judge_alone_names_every_cell_and_each_row_reasons_towards_its_label(folder):
    content, rows, asked = label(folder, skill=0.4, choice="best", tell_truth=True, votes=0)
    found = content["tasks"][ANNOTATION]
    assert found["accuracy"] > 0.85
    assert (found["answers"], found["overruled_votes"]) == (0, 0.0)
    assert found["labelled_by_policy"] == found["cells"] == 60
    assert asked  # the posterior asks the dual, and nobody answers the question itself
    primal = pseudo_rows(rows)
    reasoned = [split_response(row["output"]) for row in primal]
    assert sum(bool(each.trace) for each in reasoned) > 0.9 * len(primal)
    assert all(each.trace.endswith(f"So: {each.answer}") for each in reasoned if each.trace)


def test_a_judge_without_a_model_needs_none_and_the_oracle_gives_true_labels(folder):
    config = Config.load(folder / "cellduality.json")
    labels = PseudoSettings.read({"votes": 0, "judge": "oracle", "choice": "best"})
    work = Work(folder, config, labels, folder / "sft.jsonl", tell_truth=True)
    assert not work.asks_policy
    content = work.write(folder / "pseudo.jsonl", lambda: nullcontext(None), {"model": "none"})
    assert content["tasks"][ANNOTATION]["accuracy"] == 1
    truth = {row["id"]: row["cell_type"] for row in read_jsonl(folder / "cells.jsonl")}
    primal = pseudo_rows(read_jsonl(folder / "pseudo.jsonl"))
    assert len(primal) == 60
    assert all(split_response(row["output"]).answer == truth[row["id"]] for row in primal)
    assert Work(folder, config, PseudoSettings.read({"votes": 0}), folder / "sft.jsonl").asks_policy


def test_an_audit_says_for_each_task_whether_its_judge_names_alone(folder, tmp_path):
    alone = label(folder, skill=0.4, choice="best", votes=0)
    said = label(folder, skill=0.4, choice="best", alone=(ANNOTATION,), reasoning="rule")
    assert said[1] == alone[1]
    voted = label(folder, skill=0.4, choice="best", reasoning="rule")[1]
    assert voted != alone[1]
    assert all(split_response(row["output"]).trace != "seen" for row in pseudo_rows(voted))
    config, audit = Config.load(folder / "cellduality.json"), tmp_path / "audit.json"
    contender = {"reward": "profile", "hidden": None, "traces": 0}
    names = {"contender": contender, "votes": False, "accuracy": 0.8, "why": "so"}
    found = {"format": "cellduality-audit", "version": 2, "choice": {GENERATION: {}, ANNOTATION: {"namer": names}}}
    write_text(audit, json.dumps(found))
    assert read_namers(audit, config) == {ANNOTATION: names}
    write_text(audit, json.dumps({**found, "choice": {GENERATION: {}}}))
    with refused("nothing-to-label") as error:
        read_namers(audit, config)
    assert error.value.exit_code == 3  # recipes go on without a refit


def test_some_cells_are_chosen_unsure_ones_left_out_and_what_changed_since_an_earlier_round_is_counted(folder):
    assert 20 < label(folder, weight=0.5, batch=7)[0]["tasks"][ANNOTATION]["cells"] < 40
    few = label(folder, cells=5, labelled_share=0.0)[0]
    assert (few["tasks"][ANNOTATION]["cells"], few["rows"]["times"]) == (5, 1)
    content, rows, _ = label(folder, judge="none", choice="best", keep_above=0.8)
    found = content["tasks"][ANNOTATION]
    assert 0 < found["reasons"]["unsure"] == found["cells"] - len(pseudo_rows(rows))
    _, rows, _ = label(folder, choice="best")
    write_jsonl(earlier := folder / "earlier.jsonl", rows)
    assert label(folder, choice="best", previous=earlier)[0]["tasks"][ANNOTATION]["flip_rate"] == 0.0
    other = label(folder, judge="none", choice="best", previous=earlier)[0]["tasks"][ANNOTATION]
    assert (other["compared"], 0 < other["flip_rate"] < 1) == (len(pseudo_rows(rows)), True)


def test_a_policy_that_says_one_thing_rings_the_alarm(folder, capsys, monkeypatch):
    monkeypatch.setattr(PlantedPolicy, "_draw", lambda self, kind, rng: "T")
    label(folder, judge="none", choice="best")
    printed = capsys.readouterr().out  # recipes look for both lines
    assert f"pseudo-labels of {ANNOTATION}: 60 of 60 cells" in printed
    assert f"\nalarm: {ANNOTATION}: no cell is called B, NK" in printed


def run(folder: Path, *words: str) -> None:
    invoke("pseudo-label", "--model", folder / "model", "--data", folder, "--out", folder / "rows.jsonl", *words)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), "model"), (("--config", "elsewhere.json"), "elsewhere.json"), (("--judge", "rwjs"), "rwjs"),
        (("--choose", "first"), "choice"), (("--labelled", "elsewhere.jsonl"), "elsewhere.jsonl"),
        (("--labelled", "cells.jsonl"), "cells.jsonl:1"), (("--out", "rows.json"), "rows.json"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_a_model_loads(words, value, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(CellDualityError) as error:
        run(folder, *words)
    assert value in str(error.value)
    assert not (folder / "rows.jsonl").exists()


def test_rl_rows_of_tasks_whose_cells_got_no_label_go_beside_the_rows_and_no_cell_is_said(folder):
    for name in ("config.json", "model.safetensors"):
        write_text(folder / "model" / name, "{}")
    run(folder, "--votes", "0", "--judge", "oracle", "--rl-rows", str(folder / "rl.jsonl"))
    given, left = list(read_jsonl(folder / "rl.jsonl")), list(read_jsonl(folder / "rows.rl.jsonl"))
    assert left == [row for row in given if Example.from_label(row["label"]).task == GENERATION]
    assert 0 < len(left) < len(given)
    write_jsonl(folder / "cells.jsonl", [{**row, "labelled": True} for row in read_jsonl(folder / "cells.jsonl")])
    write_manifest(folder / "cells.jsonl", {"settings": {"hidden": 0.25}})
    with refused("nothing-to-label") as error:
        run(folder)
    assert error.value.exit_code == 3


def test_rounds_say_which_is_kept_and_whether_to_go_on(tmp_path):
    for number, value in enumerate((0.5, 0.7, 0.6), start=1):
        write_round(tmp_path / str(number), {KEY: value})
    folders, out = [str(tmp_path / str(number)) for number in (1, 2, 3)], tmp_path / "rounds.json"
    for count, said in ((1, "1 on"), (2, "2 on"), (3, "2 stop")):
        assert invoke("rounds", *folders[:count], "--out", out).strip() == said
    content = json.loads(out.read_text())
    assert (content["kept"], len(content["rounds"])) == (2, 3)
