"""Files that R writes, made here by a writer of the tests.

The reader was held against files of real R: of those in XDR that rdata 1.1.0 is tested on it reads all but functions,
environments and file handles, with the values that an earlier, fuller version read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.loading.r_data import read_r
from tests.refused import refused

FRAME = pd.DataFrame(
    {"kind": pd.Categorical(["B", None, "T"], categories=["T", "B"]), "n": [1.5, 2.0, 3.0], "name": ["x", None, "ñ"]},
    index=["c1", "c2", "c3"],
)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_packing_and_version_is_read(save_r, pack, version):
    path = save_r("a.rda", pack, version, frame=FRAME, more={"numbers": np.arange(3), "nothing": None, "frame": FRAME})
    saved = read_r(path, lambda saved: saved)
    for frame in (saved["frame"], saved["more"]["frame"]):
        assert frame["kind"].texts() == ["B", "", "T"]
        assert frame["n"].value.tolist() == [1.5, 2.0, 3.0]
        assert frame["name"].texts() == ["x", "", "ñ"]
        assert frame["row.names"].texts() == ["c1", "c2", "c3"]
    assert saved["more"]["numbers"].texts() == ["0", "1", "2"]
    assert saved["more"]["nothing"].value is None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_sparse_matrix_comes_back(save_r, sparse, data):
    rows, columns = data.draw(st.lists(NAMES, min_size=1)), data.draw(st.lists(NAMES, min_size=1))
    values = np.array(data.draw(st.lists(st.integers(0, 3), min_size=(n := len(rows) * len(columns)), max_size=n)))
    values = values.reshape(len(rows), len(columns))
    path = save_r("matrix.rda", matrix=sparse(values, rows, columns))
    found, *names = read_r(path, lambda saved: saved["matrix"].matrix())
    assert found.toarray().tolist() == values.tolist()
    assert names == [rows, columns]


def test_a_plain_matrix_is_read_by_columns(r_writer, tmp_path):
    writer = r_writer()
    writer.integers(2 | 1 << 10)
    writer.symbol("m")
    names = [np.array(["r1", "r2"], dtype=object), np.array(["c1", "c2", "c3"], dtype=object)]
    writer.item(np.arange(6.0), {"dim": np.array([2, 3]), "dimnames": names})
    writer.integers(254)
    (tmp_path / "m.rda").write_bytes(writer.content)
    found, rows, columns = read_r(tmp_path / "m.rda", lambda saved: saved["m"].matrix())
    assert scipy.sparse.issparse(found)
    assert found.toarray().tolist() == [[0, 2, 4], [1, 3, 5]]
    assert (rows, columns) == (["r1", "r2"], ["c1", "c2", "c3"])


@pytest.mark.parametrize(
    ("name", "state", "found"),
    [
        ("compact_intseq", np.array([3.0, 5.0, 1.0]), ["5", "6", "7"]),
        ("wrap_string", [np.array(["a", "b"], dtype=object), np.array([0, 0])], ["a", "b"]),
    ],
)
def test_vectors_that_r_tells_how_to_make(r_writer, tmp_path, name, state, found):
    writer = r_writer(3)
    writer.integers(2 | 1 << 10)
    writer.symbol("v")
    writer.integers(238, 2)
    writer.symbol(name)
    writer.integers(254)
    writer.item(state)
    writer.integers(254, 254)
    (tmp_path / "v.rda").write_bytes(writer.content)
    assert read_r(tmp_path / "v.rda", lambda saved: saved["v"].texts()) == found


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"RDA" + b[3:], lambda b: b"", lambda b: b[:30]])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_damaged_file_is_refused(save_r, pack, damage):
    path = save_r("a.rda", pack, frame=FRAME)
    with refused("not-as-published"):
        read_r(path, lambda saved: saved["other"])
    path.write_bytes(damage(path.read_bytes()))
    with refused("not-as-published"):
        read_r(path, lambda saved: saved["frame"])
