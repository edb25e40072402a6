from __future__ import annotations

import numpy as np
import pytest

from data_prep.loading import draft
from data_prep.loading.draft import read_matrix, read_rows
from tests.refused import refused


@pytest.fixture
def read(tmp_path):
    def from_text(content: bytes, name: str = "table"):
        (tmp_path / name).write_bytes(content)
        values, cells, genes = read_matrix(tmp_path / name, ",")
        return list(cells), list(genes), values.toarray().tolist()

    return from_text


@pytest.mark.parametrize("block", [1, 20_000_000])
@pytest.mark.parametrize(
    "content",
    [
        b"gene,a,b\nx,1,2\ny,0,3\n",
        b"a,b\nx,1,2\ny,0,3\n",
        b"gene,a,b\r\nx,1,2\r\ny,0,3",
        b'"","a","b"\n"x",1,2\n"y",0,3\n',
    ],
)
def test_genes_by_cells_come_out_as_cells_by_genes(read, monkeypatch, content, block):
    monkeypatch.setattr(draft, "BLOCK_VALUES", block)
    assert read(content) == (["a", "b"], ["x", "y"], [[1, 0], [2, 3]])
    assert read(content.replace(b"x", b"NA")) == (["a", "b"], ["NA", "y"], [[1, 0], [2, 3]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"gene,a,b\n",
        b"gene,a,b\nx,1,2\ny,0\n",
        b"gene,a,b\nx,1,2\ny,0,3,4\n",
        b"gene,a,b,c\nx,1,2\n",
        b"gene,a,b\nx,1,NA\n",
        b"gene,a,b\nx,1,-2\n",
        b"gene,a,b\nx,1,inf\n",
        b"gene,a,b\nx\xe9,1,2\n",
        b"\x1f\x8b\x08\x00broken",
    ],
)
def test_anything_else_is_refused(read, tmp_path, content):
    name = "table.gz" if content[:1] == b"\x1f" else "table"
    with refused("not-as-published") as error:
        read(content, name)
    assert error.value.where == str(tmp_path / name)


def test_some_lines_and_columns_can_be_read_alone(tmp_path):
    (tmp_path / "table").write_text("h\tA\tB\nx\tid\t1\t2\t3\t4\ny\tid\t5\t6\t7\t8\nspike\tid\t9\t9\t9\t9\n")
    values, _, genes = read_matrix(tmp_path / "table", "\t", names=2, columns=slice(2, None), rows=2)
    assert list(genes) == ["x", "y"]
    assert np.array_equal(values.toarray(), [[3, 7], [4, 8]])


def test_small_tables_keep_the_last_of_columns_with_one_name(tmp_path):
    (tmp_path / "table").write_text("name\tREF\tREF\na\t1\t2\n")
    assert read_rows(tmp_path / "table", "\t") == [{"name": "a", "REF": "2"}]
