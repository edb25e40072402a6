"""`cellduality pseudo-label` and `rounds` from the flags to the files; mistakes are found before a model loads."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.commands.pseudo_labels import PseudoSettings, Work
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.parsing import join_response, split_response
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import write_manifest
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.commands.conftest import invoke
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION, GENES, NAMES, TYPES, PlantedPolicy, cells_of_types
from tests.evaluation.rounds.test_rounds import KEY, write_round
from tests.play import Saying
from tests.refused import refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder: 12 labelled training cells, 60 without a label, 6 of another split, of three types."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    tasks, vocabulary, cells = (
        [TASKS[name] for name in NAMES],
        Vocabulary(GENES, {"cell_type": TYPES}),
        cells_of_types(26, rng),
    )
    vocabulary.save(data / "vocabulary.json")
    splits = [("train", True)] * 12 + [("train", False)] * 60 + [("validation", False)] * 6
    rows = [
        {"id": cell.id, "split": split, "labelled": labelled, "genes": list(cell.genes), **cell.obs}
        for cell, (split, labelled) in zip(cells, splits, strict=True)
    ]
    write_cells(data, rows)
    made = RowMaker(tasks, vocabulary, PrepareSettings(n_rl=8, rl_includes_labelled=False, masks=2))
    write_jsonl(data / "sft.jsonl", made.sft(cells[:12], rng))
    write_jsonl(data / "rl.jsonl", made.rl(cells[:12], cells[12:72], [1.0] * len(tasks), rng))
    config = {"tasks": {name: {"pair": name, "reward": "posterior"} for name in NAMES}}
    Config.read(config).save(data / "cellduality.json")
    return data


def write_cells(folder: Path, rows: list[dict[str, object]]) -> None:
    write_jsonl(folder / "cells.jsonl", rows)
    write_manifest(folder / "cells.jsonl", {"settings": {"hidden": 0.25}})


def label(folder: Path, skill: float = 0.6, sampler=None, **settings):
    """Return what is said of the pair that names types and of the rows, these rows, and what the dual was asked."""
    options = {name: settings.pop(name) for name in ("previous", "tell_truth") if name in settings}
    policy, config = PlantedPolicy(0.95), Config.load(folder / "cellduality.json")
    players = Players(None, policy, policy, sampler or PlantedPolicy(skill, seed=1))
    work = Work(folder, config, PseudoSettings.read(settings), folder / "sft.jsonl", **options)
    out = folder / settings.get("judge", "pseudo") / "pseudo.jsonl"
    content = work.write(out, lambda: nullcontext(players if work.asks_policy else None), {"model": "planted"})
    json.dumps(content, allow_nan=False)
    return content["tasks"][ANNOTATION] | {"rows": content["rows"]}, list(read_jsonl(out)), policy.asked


def pseudo_rows(rows, direction="primal"):
    known = {f"made/{number}" for number in range(12)}
    return [row for row in rows if row["id"] not in known and row["direction"] == direction]


def test_cells_without_a_label_get_rows_in_both_directions_of_the_schema_of_the_labelled_ones(folder):
    found, rows, asked = label(folder)
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
    assert found["rows"] == {"pseudo": 2 * len(primal), "labelled": len(labelled), "times": 3}
    assert rows[2 * len(primal) :] == 3 * labelled
    assert (*label(folder), bool(asked)) == (found, rows, [], True), "nothing is asked twice"


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
    found, _, asked = label(folder, skill=0.4, choice="best", tell_truth=True)
    plain, _, unasked = label(folder, skill=0.4, judge="none", choice="best", tell_truth=True)
    assert found["accuracy"] > plain["accuracy"] + 0.2
    assert plain["accuracy"] == plain["accuracy_of_votes"] == found["accuracy_of_votes"]
    assert (plain["overruled_votes"], found["overruled_votes"] > 0.2) == (0.0, True)
    assert unasked == []
    assert len(asked) == len(set(asked))  # each different answer is judged once, under each of its two masks


def test_without_votes_the_judge_alone_names_every_cell_and_each_row_reasons_towards_its_label(folder):
    found, rows, asked = label(folder, skill=0.4, choice="best", tell_truth=True, votes=0)
    assert found["accuracy"] > 0.85
    assert (found["answers"], found["overruled_votes"]) == (0, 0.0)
    assert found["labelled_by_policy"] == found["cells"] == 60
    assert len(asked) == len(set(asked)) > 0  # the posterior asks the dual once, and nobody answers the question itself
    reasoned = [split_response(row["output"]) for row in pseudo_rows(rows)]
    assert sum(bool(each.trace) for each in reasoned) > 0.9 * len(reasoned)
    assert all(each.trace.endswith(f"So: {each.answer}") for each in reasoned if each.trace)
    # As an audit says of each task.
    assert label(folder, skill=0.4, choice="best", alone=(ANNOTATION,), reasoning="rule")[1] == rows
    voted = label(folder, skill=0.4, choice="best", reasoning="rule")[1]
    assert voted != rows
    assert all(split_response(row["output"]).trace != "seen" for row in pseudo_rows(voted))


def test_a_judge_without_a_model_needs_none_and_the_oracle_gives_true_labels(folder):
    found, rows, asked = label(folder, votes=0, judge="oracle", choice="best", tell_truth=True)
    assert (found["accuracy"], asked) == (1, [])
    truth = {row["id"]: row["cell_type"] for row in read_jsonl(folder / "cells.jsonl")}
    named = {row["id"]: split_response(row["output"]).answer for row in pseudo_rows(rows)}
    assert named == {cell: kind for cell, kind in truth.items() if cell in named}
    assert len(named) == 60


def test_some_cells_are_chosen_unsure_ones_left_out_and_what_changed_since_an_earlier_round_is_counted(folder):
    assert 20 < label(folder, weight=0.5, batch=7)[0]["cells"] < 40
    few = label(folder, cells=5, labelled_share=0.0)[0]
    assert (few["cells"], few["rows"]["times"]) == (5, 1)
    found, rows, _ = label(folder, judge="none", choice="best", keep_above=0.8)
    assert 0 < found["reasons"]["unsure"] == found["cells"] - len(pseudo_rows(rows))
    _, rows, _ = label(folder, choice="best")
    write_jsonl(earlier := folder / "earlier.jsonl", rows)
    assert label(folder, choice="best", previous=earlier)[0]["flip_rate"] == 0.0
    other = label(folder, judge="none", choice="best", previous=earlier)[0]
    assert (other["compared"], 0 < other["flip_rate"] < 1) == (len(pseudo_rows(rows)), True)


def test_a_policy_that_says_one_thing_rings_the_alarm(folder, capsys):
    label(folder, judge="none", choice="best", sampler=Saying(join_response("T")))
    printed = capsys.readouterr().out  # recipes look for both lines
    assert f"pseudo-labels of {ANNOTATION}: 60 of 60 cells" in printed
    assert f"\nalarm: {ANNOTATION}: no cell is called B, NK" in printed


def run(folder: Path, *words: object) -> None:
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


@pytest.fixture
def model(folder):
    """What looks like a checkpoint, and is not asked."""
    for name in ("config.json", "model.safetensors"):
        write_text(folder / "model" / name, "{}")


def test_an_audit_says_who_names_the_cells_and_rl_rows_of_tasks_without_a_label_go_beside_the_rows(folder, model):
    names = {"contender": {"reward": "oracle", "hidden": None, "traces": 0}, "votes": False}
    found = {"format": "cellduality-audit", "version": 2, "choice": {GENERATION: {}, ANNOTATION: {"namer": names}}}
    write_text(folder / "audit.json", json.dumps(found))
    run(folder, "--judge", folder / "audit.json", "--rl-rows", folder / "rl.jsonl")
    settings = json.loads((folder / "rows.json").read_text())["settings"]
    assert (settings["alone"], settings["reasoning"], settings["choice"]) == ([ANNOTATION], "rule", "best")
    given, left = list(read_jsonl(folder / "rl.jsonl")), list(read_jsonl(folder / "rows.rl.jsonl"))
    assert left == [row for row in given if Example.from_label(row["label"]).task == GENERATION]
    assert 0 < len(left) < len(given)


def test_where_nothing_can_be_labelled_recipes_go_on_without_a_refit(folder, model):
    write_text(folder / "audit.json", json.dumps({"format": "cellduality-audit", "version": 2}))
    write_cells(folder, [{**row, "labelled": True} for row in read_jsonl(folder / "cells.jsonl")])
    for words in ((), ("--judge", folder / "audit.json")):
        with refused("nothing-to-label") as error:
            run(folder, *words)
        assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("scores", "patience", "said"),
    [
        ((0.5, 0.6), 1, "2 on"),
        ((0.5, 0.6, 0.6), 1, "2 stop"),  # equal is no help
        ((0.5, 0.4, 0.6), 2, "3 on"),
        ((0.5, 0.4, 0.3), 2, "1 stop"),
    ],
)
def test_the_best_round_is_kept_and_rounds_end_when_they_no_longer_help(scores, patience, said, tmp_path):
    folders = [write_round(tmp_path / str(number), {KEY: score}) for number, score in enumerate(scores, start=1)]
    printed = invoke("rounds", *folders[::-1], "--out", tmp_path / "rounds.json", "--patience", patience)
    content = json.loads((tmp_path / "rounds.json").read_text())
    assert printed.strip() == said
    assert (content["kept"], [each["score"] for each in content["rounds"]]) == (int(said[0]), [*scores])
