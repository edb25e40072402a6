"""Label sets that no question lists: what is asked, how an answer is read, what it is held against, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.duals import NEGATIVES
from cellduality_plugin.evaluation.audit.answers import AuditSettings, make_cases
from cellduality_plugin.evaluation.rounds.labelling import Panel
from cellduality_plugin.parsing import OneOf, join_response
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.tasks.base import SHOWN
from cellduality_plugin.vocabulary import LISTED, TABLED, Vocabulary
from data_prep.profiles import fit_profiles
from data_prep.traces.questions import Question
from data_prep.traces.rule.teacher import RuleTeacher
from tests.conftest import GENES
from tests.play import Saying, roll, row
from tests.refused import refused

KIND, IDENTIFY, RESPONSE = "perturbation", "perturbation_identification", "perturbation_response_generation"
OTHERS = (
    "control", "cytokine IFN-beta", "knockdown KRAS+TP53", "drug A 10000 nM", "drug A 10 uM",
    "drug B 10 nM+drug A 2 uM",
)  # fmt: skip


def screen_of(labels: int, **settings: int) -> Vocabulary:
    """Return a vocabulary with so many perturbations."""
    drugs = (f"drug BRD-K{10_000_000 + place} {10 ** (place % 4)} nM" for place in range(labels - len(OTHERS)))
    return Vocabulary(GENES, {KIND: tuple(sorted([*OTHERS, *drugs]))}, **settings)


@pytest.fixture(scope="module")
def many() -> Vocabulary:
    return screen_of(30_000)


def prompts(vocabulary, cell):
    """Return the questions that ask for a perturbation: as a primal, and as a dual."""
    asked, response = row(IDENTIFY, cell), row(RESPONSE, cell)
    primal = TASKS[IDENTIFY].primal_prompt(asked.inputs, vocabulary)
    return [primal, TASKS[RESPONSE].dual_prompt(response.known, cell.genes, vocabulary)]


def test_a_question_lists_its_labels_up_to_the_bound_and_does_not_grow_past_it(cell, many):
    at_the_bound, past_it = screen_of(LISTED), screen_of(LISTED + 1)
    for prompt in prompts(at_the_bound, cell):
        assert all(f"\n- {label}\n" in prompt for label in at_the_bound.labels[KIND])
    for vocabulary in (past_it, screen_of(750), many):
        for prompt in prompts(vocabulary, cell):
            assert sum(f"\n- {label}\n" in prompt for label in vocabulary.labels[KIND]) == SHOWN
            assert len(prompt.split()) < 150
    assert all("\n- control\n" in prompt for prompt in prompts(screen_of(LISTED + 1, listed=LISTED + 1), cell))


def test_the_bound_is_kept_with_the_vocabulary_and_leaves_no_trace_where_all_is_listed(tmp_path):
    for listed, labels in ((LISTED, 12), (200, 150)):
        screen_of(labels, listed=listed).save(tmp_path / "all.json")
        assert "listed" not in (tmp_path / "all.json").read_text()
        assert Vocabulary.load(tmp_path / "all.json").lists(KIND), "as in folders of an older version"
    past_it = screen_of(150)
    past_it.save(tmp_path / "some.json")
    assert Vocabulary.load(tmp_path / "some.json") == past_it
    assert past_it.fingerprint != screen_of(150, listed=200).fingerprint, "rows that list labels are other rows"


@pytest.mark.parametrize(
    ("label", "sayings"),
    [
        ("knockdown KRAS+TP53", ["knockdown TP53+KRAS", "knockdown TP53+KRAS+ctrl", "knockdown TP53+KRAS+TP53"]),
        ("knockdown KRAS+TP53", ["knockdown TP53+knockdown KRAS"]),
        ("control", ["ctrl+NegCtrl7", "DMSO"]),
        ("drug B 10 nM+drug A 2 uM", ["drug A 2 uM+drug B 10 nM+drug A 2 uM", "drug a 2000 nM + drug b 0.01 µM"]),
        ("drug BRD-K10000003 1000 nM", ["drug BRD-K10000003 1 uM"]),
        ("drug A 10 uM", ["drug A 10 uM"]),
        (None, ["knockdown KRAS+TP53+BRCA9", "knockdown KRAS+", "drug BRD-K10000003 2 uM", "drug 1e999 uM+" * 50]),
        (None, ["drug A 0.01 mM"]),  # two labels say so: which is meant cannot be known
    ],
)
def test_a_perturbation_is_read_by_what_it_says(label, sayings, many):
    for said in sayings:
        found = OneOf(KIND).parse(join_response(said), many)
        assert (found.value, found.failure) == (label, "" if label else "unknown_label"), said


def test_where_labels_are_listed_only_the_order_of_a_combination_is_free():
    few = Vocabulary(GENES, {KIND: ("control", "knockdown KRAS+TP53"), "cell_type": ("CD4+ T", "B")})
    said = few.label(KIND, "knockdown TP53+KRAS"), few.label(KIND, "DMSO"), few.label("cell_type", "T+CD4")
    assert said == ("knockdown KRAS+TP53", None, None)


def table(log_prob):
    """Return a policy that says how likely a response is by the label that is asked about, or answered."""

    def likely(prompt, response, given):
        _, shown, rest = prompt.partition("Perturbation: ")
        label = rest.split("\n")[0] if shown else response.split("answer>")[1][:-2]
        return [log_prob.get(label, -5.0)]

    return Saying(log_prob=likely)


def config_for(tmp_path, vocabulary, name, reward="posterior", **settings):
    vocabulary.save(tmp_path / "vocabulary.json")
    Profiles(GENES, {}).save(tmp_path / "profiles.npz")
    tasks = {name: {"pair": name, "reward": reward, **settings}}
    Config.read({"tasks": tasks, "profiles": "profiles.npz"}).save(tmp_path / "cellduality.json")
    return Config.load(tmp_path / "cellduality.json")


def scorer_for(*given, **settings):
    return Scorer(config_for(*given, **settings))


@pytest.mark.parametrize("negatives", [None, 3])
def test_an_answer_is_held_against_the_groups_answers_and_seeded_negatives(negatives, cell, many, tmp_path):
    """Three answers that are all likelier than any label drawn at random have to share: none of them gets it all."""
    scorer, example = scorer_for(tmp_path, many, IDENTIFY, negatives=negatives), row(IDENTIFY, cell)
    likely = dict(zip(many.labels[KIND][5000:5003], (0.0, -1.0, -2.0), strict=True))
    policy, count = table(likely), negatives or NEGATIVES
    texts = [TASKS[IDENTIFY].answer_response(label) for label in (*likely, *likely)]
    scores = roll(scorer, example, [*texts, "nothing", join_response("drug none")], policy)
    total = sum(map(math.exp, likely.values())) + count * math.exp(-5.0)
    expected = [math.exp(value) / total for value in likely.values()]
    assert [score.similarity for score in scores] == pytest.approx([*expected, *expected, 0, 0])
    assert len(set(policy.prompts)) == len(policy.prompts) == count + len(likely)
    again = table(likely)
    roll(scorer_for(tmp_path, many, IDENTIFY, negatives=negatives), example, texts, again)
    assert set(again.prompts) == set(policy.prompts), "the same negatives in every process"


@pytest.mark.parametrize(("name", "reward"), [(RESPONSE, "posterior"), (IDENTIFY, "consistency")])
def test_labels_are_chosen_among_the_label_and_its_rivals(name, reward, cell, many, tmp_path):
    scorer, example = scorer_for(tmp_path, many, name, reward, hidden=1.0), row(name, cell, hidden=1.0)
    policy = table({"cytokine IFN-beta": 0.0})
    scores = roll(scorer, example, [TASKS[name].answer_response(example.gold)] * 2, policy)
    assert [len(choices) for *_, choices in policy.scored] == [NEGATIVES + 1]
    assert scores[0].similarity == pytest.approx(1 / (1 + NEGATIVES * math.exp(-5.0)))


def test_what_counts_labels_bounds_them_past_the_bound_alone(cell, vocabulary, many, tmp_path):
    policy, rows = table({}), [row(IDENTIFY, cell)]
    scorer, example = scorer_for(tmp_path, vocabulary, RESPONSE, negatives=1), row(RESPONSE, cell)
    roll(scorer, example, [TASKS[RESPONSE].answer_response(cell.genes)], policy)
    [(*_, choices)] = policy.scored
    assert len(choices) == len(vocabulary.labels[KIND]), "listed sets are compared as ever"
    [case] = make_cases(TASKS[IDENTIFY], rows, many, AuditSettings(), np.random.default_rng(0))
    assert len({answer for _, answer in case.candidates}) == NEGATIVES + 1, "only so many wrong ones are audited"
    assert vocabulary.longest(KIND) == vocabulary.labels[KIND]
    assert len(many.longest(KIND)) == 16
    assert max(many.labels[KIND], key=len) in many.longest(KIND)


def test_what_holds_numbers_for_each_label_is_not_made_of_too_many(cell, many, tmp_path):
    tasks = [TASKS[IDENTIFY], TASKS[RESPONSE]]
    asked = {"asked": lambda task, cell: True}
    assert fit_profiles([cell], [], tasks, screen_of(TABLED), **asked).by_kind[KIND].weights.shape[0] == TABLED
    assert fit_profiles([cell], [], tasks, many, **asked).by_kind == {}
    with refused("no-profiles"):
        scorer_for(tmp_path, many, IDENTIFY, "profile")
    teacher, example = RuleTeacher([cell], many), row(IDENTIFY, cell)
    with refused("too-many-labels"):
        teacher.write(Question(TASKS[IDENTIFY], "primal", example, 0, example.gold, prompts(many, cell)[0]), 0)
    config = config_for(tmp_path, many, IDENTIFY)
    assert Panel(config, IDENTIFY, votes=8, judge="configured")
    with refused("too-many-labels"):
        Panel(config, IDENTIFY, votes=0, judge="configured")
