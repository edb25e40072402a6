from __future__ import annotations

import os
import stat

import pytest

from data_prep.whole_folder import whole_folder
from tests.refused import refused


def test_files_arrive_together_and_others_stay(tmp_path):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    (out / "old").write_text("old")
    with whole_folder(out) as folder:
        (folder / "new").write_text("new")
        os.chmod(folder / "new", 0o600)
        assert not (out / "new").exists()
    assert sorted(path.name for path in out.iterdir()) == ["new", "old"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((out / "new").stat().st_mode) == 0o666 & ~umask
    with pytest.raises(KeyboardInterrupt), whole_folder(out) as folder:
        (folder / "old").write_text("new")
        raise KeyboardInterrupt
    assert (out / "old").read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with refused("unwritable-file"), whole_folder(tmp_path / "out") as folder:
        (folder / "rows").write_text("new")
    assert (tmp_path / "out").read_text() == "a file"
