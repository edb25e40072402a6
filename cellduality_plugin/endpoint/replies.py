"""From the body of an endpoint's reply to what was asked for: whatever it says, nothing but a PolicyError is raised."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from cellduality_plugin.policy import PolicyError

Tokens: TypeAlias = list[int]

CLAMPED = -9999.0
"""What vLLM's server writes for minus infinity, which JSON has no word for."""


def read_text(body: bytes) -> tuple[str, Tokens | None]:
    """Return the text of the first choice of a completion, and its tokens if the endpoint tells them.

    Raises
    ------
    PolicyError
        If the body is no completion: ``"malformed"``.

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
    """Return the text of the first choice of a chat completion.

    The reasoning that some servers part from the text is left out: it would not cross anyway.

    Raises
    ------
    PolicyError
        If the body is no chat completion: ``"malformed"``.
    """
    message = _choice(body).get("message")
    return _text(message.get("content") if isinstance(message, dict) else None)


def read_log_probs(body: bytes, tokens: Tokens, start: int) -> list[float]:
    """Return the natural log-probability of each token from number ``start`` on, as vLLM's ``prompt_logprobs`` tell it.

    Parameters
    ----------
    body
        The completion of a prompt that was sent as ``tokens``.
    tokens
        All of them: prompt, then response.
    start
        The first token of the response.

    Raises
    ------
    PolicyError
        ``"no_log_probs"`` if the endpoint tells none, ``"not_a_number"`` if what it tells is none, ``"malformed"``.

    Examples
    --------
    >>> body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"5": {"logprob": -0.5}}]}]}'
    >>> read_log_probs(body, [4, 5], 1)
    [-0.5]
    """
    told = _choice(body).get("prompt_logprobs")
    if told is None:
        raise PolicyError("no_log_probs")
    if not isinstance(told, list) or len(told) != len(tokens):
        raise PolicyError("malformed")
    return [_log_prob(at, token) for at, token in zip(told[start:], tokens[start:], strict=True)]


def read_context(body: bytes, model: str) -> int | None:
    """Return how many tokens ``model`` reads and writes together, as the list of models tells; None if it does not.

    Raises
    ------
    PolicyError
        ``"no_such_model"`` if the list does not hold it, ``"malformed"`` if it is no list.

    Examples
    --------
    >>> read_context(b'{"data": [{"id": "toy", "max_model_len": 256}]}', "toy")
    256
    """
    listed = _object(body).get("data")
    if not isinstance(listed, list):
        raise PolicyError("malformed")
    for entry in listed:
        if isinstance(entry, dict) and entry.get("id") == model:
            length = entry.get("max_model_len")
            return int(length) if _whole(length) and length else None
    raise PolicyError("no_such_model")


def _log_prob(at: Any, token: int) -> float:
    told = at.get(str(token)) if isinstance(at, dict) else None
    value = told.get("logprob") if isinstance(told, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError("malformed")
    # NaN fails the comparison as well. Minus infinity is told as the engine itself tells it.
    if not -1e308 <= value <= 1e-3:
        raise PolicyError("not_a_number")
    return float(value) if value > CLAMPED else float("-inf")


def _choice(body: bytes) -> dict[str, Any]:
    choices = _object(body).get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise PolicyError("malformed")
    return choices[0]


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        raise PolicyError("malformed") from None
    if not isinstance(content, dict):
        raise PolicyError("malformed")
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("malformed")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
