"""From the body of a chat completion to a reply: whatever an endpoint sends, nothing but a TeacherFault is raised."""

from __future__ import annotations

import json
from typing import Any

from cellduality_plugin.parsing import MAX_CHARACTERS
from data_prep.traces.asking.faults import TeacherFault
from data_prep.traces.candidates import Reply

CHARACTERS_A_TOKEN = 3
"""For endpoints that keep no count of tokens."""


def read_reply(body: bytes, prompt_characters: int) -> Reply:
    """Return the reply in the body of a response.

    No choice, or one without text, is a reply without text: it was paid for, and the filters reject it. A text of more
    than MAX_CHARACTERS characters is cut one character behind them, so that its reader sees that it is too long. The
    reasoning that some servers part from the text is put back in front of it.

    Parameters
    ----------
    body
        A chat completion as JSON.
    prompt_characters
        How long the prompt was; serves to guess its tokens where the body does not tell.

    Raises
    ------
    TeacherFault
        If the body is not a chat completion.

    Examples
    --------
    >>> body = b'{"choices": [{"message": {"content": "<answer>B</answer>"}, "finish_reason": "stop"}]}'
    >>> read_reply(body, 30)
    Reply(text='<answer>B</answer>', prompt_tokens=10, completion_tokens=6, finish='stop')
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise TeacherFault("malformed", "not JSON") from None
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list):
        raise TeacherFault("malformed", error_message(content) or "no choices")
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    text, finish = _text(choice.get("message")), choice.get("finish_reason")
    usage = content["usage"] if isinstance(content.get("usage"), dict) else {}
    return Reply(
        text=text[: MAX_CHARACTERS + 1],
        prompt_tokens=_count(usage.get("prompt_tokens"), prompt_characters),
        completion_tokens=_count(usage.get("completion_tokens"), len(text)),
        finish=finish[:40] if isinstance(finish, str) else "",
    )


def error_message(body: Any) -> str:
    """Return what an error body says, in one bounded line; empty if it says nothing.

    Examples
    --------
    >>> error_message({"error": {"message": "model is overloaded", "type": "server_error"}})
    'model is overloaded'
    """
    for _ in range(3):
        if isinstance(body, dict):
            body = body.get("error") or body.get("message") or body.get("detail")
    return " ".join(body.split())[:200] if isinstance(body, str) else ""


def _text(message: Any) -> str:
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and text and "<think>" not in text:
        return f"<think>{reasoning}</think>{text}"
    return text


def _count(value: Any, characters: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 10**9 else characters // CHARACTERS_A_TOKEN
