"""From the body of a reply to what was asked for: whatever it says, nothing but a PolicyError is raised.

The causes are ``"malformed"``, and those that a function names.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from cellduality_plugin.policies.base import PolicyError

Tokens: TypeAlias = list[int]

CLAMPED = -9999.0
"""What vLLM's server writes for minus infinity, which JSON has no word for."""


def read_text(body: bytes) -> tuple[str, Tokens | None]:
    """Return the text of the first choice of a completion, and its tokens if the endpoint tells them.

    Examples
    --------
    >>> read_text(b'{"choices": [{"text": "B", "token_ids": [7]}]}')
    ('B', [7])
    """
    choice = _choice(body)
    tokens = choice.get("token_ids")
    if tokens is not None and not (isinstance(tokens, list) and all(map(_whole, tokens))):
        raise PolicyError("malformed")
    return _text(choice.get("text")), tokens


def read_chat(body: bytes) -> str:
    """Return the text of the first choice of a chat completion, without the reasoning that some servers part from it.

    The reasoning would not cross to the dual anyway.
    """
    message = _choice(body).get("message")
    return _text(message.get("content") if isinstance(message, dict) else None)


def read_log_probs(body: bytes, tokens: Tokens, start: int) -> list[float]:
    """Return the natural log-probability of each token from number ``start`` on, as vLLM's ``prompt_logprobs`` tell it.

    ``tokens`` are those that were sent: prompt, then response. The causes are ``"no_log_probs"`` if the endpoint tells
    none, and ``"not_a_number"`` if what it tells is none.

    Examples
    --------
    >>> body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"5": {"logprob": -0.5}}]}]}'
    >>> read_log_probs(body, [4, 5], 1)
    [-0.5]
    """
    found = _choice(body).get("prompt_logprobs")
    if found is None:
        raise PolicyError("no_log_probs")
    if not isinstance(found, list) or len(found) != len(tokens):
        raise PolicyError("malformed")
    return [_log_prob(at, token) for at, token in zip(found[start:], tokens[start:], strict=True)]


def read_context(body: bytes, model: str) -> int | None:
    """Return the context length of ``model`` in tokens, as the list of models tells it; None if it does not.

    The cause is ``"no_such_model"`` if the list does not hold it.

    Examples
    --------
    >>> read_context(b'{"data": [{"id": "toy", "max_model_len": 256}]}', "toy")
    256
    """
    models = read_object(body).get("data")
    if not isinstance(models, list):
        raise PolicyError("malformed")
    for entry in models:
        if isinstance(entry, dict) and entry.get("id") == model:
            length = entry.get("max_model_len")
            return int(length) if _whole(length) and length else None
    raise PolicyError("no_such_model")


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        raise PolicyError("malformed") from None
    if not isinstance(content, dict):
        raise PolicyError("malformed")
    return content


def _choice(body: bytes) -> dict[str, Any]:
    choices = read_object(body).get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise PolicyError("malformed")
    return choices[0]


def _log_prob(at: Any, token: int) -> float:
    entry = at.get(str(token)) if isinstance(at, dict) else None
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError("malformed")
    # NaN fails the comparison as well. Minus infinity is told as the engine itself tells it.
    if not -1e308 <= value <= 1e-3:
        raise PolicyError("not_a_number")
    return float(value) if value > CLAMPED else float("-inf")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("malformed")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
