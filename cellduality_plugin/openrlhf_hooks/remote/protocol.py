"""What OpenRLHF posts and reads: bounded and validated strictly, on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr, ValidationError

from cellduality_plugin.groups import Score

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
