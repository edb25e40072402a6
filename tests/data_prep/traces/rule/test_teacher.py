from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import Answer, Genes, OneOf
from cellduality_plugin.similarity import rank_weighted_jaccard
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import sft_rows
from data_prep.traces.questions import Question, read_questions
from data_prep.traces.rule.shown import MAX_WORDS, cell_shown, lists_shown
from data_prep.traces.rule.teacher import ENDLESS_WORDS, FAULTS, TRACE_WORDS, RuleTeacher, read_rule_teacher

GENES = tuple(f"G{number:03}" for number in range(120))
KINDS = {
    "cell_type": ("CD19+ B", "CD4+ Naive T", "CD8+ T"),
    "exposure": ("exposed", "not exposed"),
    "perturbation": ("control", "cytokine IFN-beta", "drug erlotinib 2 uM"),
    "sensitivity": ("resistant", "sensitive"),
}
VOCABULARY = Vocabulary(genes=GENES, labels=KINDS)
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
    write_jsonl(path, sft_rows(CELLS, list(TASKS.values()), VOCABULARY, hidden=0.25, views=2, rng=rng))
    return list(read_questions(path, TASKS))


@pytest.fixture(scope="module")
def sound() -> RuleTeacher:
    return RuleTeacher(CELLS, VOCABULARY, faults=0)


def words_allowed() -> set[str]:
    labels = {word for names in KINDS.values() for name in names for word in name.split()}
    return {*TRACE_WORDS, *GENES, *labels}


def read(question: Question, text: str) -> Answer:
    return question.read(text, VOCABULARY)


def check_form(question: Question, answer: Answer) -> None:
    """Check what holds of every sound candidate."""
    words = answer.trace.split()
    assert answer.failure == ""
    assert answer.unknown == answer.repeated == 0
    assert set(words) <= words_allowed()
    assert 5 <= len(words) <= MAX_WORDS


def cited(trace: str) -> dict[str, list[str]]:
    """Return the genes of a trace by the word they stand behind."""
    found: dict[str, list[str]] = {}
    head = ""
    for word in trace.split():
        head = word if word in TRACE_WORDS else head
        if word in GENES:
            found.setdefault(head, []).append(word)
    return found


@pytest.mark.parametrize("direction", ["primal", "dual"])
@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("candidate", [0, 1, 3, 9])
def test_every_sound_candidate_is_well_formed_and_grounded(name, direction, candidate, questions, sound):
    mine = [question for question in questions if (question.pair.name, question.direction) == (name, direction)]
    assert len(mine) == 2 * len(CELLS)
    for question in mine:
        answer = read(question, sound.write(question, candidate))
        check_form(question, answer)
        evidence = cited(answer.trace)
        if isinstance(question.field, OneOf):
            cell, _ = cell_shown(question)
            assert 1 <= len(evidence["Present:"]) <= 6
            assert set(evidence["Present:"]) <= set(cell)
            assert not set(evidence.get("Absent:", ())) & set(cell)
            assert f"{answer.trace} ".endswith(f" So: {answer.value} ")
        else:
            assert len(answer.value) == len(question.gold)
            assert 3 <= len(evidence["high:"]) <= 6


def test_lists_name_no_gene_that_is_shown_of_the_same_cell(questions, sound):
    inpainting = [question for question in questions if "observed" in lists_shown(question)]
    asked = [question for question in inpainting if isinstance(question.field, Genes)]
    assert asked
    for question in asked:
        for candidate in range(4):
            value = read(question, sound.write(question, candidate)).value
            assert not set(value) & set(question.example.known["observed"])


def test_trace_of_a_list_names_the_labels_shown_and_their_markers(questions, sound):
    for question in questions:
        if question.pair.name == "conditional_cell_generation" and question.direction == "primal":
            label = question.example.inputs["cell_type"]
            trace = read(question, sound.write(question, 0)).trace
            assert trace.startswith(f"For {label} high: ")
            assert set(cited(trace)["high:"]) & set(PLANTED[label])


def test_labels_are_mostly_right_at_first_and_less_so_later(questions, sound):
    asked = [question for question in questions if isinstance(question.field, OneOf)]
    right = [
        np.mean([read(question, sound.write(question, candidate)).value == question.gold for question in asked])
        for candidate in (0, 12)
    ]
    assert right[0] > 0.9
    assert right[1] < right[0] - 0.1


def test_label_is_what_the_genes_cited_speak_for(sound):
    """A cell of one type with another's markers planted in it is called the other."""
    task, label = TASKS["cell_type_annotation"], KINDS["cell_type"][1]
    for place, (other, genes) in enumerate((name, PLANTED[name]) for name in KINDS["cell_type"]):
        cell = Cell(f"new/{place}", (*genes, *COMMON[:20]), {"cell_type": label})
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        prompt = task.primal_prompt(example.inputs, VOCABULARY)
        question = Question(task, "primal", example, 0, label, prompt)
        assert read(question, sound.write(question, 0)).value == other


@settings(max_examples=30)
@given(data=st.data(), candidate=st.integers(0, 8))
def test_labels_never_hang_on_the_gold(data, candidate, questions, sound):
    asked = [question for question in questions if isinstance(question.field, OneOf)]
    question = data.draw(st.sampled_from(asked))
    other = data.draw(st.sampled_from(KINDS[question.field.kind]))
    if question.direction == "primal":
        changed = replace(question, answer=other, example=replace(question.example, gold=other, unknown=()))
    else:
        changed = replace(question, example=replace(question.example, unknown=other, gold=()))
    assert sound.write(changed, candidate) == sound.write(question, candidate)


def test_candidate_0_recalls_the_cell_and_later_ones_less_and_less(questions, sound):
    asked = [question for question in questions if isinstance(question.field, Genes)]
    alike = np.array(
        [
            [rank_weighted_jaccard(q.gold, read(q, sound.write(q, candidate)).value) for candidate in range(4)]
            for q in asked
        ]
    )
    means = alike.mean(axis=0)
    assert means[0] == 1
    assert (np.diff(means) < -0.05).all()
    assert alike.min() < 0.3


def test_dual_about_another_label_recalls_a_cell_of_that_label(questions, sound):
    pairs = [q for q in questions if q.pair.name == "cell_type_annotation" and q.direction == "primal" and q.view == 0]
    alike = []
    for question in pairs:
        wrong = next(label for label in KINDS["cell_type"] if label != question.gold)
        dual = question.about(wrong, VOCABULARY)
        answer = read(dual, sound.write(dual, 0))
        check_form(dual, answer)
        assert answer.trace.startswith(f"For {wrong} high: ")
        alike.append(rank_weighted_jaccard(dual.gold, answer.value))
    assert np.mean(alike) < 0.3


def test_cell_it_has_not_seen_is_answered_from_others(questions):
    teacher = RuleTeacher(CELLS[1:], VOCABULARY, faults=0)
    for question in questions:
        if question.example.id == CELLS[0].id:
            check_form(question, read(question, teacher.write(question, 0)))


def test_the_only_cell_there_is_serves_all_questions(questions):
    teacher = RuleTeacher(CELLS[:1], VOCABULARY, faults=0)
    for question in questions[:40]:
        assert read(question, teacher.write(question, 1)).failure == ""


def test_seed_decides_and_nothing_else(questions):
    first, again, other = (RuleTeacher(CELLS, VOCABULARY, seed=seed) for seed in (0, 0, 1))
    some = questions[:30]
    texts = [[teacher.write(q, k) for q in some for k in range(3)] for teacher in (first, again, other)]
    backwards = [again.write(q, k) for q in reversed(some) for k in (2, 1, 0)][::-1]
    assert texts[0] == texts[1] == backwards
    assert texts[0] != texts[2]
    assert first.version == again.version != other.version
    assert len(first.version) == 12
    assert first.version != RuleTeacher(CELLS[1:], VOCABULARY).version
    assert first.version != RuleTeacher(CELLS, VOCABULARY, faults=0).version


def test_it_is_a_teacher(questions, sound):
    reply = asyncio.run(sound.answer(questions[0], 2))
    assert reply.text == sound.write(questions[0], 2)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish, sound.name) == (0, 0, "stop", "rule")


def test_faults_are_the_documented_ones_at_the_rate_asked_for(questions, sound):
    teacher = RuleTeacher(CELLS, VOCABULARY, faults=0.3)
    found = Counter()
    for question in questions:
        for candidate in range(4):
            fault, text = teacher.fault(question, candidate), teacher.write(question, candidate)
            found[fault] += 1
            answer, intended = read(question, text), read(question, sound.write(question, candidate))
            if not fault:
                assert text == sound.write(question, candidate)
            elif fault == "no_tag":
                assert answer.failure == "no_answer"
            elif fault == "empty":
                assert answer.failure == "empty"
            elif fault == "endless":
                assert (answer.value, len(answer.trace.split())) == (intended.value, ENDLESS_WORDS)
            elif fault == "leak":
                assert answer.value == intended.value
                assert answer.trace.startswith("The correct answer is ")
            else:
                assert fault == "repeat"
                assert candidate > 0
                assert text == teacher.write(question, 0)
    total = sum(found.values())
    assert set(found) == {"", *FAULTS}
    assert 1 - found[""] / total == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / total) ** 0.5)


def test_default_rate_is_one_in_twenty(questions):
    teacher = RuleTeacher(CELLS, VOCABULARY)
    faulty = [bool(teacher.fault(question, candidate)) for question in questions for candidate in range(4)]
    assert np.mean(faulty) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / len(faulty)) ** 0.5)


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


class Completion(TissueAndRest):
    """Both of its answers are gene lists, and no label is shown at all."""

    name = "completion"
    answer = Genes()

    def dual_prompt(self, known, answer, vocabulary):
        return f"What was above {sentence(answer)}?"

    def example(self, cell, *, hidden, labelled, rng):
        return Example(self.name, cell.id, {"top": cell.genes[:8]}, {}, cell.genes[:8], cell.genes[8:])


@pytest.mark.parametrize("pair", [TissueAndRest(), Completion()])
def test_pair_of_ones_own_is_served(pair, tmp_path):
    world = Vocabulary(genes=GENES, labels={"tissue": ("blood", "lung")})
    cells = [replace(c, obs={"tissue": ("blood", "lung")[c.obs["cell_type"] == "CD8+ T"]}) for c in CELLS]
    write_jsonl(
        tmp_path / "sft.jsonl", sft_rows(cells, [pair], world, hidden=0.25, views=1, rng=np.random.default_rng(0))
    )
    teacher = RuleTeacher(cells, world, faults=0)
    for question in read_questions(tmp_path / "sft.jsonl", {pair.name: pair}):
        for candidate in range(4):
            answer = question.read(teacher.write(question, candidate), world)
            assert (answer.failure, answer.unknown, answer.repeated) == ("", 0, 0)
            assert set(answer.trace.split()) <= {*TRACE_WORDS, *GENES, "blood", "lung"}
            if isinstance(question.field, Genes):
                assert len(answer.value) == len(question.gold)
                assert candidate or answer.value == question.gold


def test_label_set_that_no_cell_speaks_of_is_guessed(sound):
    world = Vocabulary(genes=GENES, labels={"tissue": ("blood", "lung")})
    example = Example("tissue_and_rest", "toy/0", {"top": GENES[:8]}, {"top": GENES[:8]}, GENES[8:], "lung")
    question = Question(TissueAndRest(), "primal", example, 0, "lung", "Whence?")
    text = RuleTeacher(CELLS, world, faults=0).write(question, 0)
    assert question.read(text, world).value in {"blood", "lung"}


class Free:
    def render(self, value):
        return str(value)

    def parse(self, text, vocabulary):
        return Answer(text)


def test_field_of_another_kind_is_told(sound, check_told):
    pair = Completion()
    pair.answer = Free()
    example = Example("completion", "toy/0", {"top": GENES[:8]}, {}, GENES[:8], GENES[8:])
    with pytest.raises(CellDualityError) as raised:
        sound.write(Question(pair, "primal", example, 0, GENES[8:], "What else?"), 0)
    check_told(raised, "the rule cannot answer with a Free", "--teacher MODEL")


@pytest.mark.parametrize(
    ("cells", "faults", "what"), [([], 0.05, "no labelled training cell"), (CELLS, 1.5, "no share")]
)
def test_arguments_that_cannot_be_are_told(cells, faults, what, check_told):
    with pytest.raises(CellDualityError) as raised:
        RuleTeacher(cells, VOCABULARY, faults=faults)
    check_told(raised, what)


def write_folder(folder, rows):
    VOCABULARY.save(folder / "vocabulary.json")
    write_jsonl(folder / "cells.jsonl", rows)


def test_folder_is_read_and_unlabelled_or_held_out_cells_are_not_learned_from(tmp_path, questions):
    rows = [
        {"id": cell.id, "split": "train", "labelled": True, "genes": cell.genes, **cell.obs, **cell.condition}
        for cell in CELLS
    ]
    others = [
        {**row, "id": f"{row['id']}-{split}", "split": split, "labelled": labelled, "genes": row["genes"][::-1]}
        for row in rows
        for split, labelled in (("train", False), ("test", False), ("validation", True))
    ]
    write_folder(tmp_path, [{**row, "control": "toy/1"} for row in [*rows, *others]])
    ours, theirs = read_rule_teacher(tmp_path, seed=3), RuleTeacher(CELLS, VOCABULARY, seed=3)
    assert ours.version == theirs.version
    assert [ours.write(q, 1) for q in questions[:20]] == [theirs.write(q, 1) for q in questions[:20]]


def test_folder_without_rows_of_cells_is_told(tmp_path, check_told):
    write_folder(tmp_path, [{"id": "toy/1"}])
    with pytest.raises(CellDualityError) as raised:
        read_rule_teacher(tmp_path)
    check_told(raised, "not a row of cells", "prepare the data again")
    assert raised.value.where.endswith("cells.jsonl:1")
