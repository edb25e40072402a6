from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellduality_plugin.cell_sentences import hide_genes, name_order, rank_genes, sentence

expressions = arrays(np.float32, st.integers(0, 30), elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]))


@given(expression=expressions, top=st.integers(1, 35), seed=st.integers(0, 100))
def test_ranking_is_the_sort_it_stands_for(expression, top, seed):
    names = [f"G{i}" for i in np.random.default_rng(seed).permutation(len(expression))]
    ranked = rank_genes(expression, np.arange(len(expression)), name_order(names), top)
    plain = sorted((-value, name) for value, name in zip(expression, names, strict=True) if value > 0)[:top]
    assert [names[column] for column in ranked] == [name for _, name in plain]


def test_a_sparse_row_ranks_like_a_dense_one():
    dense = np.array([0.0, 3.0, 0.0, 1.0, 2.0])
    ties = name_order(list("ABCDE"))
    sparse = rank_genes(dense[[1, 3, 4]], np.array([1, 3, 4]), ties, 2)
    assert sparse.tolist() == rank_genes(dense, np.arange(5), ties, 2).tolist() == [1, 4]


@given(count=st.integers(2, 80), fraction=st.floats(0, 1), seed=st.integers(0, 100))
def test_hiding_parts_the_cell_and_keeps_order(count, fraction, seed):
    genes = tuple(f"G{i:03d}" for i in range(count))
    observed, hidden = hide_genes(genes, fraction, np.random.default_rng(seed))
    assert observed
    assert hidden
    assert tuple(sorted(observed + hidden)) == genes
    assert list(observed) == sorted(observed)
    assert list(hidden) == sorted(hidden)


def test_hiding_is_seeded():
    genes = tuple(f"G{i}" for i in range(64))
    assert hide_genes(genes, 0.25, np.random.default_rng(7)) == hide_genes(genes, 0.25, np.random.default_rng(7))
    assert hide_genes(genes, 0.25, np.random.default_rng(7)) != hide_genes(genes, 0.25, np.random.default_rng(8))


@pytest.mark.parametrize("genes", [(), ("LYZ",), ("LYZ", "CD74")])
def test_a_sentence_splits_back_into_its_genes(genes):
    assert tuple(sentence(genes).split()) == genes
