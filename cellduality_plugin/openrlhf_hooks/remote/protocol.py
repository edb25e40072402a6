"""What OpenRLHF posts and reads, bounded and validated strictly on both sides; and the token of those who may."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr, ValidationError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.scoring import Score

TOKEN_VARIABLE = "CELLDUALITY_TOKEN"
_SHORTEST_TOKEN = 16
MAX_ITEMS = 1024
_Texts = Annotated[list[StrictStr], Field(min_length=1, max_length=MAX_ITEMS)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Numbers = _Number | list[_Number]  # of one rollout, of several


class Malformed(Exception):
    """A body that is no request for rewards, or no reply; the message names the field."""


class _Request(BaseModel):
    query: _Texts
    prompts: _Texts
    labels: _Texts


class _Reply(BaseModel):
    rewards: _Numbers
    scores: _Numbers
    extra_logs: dict[str, _Numbers]


def read_request(body: bytes) -> list[tuple[str, str, str]]:
    """Return (query, prompt, label) of each rollout in the body of a request; Malformed names a wrong field."""
    fields = _read(_Request, body)
    for name, texts in fields.items():
        if len(texts) != len(fields["query"]):
            raise Malformed(f"{name}: {len(texts)} texts, and {len(fields['query'])} in query")
    return list(zip(*fields.values(), strict=True))


def read_reply(body: bytes, rollouts: int) -> dict[str, Any]:
    """Return what a server answered about so many rollouts; Malformed if OpenRLHF could not train on it (None, NaN)."""
    found = _read(_Reply, body)
    for values in (found["rewards"], found["scores"], *found["extra_logs"].values()):
        if (len(values) if isinstance(values, list) else None) != (None if rollouts == 1 else rollouts):
            raise Malformed(f"rewards: not of {rollouts} rollouts")
    return found


def reply(scores: Sequence[Score]) -> dict[str, Any]:
    """Return what OpenRLHF reads: numbers for one rollout, as it asks for them, and lists for several."""
    if len(scores) == 1:
        return {"rewards": scores[0].reward, "scores": scores[0].reward, "extra_logs": dict(scores[0].logs)}
    rewards = [score.reward for score in scores]
    logs = {key: [score.logs[key] for score in scores] for key in scores[0].logs}
    return {"rewards": rewards, "scores": list(rewards), "extra_logs": logs}


def _read(model: type[BaseModel], body: bytes) -> dict[str, Any]:
    try:
        return model.model_validate_json(body).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field, *place = first["loc"] or ("body",)
        raise Malformed(f"{field}{''.join(f'[{part}]' for part in place)}: {first['msg']:.200}") from None


def find_token(host: str) -> tuple[str, bool]:
    """Return (the token, whether it was just made); a CellDualityError if others reach ``host`` without one."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        what = f"{TOKEN_VARIABLE} has to have {_SHORTEST_TOKEN} characters or more, and no blanks"
        raise CellDualityError(what, code="weak-token", hint="set a longer one")
    if not token and not _is_loopback(host):
        what = f"{host} can be reached from other machines, and {TOKEN_VARIABLE} is not set"
        hint = f"set {TOKEN_VARIABLE} for the server and its clients, or listen on 127.0.0.1"
        raise CellDualityError(what, code="no-token", where="--host", hint=hint)
    return (token, False) if token else (secrets.token_urlsafe(24), True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(authorization: str, token: str) -> bool:
    """Return whether an ``Authorization`` header holds the token.

    OpenRLHF's client sends no bearer token; of an address ``http://any:TOKEN@host:port/`` it makes Basic credentials.
    """
    scheme, _, credentials = authorization.partition(" ")
    given = credentials.strip().encode("utf-8", "replace") if scheme.lower() in ("basic", "bearer") else b""
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            given = b""
    return hmac.compare_digest(given, token.encode())
