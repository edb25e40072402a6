"""How a question becomes tokens: the one place, for rollouts, checks and evaluation alike."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

THINK = "<think>"


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Return the token ids of one user turn, made as OpenRLHF makes them for a rollout.

    The chat template is applied as text and tokenised without special tokens: the template writes its own.
    """
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text=text, add_special_tokens=False)["input_ids"])


def response_ids(tokenizer: Any, response: str) -> list[int]:
    """Return the token ids of a response as they follow :func:`render`: a trace that the template opens is open."""
    if response.startswith(THINK) and _opens_trace(tokenizer, tokenizer.chat_template):
        response = response[len(THINK) :]
    return list(tokenizer(response, add_special_tokens=False)["input_ids"]) if response else []


@lru_cache(maxsize=16)
def _opens_trace(tokenizer: Any, template: str) -> bool:
    chat = [{"role": "user", "content": ""}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)).rstrip().endswith(THINK)


def decode(tokenizer: Any, tokens: Iterable[int]) -> str:
    """Return the text of a response without its begin, end and pad tokens; others stay, for tags may be special."""
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return str(tokenizer.decode([token for token in tokens if token not in ends], skip_special_tokens=False))


def token_count(tokenizer: Any, text: str) -> int:
    """Return how many tokens ``text`` has inside a turn."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0
