from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.parsing import MAX_CHARACTERS, MAX_GENES, Genes, OneOf, join_response, split_response
from cellduality_plugin.vocabulary import Vocabulary

WORLD = Vocabulary(genes=("CD3D", "CD74", "LYZ"), labels={"cell_type": ("CD19+ B", "T")})
tagged = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "T", "CD19+ B", "LYZ CD74", " ", "\x00", "é"])
).map("".join)


@pytest.mark.parametrize(
    ("text", "label", "why"),
    [
        ("<think>z</think><answer>T</answer>", "T", "the whole form"),
        ("<answer> T </answer>", "T", "the trace may be missing"),
        ("\n<think></think>\n<answer>cd19+  b</answer>\n", "CD19+ B", "case, spacing and lines do not matter"),
        ("<think>a <b> c</think><answer>T</answer>", "T", "other tags are text"),
        ("z</think><answer>T</answer>", "T", "the chat template may have opened the trace"),
        ("\n\n</think>\n\n<answer>T</answer>", "T", "and it may be empty"),
    ],
)
def test_valid_responses(text, label, why):
    assert OneOf("cell_type").parse(text, WORLD).value == label, why


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "no_answer"),
        ("T", "no_answer"),
        ("<think>T</think>", "no_answer"),
        ("<answer>T", "unclosed"),
        ("<think>z</think><answer>T", "unclosed"),
        ("<answer></answer>", "empty"),
        ("<answer>T</answer><answer>CD19+ B</answer>", "ambiguous"),
        ("<answer>T</answer> or CD19+ B", "ambiguous"),
        ("I say <answer>T</answer>", "ambiguous"),
        ("<answer>T</answer><think>after</think>", "ambiguous"),
        ("<think><answer>T</answer></think>", "ambiguous"),
        ("</answer>T<answer>", "ambiguous"),
        ("z</think></think><answer>T</answer>", "ambiguous"),
        ("z</think> T <answer>T</answer>", "ambiguous"),
        ("<answer>T, CD19+ B</answer>", "unknown_label"),
        ("<answer>CD3D</answer>", "unknown_label"),
        ("<answer>T</answer>" + " " * MAX_CHARACTERS, "too_long"),
    ],
)
def test_invalid_responses_say_why(text, failure):
    answer = OneOf("cell_type").parse(text, WORLD)
    assert (answer.value, answer.failure) == (None, failure)


def test_gene_lists_lose_strangers_and_repeats_but_count_them_and_an_endless_one_is_cut():
    answer = Genes().parse("<answer>LYZ, cd74 B-cell LYZ secret</answer>", WORLD)
    assert answer.value == ("LYZ", "CD74")
    assert (answer.listed, answer.unknown, answer.repeated) == (5, 2, 1)
    answer = Genes().parse("<answer>" + "LYZ " * (MAX_GENES + 5) + "</answer>", WORLD)
    assert answer.listed == MAX_GENES


@pytest.mark.parametrize("field", [OneOf("cell_type"), Genes()])
@given(text=st.one_of(st.text(), tagged))
def test_no_text_raises_a_failure_has_a_reason_and_only_the_vocabulary_crosses(field, text):
    answer = field.parse(text, WORLD)
    assert (answer.value is None) == bool(answer.failure)
    if isinstance(answer.value, str):
        assert answer.value in WORLD.labels["cell_type"]
    elif answer.value is not None:
        assert set(answer.value) <= set(WORLD.genes)
        assert len(set(answer.value)) == len(answer.value)


plain = st.text(st.characters(exclude_characters="<>", exclude_categories=["C", "Z"]), min_size=1)


@given(answer=plain, trace=st.one_of(st.just(""), plain))
def test_splitting_undoes_joining(answer, trace):
    response = split_response(join_response(answer, trace))
    assert (response.answer, response.trace, response.failure) == (answer, trace, "")
