from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cellduality_plugin.evaluation.predictions import (
    PROMPT_TOO_LONG,
    PredictionSettings,
    counted,
    predict,
    predict_checkpoint,
    read_rows,
)
from cellduality_plugin.files import read_jsonl, write_jsonl
from tests.evaluation.conftest import RuleDecoder
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"


@pytest.fixture
def examples(data):
    return read_rows(data / "eval_test.jsonl")


def test_labels_are_greedy_and_drawn_and_cells_drawn_each_with_a_seed(examples, data, vocabulary, expert_decoder):
    made = predict(expert_decoder, examples, vocabulary, PredictionSettings(samples=3))
    counts = Counter((p.task, p.drawn) for p in made)
    assert counts == {(ANNOTATION, False): 30, (ANNOTATION, True): 90, (GENERATION, True): 90}
    asked = {kind: [r for r in expert_decoder.asked if r.prompt.startswith(kind)] for kind in ("Write", "Some genes")}
    assert {request.temperature for request in asked["Write"]} == {1.0}
    assert {request.temperature for request in asked["Some genes"]} == {0.0}
    assert len({request.seed for request in asked["Write"]}) == 90
    names = Counter(r.temperature for r in expert_decoder.asked if r.prompt.startswith("Name"))
    assert names == {0.0: 30 + 90 + 30, 1.0: 90}, "greedy labels, the types of generated cells and of true ones"
    prompts = {request.prompt for request in expert_decoder.asked}
    assert {row["input"] for row in read_jsonl(data / "eval_test.jsonl")} <= prompts
    for p, request in zip([p for p in made if p.task == ANNOTATION], asked["Some genes"], strict=False):
        # The expert lists all genes of the type that it was not shown, the hidden ones among them.
        assert (p.answer, set(p.unknown) <= set(p.rebuilt), 0 < p.similarity < 1) == (p.gold, True, True)
        assert f"Type: {p.answer}" in request.prompt
        assert not set(p.unknown) & set(request.prompt.split()), "the dual sees the observed genes only"
    assert {p.reward for p in made if p.task == GENERATION} == {1}


@pytest.mark.parametrize(
    ("decode", "counts"),
    [
        ("headline", {(ANNOTATION, False): 30, (GENERATION, True): 60}),
        ("greedy", {(ANNOTATION, False): 30, (GENERATION, False): 30}),
        ("sampled", {(ANNOTATION, True): 60, (GENERATION, True): 60}),
    ],
)
def test_answers_are_decoded_as_asked_for(decode, counts, examples, vocabulary, expert_decoder) -> None:
    made = predict(expert_decoder, examples, vocabulary, PredictionSettings(samples=2, decode=decode))
    assert Counter((p.task, p.drawn) for p in made) == counts
    assert counted(made) == made


def test_the_dual_is_asked_once_a_row_with_the_true_answer(examples, vocabulary) -> None:
    """A checkpoint that always says NK, and whose dual is right about real cells of B alone."""

    def rule(request):
        if request.prompt.startswith("Some genes"):
            return "G0 G1 G2" if "\nType: B\n" in request.prompt else "G35"
        return "NK" if request.prompt.startswith("Name") else "G12 G13"

    made = predict(RuleDecoder(rule), examples, vocabulary, PredictionSettings(samples=2))
    told = [p for p in made if p.truth_similarity is not None]
    assert Counter((p.task, p.drawn) for p in told) == {(ANNOTATION, False): 30, (GENERATION, True): 30}
    for p in told:
        if p.task == GENERATION:
            assert (p.truth_rebuilt, p.truth_similarity) == ("NK", float(p.unknown == "NK"))
        else:
            assert p.truth_rebuilt == (("G0", "G1", "G2") if p.gold == "B" else ("G35",))
            assert p.rebuilt == ("G35",), "its own answer is NK"


def test_what_cannot_be_read_or_asked_is_data_and_without_gold_there_is_no_truth_to_tell(examples, vocabulary) -> None:
    """Labels that do not exist and a prompt that is too long; then a dual whose prompt is."""

    def answered(rows, too_long: str, answer: str):
        decoder = RuleDecoder(lambda request: None if request.prompt.startswith(too_long) else answer)
        return predict(decoder, rows, vocabulary, PredictionSettings(samples=1))

    made = answered(examples, "Write", "no such type")
    failures = {(ANNOTATION, "unknown_label"), (GENERATION, PROMPT_TOO_LONG)}
    assert {(p.task, p.failure) for p in made} == failures
    assert {(p.similarity, p.rebuilt, p.dual_response) for p in made} == {(0.0, None, "")}
    blind = {key: replace(example, gold=None) for key, example in examples.items() if key[0] == ANNOTATION}
    made = answered(blind, "Some genes", "B")
    assert {(p.answer, p.dual_failure, p.similarity, p.reward) for p in made} == {("B", PROMPT_TOO_LONG, 0.0, 0.0)}
    assert {(p.truth_similarity, p.truth_rebuilt, p.truth_dual_failure) for p in made} == {(None, None, "")}


def test_a_finished_file_is_read_and_others_made_anew(examples, vocabulary, model, tmp_path, opened, expert_decoder):
    out = tmp_path / "run" / "model.jsonl"

    made: list = []

    def asked(seed: int = 0, rows=examples) -> int:
        settings, before = PredictionSettings(samples=1, seed=seed), len(expert_decoder.asked)
        made.append(predict_checkpoint(model, rows, vocabulary, settings, out, opener=opened)[0])
        return len(expert_decoder.asked) - before

    whole = asked()
    assert (asked(), made[0] == made[1]) == (0, True)
    assert asked(seed=1) == whole > 0
    (model / "model.safetensors").write_bytes(b"other weights")
    assert asked() == whole
    key, example = next(iter(examples.items()))
    other = {**examples, key: replace(example, gold="T" if example.gold != "T" else "B")}
    assert asked(rows=other) == whole + 1, "the dual is asked with the true answer, which is another one"
    assert asked() == whole
    for spoiled in (out, out.with_suffix(".made_from.json")):  # a hand that edits either does not go unnoticed
        spoiled.write_text(spoiled.read_text() + "\n{")
        assert asked() == whole


@pytest.mark.parametrize(
    ("spoil", "code", "line"),
    [
        (lambda rows: rows.append(rows[0]), "repeated-id", 61),
        (lambda rows: rows[0].pop("label"), "missing-field", 1),
        (lambda rows: rows[0].update(label=rows[0]["label"].replace(ANNOTATION, "poetry")), "unknown-task", 1),
    ],
)
def test_rows_that_cannot_be_evaluated_are_refused_with_their_line(data: Path, spoil, code: str, line: int) -> None:
    path = data / "eval_test.jsonl"
    rows = list(read_jsonl(path))
    spoil(rows)
    write_jsonl(path, rows)
    with refused(code) as error:
        read_rows(path)
    assert error.value.where == f"{path}:{line}"
