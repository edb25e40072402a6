"""Answers kept in a file while a model is asked: what was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellduality_plugin.files import AppendLog
from cellduality_plugin.policies.sharded import Decoder, Request


def request_key(request: Request) -> str:
    """Return 32 hex digits that name what is asked; a greedy request has no randomness, so its seed does not count."""
    content = [request.prompt, request.temperature, request.seed if request.temperature else None]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


class AnswerCache(AppendLog):
    """A file of answers by key, one batch a line, behind a first line that names what they were made from.

    ``made_from`` is all that can change an answer: a file that was made from anything else is started anew. A killed
    process loses the batch it was waiting for and no other. The file is removed at the end if nothing was kept.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any]) -> None:
        super().__init__(path)
        self._found: dict[str, str | None] = {}
        lines = self.lines()
        if next(lines, b"").rstrip() == (header := _line(made_from)):
            for line in lines:
                self._found.update(_batch(line))
        else:
            self.clear()
            self.append(header)
        self._wanted = bool(self._found)  # whether the file holds an answer that anyone may ask for again

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> str | None:
        return self._found[key]

    def take(self, key: str) -> str | None:
        """Return an answer and forget it here; it stays in the file."""
        return self._found.pop(key)

    def add(self, batch: Mapping[str, str | None]) -> None:
        """Keep the answers of one batch, all or none."""
        self.append(_line(batch))
        self._found.update(batch)
        self._wanted = True

    def discard(self) -> None:
        """Remove the file at the end: what was kept is not needed any more."""
        self._wanted = False

    def close(self) -> None:
        """Let other processes ask."""
        if not self._wanted:
            self.path.unlink(missing_ok=True)
        super().close()


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _batch(line: bytes) -> dict[str, str | None]:
    """Return the answers in a line, none if it is no batch."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    whole = isinstance(content, dict) and all(text is None or isinstance(text, str) for text in content.values())
    return content if whole else {}


class CachedDecoder:
    """A decoder that asks each thing once, ``batch`` at a time, and keeps the answers.

    Which requests share a batch follows from the requests alone, not their order nor an interruption: in bfloat16 that
    can matter. ``name`` is the checkpoint's, for the progress bar; empty for no bar.
    """

    def __init__(self, decoder: Decoder, cache: AnswerCache, batch: int, name: str = "") -> None:
        self._decoder, self._cache, self._batch, self._name = decoder, cache, batch, name

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        from tqdm import tqdm

        keys = [request_key(request) for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        order = sorted(distinct)
        # The supervisor of a recipe shows what stands behind a name in brackets.
        with tqdm(total=len(order), desc=f"[{self._name}] {title}", disable=not self._name) as bar:
            for start in range(0, len(order), self._batch):
                chosen = order[start : start + self._batch]
                if missing := [key for key in chosen if key not in self._cache]:
                    answers = self._decoder.generate([distinct[key] for key in missing], title)
                    self._cache.add(dict(zip(missing, answers, strict=True)))
                bar.update(len(chosen))
        return [self._cache[key] for key in keys]
