from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import Answer, Genes, OneOf
from cellduality_plugin.similarity import rank_weighted_jaccard
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from data_prep.traces.questions import Question, read_questions
from data_prep.traces.rule.answers import LABEL_WORDS, LIST_WORDS, MAX_WORDS, cell_shown, lists_shown
from data_prep.traces.rule.markers import find_markers
from data_prep.traces.rule.teacher import ENDLESS_WORDS, FAULTS, RuleTeacher, read_rule_teacher
from tests.refused import refused

GENES = tuple(f"G{number:03}" for number in range(120))
KINDS = {
    "cell_type": ("CD19+ B", "CD4+ Naive T", "CD8+ T"),
    "exposure": ("exposed", "not exposed"),
    "perturbation": ("control", "cytokine IFN-beta", "drug erlotinib 2 uM"),
    "sensitivity": ("resistant", "sensitive"),
}
VOCABULARY = Vocabulary(genes=GENES, labels=KINDS)
WORDS = {*LABEL_WORDS, *LIST_WORDS, *GENES, *(word for names in KINDS.values() for word in " ".join(names).split())}
# Six genes of its own for every label; the rest belong to all cells.
PLANTED = {
    label: GENES[6 * place : 6 * place + 6]
    for place, label in enumerate(label for labels in KINDS.values() for label in labels)
}
COMMON = GENES[6 * len(PLANTED) :]


def planted_genes(labels: Mapping[str, str], rng: np.random.Generator) -> tuple[str, ...]:
    own = [gene for label in labels.values() for gene in PLANTED[label] if rng.random() < 0.8]
    return tuple(rng.permutation([*own, *rng.permutation(COMMON)[:20].tolist()]).tolist())


def planted_cells(count: int = 36) -> list[Cell]:
    rng = np.random.default_rng(0)
    cells = []
    for number in range(count):
        labels, rest = {}, number
        for kind, names in KINDS.items():  # every combination once
            rest, place = divmod(rest, len(names))
            labels[kind] = names[place]
        condition = {"perturbation": labels["perturbation"], "drug": "erlotinib"}
        obs = {kind: label for kind, label in labels.items() if kind != "perturbation"}
        control = planted_genes({**labels, "perturbation": "control"}, rng)
        cells.append(Cell(f"toy/{number}", planted_genes(labels, rng), obs, condition, control))
    return cells


CELLS = planted_cells()


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    path = tmp_path_factory.mktemp("rows") / "sft.jsonl"
    rng = np.random.default_rng(0)
    write_jsonl(path, RowMaker(list(TASKS.values()), VOCABULARY, PrepareSettings(sft_views=2)).sft(CELLS, rng))
    return list(read_questions(path, TASKS))


@pytest.fixture(scope="module")
def sound() -> RuleTeacher:
    return RuleTeacher(CELLS, VOCABULARY, faults=0)


def read(question: Question, text: str) -> Answer:
    return question.read(text, VOCABULARY)


def likeness(question: Question, text: str) -> float:
    return rank_weighted_jaccard(question.gold, read(question, text).value)


def of_a_list(question: Question) -> bool:
    return isinstance(question.field, Genes)


def check_form(question: Question, text: str) -> Answer:
    """Check what holds of every sound candidate."""
    answer = read(question, text)
    assert (answer.failure, answer.unknown, answer.repeated) == ("", 0, 0)
    assert set(answer.trace.split()) <= WORDS
    assert 5 <= len(answer.trace.split()) <= MAX_WORDS
    return answer


def cited(trace: str) -> dict[str, list[str]]:
    """Return the genes of a trace by the word they stand behind."""
    found: dict[str, list[str]] = {}
    head = ""
    for word in trace.split():
        head = word if word in (*LABEL_WORDS, *LIST_WORDS) else head
        if word in GENES:
            found.setdefault(head, []).append(word)
    return found


@pytest.mark.parametrize("group", [f"{name}/{direction}" for name in sorted(TASKS) for direction in ("primal", "dual")])
@pytest.mark.parametrize("candidate", [0, 1, 9])
def test_every_sound_candidate_is_well_formed_and_grounded(group, candidate, questions, sound):
    mine = [question for question in questions if question.group == group]
    assert len(mine) == 2 * len(CELLS)
    for question in mine:
        answer = check_form(question, sound.write(question, candidate))
        evidence = cited(answer.trace)
        if of_a_list(question):
            assert len(answer.value) == len(question.gold)
            assert 3 <= len(evidence["high:"]) <= 6
            if group == "conditional_cell_generation/primal":
                label = question.example.inputs["cell_type"]
                assert answer.trace.startswith(f"For {label} high: ")
                assert set(evidence["high:"]) & set(PLANTED[label])
            if "observed" in lists_shown(question):
                assert not set(answer.value) & set(question.example.known["observed"])
        else:
            cell, _ = cell_shown(question)
            assert 1 <= len(evidence["Present:"]) <= 6
            assert set(evidence["Present:"]) <= set(cell)
            assert not set(evidence.get("Absent:", ())) & set(cell)
            assert f"{answer.trace} ".endswith(f" So: {answer.value} ")


def test_labels_are_mostly_right_at_first_and_less_so_later(questions, sound):
    asked = [question for question in questions if not of_a_list(question)]
    first, later = (np.mean([read(q, sound.write(q, number)).value == q.gold for q in asked]) for number in (0, 12))
    assert first > 0.9
    assert later < first - 0.1


@settings(max_examples=30)
@given(data=st.data(), candidate=st.integers(0, 8))
def test_labels_never_hang_on_the_gold(data, candidate, questions, sound):
    question = data.draw(st.sampled_from([question for question in questions if not of_a_list(question)]))
    other = data.draw(st.sampled_from(KINDS[question.field.kind]))
    if question.direction == "primal":
        changed = replace(question, answer=other, example=replace(question.example, gold=other, unknown=()))
    else:
        changed = replace(question, example=replace(question.example, unknown=other, gold=()))
    assert sound.write(changed, candidate) == sound.write(question, candidate)


def test_candidate_0_recalls_the_cell_and_later_ones_less_and_less(questions, sound):
    asked = [question for question in questions if of_a_list(question)]
    alike = np.array([[likeness(q, sound.write(q, number)) for number in range(4)] for q in asked])
    means = alike.mean(axis=0)
    assert means[0] == 1
    assert (np.diff(means) < -0.05).all()
    assert alike.min() < 0.3


def test_dual_about_another_label_recalls_a_cell_of_that_label(questions, sound):
    alike = []
    for question in (q for q in questions if q.group == "cell_type_annotation/primal" and q.view == 0):
        wrong = next(label for label in KINDS["cell_type"] if label != question.gold)
        dual = question.about(wrong, VOCABULARY)
        answer = check_form(dual, sound.write(dual, 0))
        assert answer.trace.startswith(f"For {wrong} high: ")
        alike.append(rank_weighted_jaccard(dual.gold, answer.value))
    assert np.mean(alike) < 0.3


def test_few_cells_serve_all_questions(questions):
    for cells in (CELLS[1:], CELLS[:1]):  # questions about a cell it has not seen; the only cell there is
        teacher = RuleTeacher(cells, VOCABULARY, faults=0)
        for question in questions[:40]:
            answer = read(question, teacher.write(question, 0))
            assert (answer.failure, len(answer.trace.split()) <= MAX_WORDS) == ("", True)


def test_seed_decides_and_nothing_else(questions):
    first, again, other = (RuleTeacher(CELLS, VOCABULARY, seed=seed) for seed in (0, 0, 1))
    some = questions[:30]
    texts = [[teacher.write(q, k) for q in some for k in range(3)] for teacher in (first, again, other)]
    backwards = [again.write(q, k) for q in reversed(some) for k in (2, 1, 0)][::-1]
    assert texts[0] == texts[1] == backwards != texts[2]
    different = (other, RuleTeacher(CELLS[1:], VOCABULARY), RuleTeacher(CELLS, VOCABULARY, faults=0))
    assert first.version == again.version not in {teacher.version for teacher in different}
    reply = asyncio.run(first.answer(some[0], 2))
    assert (reply.text, reply.tokens.total, reply.finish) == (texts[0][2], 0, "stop")


def test_faults_are_the_documented_ones_at_the_rate_asked_for(questions, sound):
    assert RuleTeacher(CELLS, VOCABULARY).version == RuleTeacher(CELLS, VOCABULARY, faults=0.05).version
    rate, found = 0.3, Counter[str]()
    teacher = RuleTeacher(CELLS, VOCABULARY, faults=rate)
    for question in questions[::4]:
        for candidate in range(4):
            fault, text = teacher.fault(question, candidate), teacher.write(question, candidate)
            found[fault] += 1
            intended = sound.write(question, candidate)
            answer, meant = read(question, text), read(question, intended)
            assert {
                "": text == intended,
                "no_tag": answer.failure == "no_answer",
                "empty": answer.failure == "empty",
                "endless": (answer.value, len(answer.trace.split())) == (meant.value, ENDLESS_WORDS),
                "leak": answer.value == meant.value and answer.trace.startswith("The correct answer is "),
                "repeat": candidate > 0 and text == teacher.write(question, 0),
            }[fault]
    assert set(found) == {"", *FAULTS}
    total = found.total()
    assert 1 - found[""] / total == pytest.approx(rate, abs=4 * (rate * (1 - rate) / total) ** 0.5)


class TissueAndRest(DualTask):
    """A pair of a user's own: its label's column, its inputs' names and its fields are none of the built-in ones'."""

    name = "tissue_and_rest"
    answer = OneOf("tissue")
    unknown = Genes()

    def primal_prompt(self, inputs, vocabulary):
        return f"Whence? {sentence(inputs['top'])}"

    def dual_prompt(self, known, answer, vocabulary):
        return f"What else is in {answer}? {sentence(known['top'])}"

    def example(self, cell, *, hidden, labelled, rng):
        top, rest = cell.genes[:8], cell.genes[8:]
        return Example(self.name, cell.id, {"top": top}, {"top": top}, rest, cell.obs["tissue"] if labelled else None)

    def similarity(self, unknown, rebuilt):
        return rank_weighted_jaccard(unknown, rebuilt)


WORLD = Vocabulary(genes=GENES, labels={"tissue": ("blood", "lung")})


def test_pair_of_ones_own_is_served_and_the_edition_names_what_is_written():
    pair = TissueAndRest()
    cells = [replace(c, obs={"tissue": ("blood", "lung")[c.obs["cell_type"] == "CD8+ T"]}) for c in CELLS]
    teacher, texts = RuleTeacher(cells, WORLD, faults=0), []
    for cell in cells:
        example = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        primal = Question(pair, "primal", example, 0, example.gold, pair.primal_prompt(example.inputs, WORLD))
        for question in (primal, primal.about(example.gold, WORLD)):
            for candidate in range(4):
                texts.append(teacher.write(question, candidate))
                answer = question.read(texts[-1], WORLD)
                assert (answer.failure, answer.unknown, answer.repeated) == ("", 0, 0)
                assert set(answer.trace.split()) <= WORDS | {"blood", "lung"}
                if of_a_list(question):
                    assert len(answer.value) == len(question.gold)
                    assert candidate or answer.value == question.gold
    written = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    assert written == "0bf934612b3e", "the rule writes something else: give it a new EDITION"


def test_what_no_cell_speaks_of_is_guessed_and_what_cannot_be_is_refused(sound):
    example = Example("tissue_and_rest", "toy/0", {"top": GENES[:8]}, {"top": GENES[:8]}, GENES[8:], "lung")
    question = Question(TissueAndRest(), "primal", example, 0, "lung", "Whence?")
    text = RuleTeacher(CELLS, WORLD, faults=0).write(question, 0)
    assert question.read(text, WORLD).value in {"blood", "lung"}
    question.pair.answer = object()
    with refused("unknown-field"):
        sound.write(question, 0)
    for cells, faults, code in (([], 0.05, "no-labelled-cell"), (CELLS, 1.5, "no-share")):
        with refused(code):
            RuleTeacher(cells, VOCABULARY, faults=faults)


def test_folder_is_read_and_unlabelled_or_held_out_cells_are_not_learned_from(tmp_path, questions):
    rows = [{"id": each.id, "genes": each.genes, "control": "toy/1", **each.obs, **each.condition} for each in CELLS]
    splits = ("train", True), ("train", False), ("test", False), ("validation", True)
    VOCABULARY.save(tmp_path / "vocabulary.json")
    written = ({**row, "split": split, "labelled": labelled} for split, labelled in splits for row in rows)
    write_jsonl(tmp_path / "cells.jsonl", written)
    ours, theirs = read_rule_teacher(tmp_path, seed=3), RuleTeacher(CELLS, VOCABULARY, seed=3)
    assert ours.version == theirs.version
    assert [ours.write(q, 1) for q in questions[:20]] == [theirs.write(q, 1) for q in questions[:20]]
    write_jsonl(tmp_path / "cells.jsonl", [{"id": "toy/1"}])
    with refused("malformed") as error:
        read_rule_teacher(tmp_path)
    assert error.value.where.endswith("cells.jsonl:1")


@settings(max_examples=5)
@given(order=st.permutations(range(len(CELLS))))
def test_the_order_of_cells_and_labels_of_another_set_do_not_matter(order):
    other = Cell("other/1", (*PLANTED["CD8+ T"], "G119"), {"cell_type": "T cells, as others call them"})
    ours, theirs = (
        find_markers(some, VOCABULARY)["cell_type"] for some in (CELLS, [other, *(CELLS[n] for n in order)])
    )
    assert (ours.present, ours.absent) == (theirs.present, theirs.absent)


def test_weights_are_log_ratios_and_a_condition_counts_as_an_annotation_does():
    known = [("exposed", GENES[:2]), ("exposed", GENES[:1]), ("not exposed", GENES[1:2]), ("not exposed", GENES[1:3])]
    cells = [Cell(f"toy/{n}", genes, condition={"exposure": label}) for n, (label, genes) in enumerate(known)]
    found = find_markers(cells, VOCABULARY)["exposure"]
    assert found.if_present[0, 0] == pytest.approx(np.log((2.5 / 3) / (0.5 / 3)))
    assert found.if_absent[0, 1] == pytest.approx(np.log((1.5 / 3) / (0.5 / 3)))
