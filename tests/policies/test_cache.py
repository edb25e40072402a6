from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellduality_plugin.openrlhf_hooks.run_progress import Progress
from cellduality_plugin.policies.cache import AnswerCache, CachedDecoder
from cellduality_plugin.policies.sharded import Request

MADE_FROM = {"model": "abc", "settings": {"seed": 1}}


class Echo:
    """Says a question again, and nothing to "?"; dies of the batch after the last that it may answer."""

    def __init__(self, batches: int = 1000) -> None:
        self.batches, self.asked = batches, []

    def generate(self, requests, title):
        if len(self.asked) == self.batches:
            raise KeyboardInterrupt
        self.asked.append([request.prompt for request in requests])
        return [None if r.prompt == "?" else f"{r.prompt} {r.seed if r.temperature else 'said'}" for r in requests]


def questions(*prompts: str, temperature: float = 0.0) -> list[Request]:
    return [Request(prompt, temperature, place) for place, prompt in enumerate(prompts)]


def ask(path: Path, decoder: Echo, requests, made_from=MADE_FROM, name: str = ""):
    with AnswerCache(path, made_from) as cache:
        return CachedDecoder(decoder, cache, 2, name).generate(requests, "primal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "SFT.partial"


def test_answers_come_in_order_one_question_is_asked_once_and_every_draw_is_its_own(path: Path) -> None:
    echo = Echo()
    said = ["a said", "b said", None, "c said", "a said", "d said"]
    assert ask(path, echo, questions("a", "b", "?", "c", "a", "d")) == said
    assert sorted(map(len, echo.asked)) == [1, 2, 2]
    assert ask(path, echo, questions("a", "b", "a", temperature=1.0)) == ["a 0", "b 1", "a 2"]


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_what_was_answered_before_the_end_is_not_asked_again_and_batches_hang_on_the_questions_alone(
    batches: int, path: Path
) -> None:
    requests, whole, first, second = questions(*"abcdefg"), Echo(), Echo(batches), Echo()
    expected = ask(path.with_name("whole"), whole, requests[::-1])[::-1]
    with pytest.raises(KeyboardInterrupt):
        ask(path, first, requests)
    assert path.exists() == (batches > 0)
    assert ask(path, second, requests) == expected
    assert first.asked + second.asked == whole.asked


@pytest.mark.parametrize("torn", [slice(None, 9), b"[1]\n", b'{"a": 1}\n', b""])
def test_a_line_that_is_torn_or_no_batch_is_asked_again(torn, path: Path) -> None:
    requests, echo = questions(*"abcdef"), Echo()
    expected = ask(path, Echo(), requests)
    *kept, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept) + (last[torn] if isinstance(torn, slice) else torn))
    assert ask(path, echo, requests) == expected
    assert len(echo.asked) == 1


def test_answers_of_anything_else_are_not_used(path: Path) -> None:
    for made_from in (MADE_FROM, {**MADE_FROM, "model": "def"}, {**MADE_FROM, "settings": {"seed": 2}}, MADE_FROM):
        echo = Echo()
        ask(path, echo, questions("a", "b"), made_from)
        assert len(echo.asked) == 1
        assert json.loads(path.read_bytes().splitlines()[0]) == made_from
    with AnswerCache(path, MADE_FROM) as cache:
        cache.discard()
    assert not path.exists()


def test_progress_is_shown_in_the_words_that_the_recipes_show(path: Path, capsys) -> None:
    progress = Progress()
    ask(path, Echo(), questions(*"abcde"), name="GRPO")
    for line in capsys.readouterr().err.replace("\r", "\n").splitlines():
        progress.feed(line)
    assert progress.text == "[GRPO] primal 5/5"
