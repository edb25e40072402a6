"""Who plays the dual, and how it is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cellduality_plugin.settings import Settings


class EndpointSettings(Settings):
    """A model behind OpenAI-compatible endpoints.

    Parameters
    ----------
    urls
        Their addresses, up to ``/v1``; each has the model. They share the load, and one that fails is passed over for
        a while.
    model
        Its name there.
    kind
        ``"vllm"``: a vLLM server, which is sent and sends token ids and tells log-probabilities of a given text;
        ``"chat"``: any chat endpoint, for rewards that generate the dual.
    tokenizer
        Folder or hub name; by default the one of the model that is trained, as far as that is known, or else ``model``.
    key_variable
        The environment variable that holds the key; None for endpoints that need none.
    concurrency
        Requests under way at once, at all addresses together.
    retries
        How often a request is asked again before it counts as failed.
    timeout_seconds
        For one attempt.
    max_length
        Tokens of prompt and response together; None for what the endpoint tells (vLLM does).
    """

    urls: tuple[str, ...] = Field(min_length=1)
    model: str = Field(min_length=1)
    kind: Literal["vllm", "chat"] = "vllm"
    tokenizer: str | None = None
    key_variable: str | None = None
    concurrency: int = Field(64, ge=1)
    retries: int = Field(6, ge=0)
    timeout_seconds: float = Field(60.0, gt=0)
    max_length: int | None = Field(None, ge=1)


class DualSettings(Settings):
    """How the dual is asked, and who is.

    Parameters
    ----------
    temperature
        0 asks for the most likely reconstruction.
    samples
        Reconstructions drawn for an answer; their mean similarity counts. More than one need a temperature.
    max_new_tokens
        Longest dual response; None allows what the context leaves.
    timeout_seconds
        After this the dual counts as failed: one stuck call must not hold up a training step.
    player
        ``"moving"``: the policy that is trained, with the weights that made the rollout; ``"frozen"``: the model at
        ``endpoint``, which stays as it is. Through a reward server or function it is always the model at ``endpoint``.
    endpoint
        Where that model answers.
    trace_temperature, seed
        Of the reasoning traces that what is hidden is scored after (``traces`` of a task). Each draw has a seed of its
        own, which follows from ``seed``, the dual prompt and the number of the draw.
    """

    temperature: float = Field(0.0, ge=0)
    samples: int = Field(1, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)
    timeout_seconds: float = Field(120.0, gt=0)
    player: Literal["moving", "frozen"] = "moving"
    endpoint: EndpointSettings | None = None
    trace_temperature: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _frozen_has_an_endpoint(self) -> DualSettings:
        if self.player == "frozen" and self.endpoint is None:
            raise ValueError("a frozen player answers at an endpoint: add endpoint = {urls: [...], model: ...}")
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> DualSettings:
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same: raise it, or set samples to 1")
        return self
