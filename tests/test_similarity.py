from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.similarity import rank_biased_overlap, rank_weighted_jaccard, ruzicka

REFERENCE = list("ABCDEFGHIJ")
UNKNOWN = [f"unknown{i}" for i in range(10)]
ranked = st.lists(st.sampled_from([f"G{i}" for i in range(12)]), max_size=15)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (REFERENCE, 1.0),
        (REFERENCE[::-1], 1.0),  # blind to order: the union of the sets is the same
        (REFERENCE[:5], 0.7796),
        (REFERENCE[5:], 0.5),
        (REFERENCE + UNKNOWN, 0.8141),
        (UNKNOWN + REFERENCE, 0.3071),
        ([*REFERENCE[:9], "x"], 0.9340),
        (["D", "E", "F", "G", "x"], 0.4543),
        ([], 0.0),
        (UNKNOWN, 0.0),
    ],
)
def test_rank_weighted_jaccard_gives_the_published_values(candidate, expected):
    assert rank_weighted_jaccard(REFERENCE, candidate) == pytest.approx(expected, abs=5e-5)


def test_rank_weighted_jaccard_is_not_symmetric_and_the_others_see_order():
    assert rank_weighted_jaccard(["D", "E", "F", "G", "x"], REFERENCE) == pytest.approx(0.3192, abs=5e-5)
    assert ruzicka(REFERENCE, REFERENCE[::-1]) == pytest.approx(0.2828, abs=5e-5)
    assert ruzicka(REFERENCE, REFERENCE[5:]) == pytest.approx(0.1414, abs=5e-5)
    top, bottom = ["B", "A", *REFERENCE[2:]], [*REFERENCE[:8], "J", "I"]
    assert rank_biased_overlap(REFERENCE, top) < rank_biased_overlap(REFERENCE, bottom) < 1


@pytest.mark.parametrize("similarity", [rank_weighted_jaccard, ruzicka, rank_biased_overlap])
class TestLawsOfEverySimilarity:
    @given(ours=ranked, theirs=ranked)
    def test_stays_between_zero_and_one(self, similarity, ours, theirs):
        assert 0.0 <= similarity(ours, theirs) <= 1.0

    @given(ours=ranked)
    def test_of_a_list_with_itself_is_one(self, similarity, ours):
        assert similarity(ours, ours) == pytest.approx(1.0)

    @given(ours=ranked, theirs=ranked)
    def test_duplicates_at_the_end_change_nothing_but_ranks_after_them(self, similarity, ours, theirs):
        assert similarity(ours, theirs + theirs) == pytest.approx(similarity(ours, theirs))

    def test_of_disjoint_lists_and_of_an_empty_candidate_is_zero(self, similarity):
        assert similarity(["A"], ["B"]) == similarity(["A"], []) == 0.0
