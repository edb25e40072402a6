"""Settings of the dual: the model that plays it, and how it is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cellduality_plugin.settings import Settings

BACKENDS = ("transformers", "vllm")
"""How a checkpoint is asked: in this process, by an engine, or (:func:`is_address`) behind servers."""


def is_address(backend: str) -> bool:
    """Return whether a backend is the address of a server, or several: ``http://HOST:PORT/v1[,...][#NAME]``."""
    return backend.startswith(("http://", "https://"))


class EndpointSettings(Settings):
    """A model behind OpenAI-compatible endpoints, which share the load; one that fails is passed over for a while.

    Of ``kind`` ``"vllm"`` it is a vLLM server, which is sent and sends token ids and knows the log-probabilities of a
    given text; of ``"chat"`` any chat endpoint, for rewards that generate the dual.
    """

    urls: tuple[str, ...] = Field(min_length=1)  # up to /v1; each has the model
    model: str = Field(min_length=1)  # its name there
    kind: Literal["vllm", "chat"] = "vllm"
    tokenizer: str | None = None  # folder or hub name; None: that of the model that is trained if known, or ``model``
    key_variable: str | None = None  # the environment variable that holds the key; None where none is needed
    concurrency: int = Field(64, ge=1)  # requests under way at once, at all addresses together
    retries: int = Field(6, ge=0)  # how often a request is asked again before it counts as failed
    timeout_seconds: float = Field(60.0, gt=0)  # for one attempt
    max_length: int | None = Field(None, ge=1)  # tokens of prompt and response; None: as the endpoint says (vLLM does)


class DualSettings(Settings):
    """How the dual is asked, and which model plays it.

    The ``player`` is ``"moving"``, the policy that is trained, with the weights that made the rollout, or ``"frozen"``,
    the model at ``endpoint``, which stays as it is. Through a reward server or function it is always the latter.
    """

    temperature: float = Field(0.0, ge=0)  # 0 asks for the most likely reconstruction
    samples: int = Field(1, ge=1)  # reconstructions drawn for an answer; their mean similarity counts
    max_new_tokens: int | None = Field(None, ge=1)  # of a dual response; None: what the context leaves
    timeout_seconds: float = Field(120.0, gt=0)  # then the dual counts as failed: no call may hold up a training step
    player: Literal["moving", "frozen"] = "moving"
    endpoint: EndpointSettings | None = None
    # Of the reasoning traces that what is hidden is scored after (``traces`` of a task). Each draw has a seed of its
    # own, which follows from ``seed``, the dual prompt and the number of the draw.
    trace_temperature: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _can_be_asked(self) -> DualSettings:
        if self.player == "frozen" and self.endpoint is None:
            raise ValueError("a frozen player answers at an endpoint: add endpoint = {urls: [...], model: ...}")
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same: raise it, or set samples to 1")
        return self
