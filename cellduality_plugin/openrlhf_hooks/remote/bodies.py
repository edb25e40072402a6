"""The body of a request for rewards: bounded and read strictly, before anybody is asked."""

from __future__ import annotations

import json
from typing import Any

MAX_ITEMS = 1024
_FIELDS = ("query", "prompts", "labels")


class Malformed(Exception):
    """A body that is no request for rewards; the message names the field."""


def read_items(body: bytes) -> list[tuple[str, str, str]]:
    """Return (query, prompt, label) of each rollout in the body of a request.

    Raises
    ------
    Malformed
        If the body is not JSON, a field is missing or no list of texts, or the lists differ in length.

    Examples
    --------
    >>> read_items(b'{"query": ["pr"], "prompts": ["p"], "labels": ["l"]}')
    [('pr', 'p', 'l')]
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        raise Malformed("body: not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise Malformed("body: not an object with query, prompts and labels")
    fields = [_texts(content, name) for name in _FIELDS]
    for name, texts in zip(_FIELDS, fields, strict=True):
        if len(texts) != len(fields[0]):
            raise Malformed(f"{name}: {len(texts)} texts, and {len(fields[0])} in query")
    return list(zip(*fields, strict=True))


def _texts(content: dict[str, Any], name: str) -> list[str]:
    if name not in content:
        raise Malformed(f"{name}: missing")
    texts = content[name]
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_ITEMS:
        raise Malformed(f"{name}: not a list of 1 to {MAX_ITEMS} texts")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise Malformed(f"{name}[{number}]: not a text")
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a character, which JSON can write and no tokenizer reads
            raise Malformed(f"{name}[{number}]: not Unicode") from None
    return texts
