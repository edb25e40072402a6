from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.run_progress import Progress
from cellduality_plugin.policies.cache import AnswerCache, CachedDecoder, request_key
from cellduality_plugin.policies.offline import Request

MADE_FROM = {"model": "abc", "settings": {"seed": 1}}


class Echo:
    """Says a question again, and nothing to "?"; dies of the batch after the last that it may answer."""

    def __init__(self, batches: int = 1000) -> None:
        self.batches = batches
        self.asked: list[list[str]] = []

    def generate(self, requests, title):
        if len(self.asked) == self.batches:
            raise KeyboardInterrupt
        self.asked.append([request.prompt for request in requests])
        return [None if r.prompt == "?" else f"{r.prompt} {r.seed if r.temperature else 'said'}" for r in requests]


def questions(*prompts: str, temperature: float = 0.0) -> list[Request]:
    return [Request(prompt, temperature, place) for place, prompt in enumerate(prompts)]


def ask(path: Path, decoder: Echo, requests, made_from=MADE_FROM, batch: int = 2):
    with AnswerCache(path, made_from) as kept:
        return CachedDecoder(decoder, kept, batch).generate(requests, "primal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "SFT.partial"


def test_answers_come_in_the_order_of_the_questions(path: Path) -> None:
    echo = Echo()
    told = ask(path, echo, questions("a", "b", "?", "c", "d"))
    assert told == ["a said", "b said", None, "c said", "d said"]
    assert sorted(map(len, echo.asked)) == [1, 2, 2]


def test_one_question_is_asked_once_but_every_draw_is_its_own(path: Path) -> None:
    echo = Echo()
    assert ask(path, echo, questions("a", "b", "a")) == ["a said", "b said", "a said"]
    assert sorted(prompt for batch in echo.asked for prompt in batch) == ["a", "b"]
    drawn = ask(path, echo, questions("a", "b", "a", temperature=1.0))
    assert drawn == ["a 0", "b 1", "a 2"]


def test_who_shares_a_batch_does_not_depend_on_the_order_of_questions(tmp_path: Path) -> None:
    forth, back = Echo(), Echo()
    requests = questions(*"abcdefg", temperature=1.0)
    one = ask(tmp_path / "one", forth, requests)
    other = ask(tmp_path / "other", back, requests[::-1])
    assert one == other[::-1]
    assert forth.asked == back.asked


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_what_was_answered_before_the_end_is_not_asked_again(batches: int, path: Path) -> None:
    requests = questions(*"abcdefg")
    whole = Echo()
    expected = ask(path.with_name("whole"), whole, requests)
    first, second = Echo(batches), Echo()
    with pytest.raises(KeyboardInterrupt):
        ask(path, first, requests)
    assert path.exists() == (batches > 0)
    assert ask(path, second, requests) == expected
    assert first.asked + second.asked == whole.asked, "the same batches, too"


def test_a_torn_line_is_asked_again_and_so_is_what_follows(path: Path) -> None:
    requests = questions(*"abcdef")
    expected = ask(path, Echo(), requests)
    header, *batches = path.read_bytes().splitlines(keepends=True)
    assert len(batches) == 3
    for torn, again in ((batches[2][:-1], 1), (batches[2][:9], 1), (b"[1]\n" + batches[2], 1), (b'{"a": 1}\n', 1)):
        path.write_bytes(header + b"".join(batches[:2]) + torn)
        echo = Echo()
        assert ask(path, echo, requests) == expected
        assert len(echo.asked) == again
        assert path.read_bytes() == header + b"".join(batches), "what stood there is mended"


def test_answers_of_anything_else_are_not_used(path: Path) -> None:
    requests = questions("a", "b")
    ask(path, Echo(), requests)
    for made_from in ({**MADE_FROM, "model": "def"}, {**MADE_FROM, "settings": {"seed": 2}}, MADE_FROM):
        echo = Echo()
        ask(path, echo, requests, made_from)
        assert len(echo.asked) == 1
        assert json.loads(path.read_bytes().splitlines()[0]) == made_from


def test_two_at_once_are_told(path: Path) -> None:
    with AnswerCache(path, MADE_FROM), pytest.raises(CellDualityError, match=r"another evaluation .*SFT\.partial"):
        AnswerCache(path, MADE_FROM)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CellDualityError, match=r"cannot write: .*run"):
        AnswerCache(tmp_path / "run" / "SFT.partial", MADE_FROM)


class Full:
    """A file on a disk that has room for half a line."""

    def __init__(self, file) -> None:
        self.file = file

    def write(self, line: bytes) -> None:
        self.file.write(line[: len(line) // 2])
        self.file.flush()
        raise OSError(28, "No space left on device")

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_a_disk_that_fills_up_leaves_no_half_line(path: Path, monkeypatch) -> None:
    requests = questions("a", "b", "c")
    with AnswerCache(path, MADE_FROM) as kept:
        kept.add({request_key(requests[0]): "a 0"})
        before = path.read_bytes()
        monkeypatch.setattr(kept, "_file", Full(kept._file))
        with pytest.raises(CellDualityError, match="No space left"):
            kept.add({request_key(requests[1]): "b 1"})
    assert path.read_bytes() == before


def test_what_is_discarded_is_gone(path: Path) -> None:
    with AnswerCache(path, MADE_FROM) as kept:
        kept.add({"a": "b"})
        kept.discard()
    assert not path.exists()


def test_progress_is_shown_in_the_words_that_the_recipes_show(path: Path, capsys) -> None:
    progress = Progress()
    with AnswerCache(path, MADE_FROM) as kept:
        CachedDecoder(Echo(), kept, 2, "GRPO").generate(questions(*"abcde"), "primal")
    for line in capsys.readouterr().err.replace("\r", "\n").splitlines():
        progress.feed(line)
    assert progress.text == "[GRPO] primal 5/5"
