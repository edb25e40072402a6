from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import hide_genes, sentence


@given(count=st.integers(2, 80), fraction=st.floats(0, 1), seed=st.integers(0, 100))
def test_hiding_splits_the_cell_keeps_order_and_is_seeded(count, fraction, seed):
    genes = tuple(f"G{i:03d}" for i in range(count))
    observed, hidden = hide_genes(genes, fraction, np.random.default_rng(seed))
    assert observed
    assert hidden
    assert tuple(sorted(observed + hidden)) == genes
    assert list(observed) == sorted(observed)
    assert list(hidden) == sorted(hidden)
    assert (observed, hidden) == hide_genes(genes, fraction, np.random.default_rng(seed))


@pytest.mark.parametrize("genes", [(), ("LYZ",), ("LYZ", "CD74")])
def test_a_sentence_splits_back_into_its_genes(genes):
    assert tuple(sentence(genes).split()) == genes
