"""A checkpoint that answers batches of prompts: vLLM offline, fed exactly as OpenRLHF feeds its own engines."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellduality_plugin.chat import decode, render
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.sharded import CARDS, Decoder, Request, sharded_decoder


@dataclass(frozen=True)
class EngineSettings:
    """How the vLLM engine is built; the defaults are those of OpenRLHF's rollout engines."""

    max_model_len: int = 2048  # tokens of prompt and response (--data.max_len), as far as the checkpoint has positions
    max_new_tokens: int = 1024  # of a response
    dtype: str = "bfloat16"
    enforce_eager: bool | None = None  # no graph capture or compilation; None: on a CPU alone
    gpu_memory_utilization: float = 0.9  # the share of a GPU that the engine may take; without meaning on a CPU
    tensor_parallel_size: int = 1  # GPUs of one engine; there are as many engines as there are GPUs for
    chat_template: str = ""  # Jinja, in place of the checkpoint's own (--data.tokenizer_chat_template), unless empty


@dataclass
class Served:
    """A checkpoint that vLLM serves in this process."""

    llm: Any  # a ``vllm.LLM``; None once it is shut down, so that its memory is freed while this is still in scope
    tokenizer: Any
    limit: int  # tokens that a request may have, prompt and response


class VllmDecoder:
    """A :class:`Decoder` over a live ``vllm.LLM``."""

    def __init__(self, served: Served, max_new_tokens: int) -> None:
        self._served, self._max_new_tokens = served, max_new_tokens

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        import vllm

        responses: list[str | None] = [None] * len(requests)
        fitting: dict[int, tuple[Any, Any]] = {}
        for place, request in enumerate(requests):
            tokens = render(self._served.tokenizer, request.prompt)
            if (room := min(self._max_new_tokens, self._served.limit - len(tokens))) > 0:
                how = {"temperature": request.temperature, "seed": request.seed, "max_tokens": room}
                # As in training: tags may be special tokens.
                sampling = vllm.SamplingParams(**how, skip_special_tokens=False)
                fitting[place] = vllm.TokensPrompt(prompt_token_ids=tokens), sampling
        if fitting:
            # What the engine remembers of earlier prompts changes how later ones are computed, hence rounded.
            self._served.llm.reset_prefix_cache()
            prompts, samplings = map(list, zip(*fitting.values(), strict=True))
            outputs = self._served.llm.generate(prompts, samplings, use_tqdm=False)
            for place, output in zip(fitting, outputs, strict=True):
                responses[place] = decode(self._served.tokenizer, output.outputs[0].token_ids)
        return responses


@contextlib.contextmanager
def vllm_decoder(model: Path, settings: EngineSettings, *, seed: int = 0) -> Iterator[Decoder]:
    """Open a decoder over ``model``, on all cards that are visible; see :func:`served_model`."""
    check_checkpoint(model)
    one, groups = functools.partial(_one_decoder, model, settings, seed), several_cards(settings)
    with sharded_decoder(one, groups) if groups else one() as decoder:
        yield decoder


def several_cards(settings: EngineSettings) -> list[str]:
    """Return the cards of each engine, as CUDA_VISIBLE_DEVICES names them; none where there is a single engine.

    What is left over stays idle.
    """
    try:
        from vllm.platforms import current_platform
    except ImportError:  # which is said where an engine is opened
        return []
    if not current_platform.is_cuda_alike():
        return []
    count, each = current_platform.device_count(), settings.tensor_parallel_size
    cards = [card for card in os.environ.get(CARDS, "").split(",") if card] or [str(card) for card in range(count)]
    groups = [",".join(cards[first : first + each]) for first in range(0, len(cards) - each + 1, each)]
    return groups if len(groups) > 1 else []


@contextlib.contextmanager
def _one_decoder(model: Path, settings: EngineSettings, seed: int) -> Iterator[Decoder]:
    with served_model(model, settings, seed=seed) as served:
        yield VllmDecoder(served, settings.max_new_tokens)


@contextlib.contextmanager
def served_model(model: Path, settings: EngineSettings, *, seed: int = 0) -> Iterator[Served]:
    """Open a vLLM engine over a Hugging Face folder, and shut its process down afterwards to make room for the next.

    A CellDualityError is raised if vLLM is not installed, the folder is no checkpoint that it can serve, or neither its
    tokenizer nor the settings have a chat template.
    """
    check_checkpoint(model)
    try:
        served = _opened(model, settings, seed)
    except ImportError as error:
        hint = "evaluate in the environment that trains (recipes/setup.sh)"
        raise CellDualityError(f"cannot import {error.name}", code="not-installed", hint=hint) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        what = f"vLLM cannot serve the checkpoint: {reason[0]:.200}"
        hint = "read the engine's log above; correct the folder, or lower max_model_len if memory is short"
        raise CellDualityError(what, code="not-servable", where=str(model), hint=hint) from error
    try:
        yield served
    finally:
        served.llm.llm_engine.engine_core.shutdown()
        served.llm = None
        gc.collect()


def check_checkpoint(model: Path) -> None:
    """Raise a CellDualityError if the folder is no checkpoint."""
    if not (model / "config.json").is_file():
        hint = "give a Hugging Face folder with config.json"
        raise CellDualityError("no checkpoint", code="no-checkpoint", where=str(model), hint=hint)


def context_length(model: Path, settings: EngineSettings) -> int:
    """Return the tokens that a request may have, prompt and response: no more than the checkpoint has positions."""
    positions = json.loads((model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    return min(settings.max_model_len, positions or settings.max_model_len)


def _opened(model: Path, settings: EngineSettings, seed: int) -> Served:
    tokenizer = read_tokenizer(str(model), settings.chat_template)
    import vllm
    from vllm.platforms import current_platform

    limit = context_length(model, settings)
    llm = vllm.LLM(
        model=str(model),
        dtype=settings.dtype,
        max_model_len=limit,
        generation_config="vllm",  # the checkpoint's own top_p or top_k would change what training saw
        disable_log_stats=True,
        seed=seed,
        **engine_arguments(settings, limit, on_cpu=current_platform.is_cpu()),
    )
    return Served(llm, tokenizer, limit)


def engine_arguments(settings: EngineSettings, limit: int, *, on_cpu: bool) -> dict[str, Any]:
    """Return the arguments of ``vllm.LLM`` that depend on the platform; what is left out is vLLM's own choice for it.

    Examples
    --------
    >>> engine_arguments(EngineSettings(), 2048, on_cpu=False)
    {'gpu_memory_utilization': 0.9, 'tensor_parallel_size': 1}
    >>> engine_arguments(EngineSettings(), 2048, on_cpu=True)["enforce_eager"]
    True
    """
    eager = on_cpu if settings.enforce_eager is None else settings.enforce_eager
    found: dict[str, Any] = {"enforce_eager": True} if eager else {}
    if on_cpu:
        # A seeded request whose prompt is read in parts kills vLLM's CPU engine (torch's CPU generator has no offset
        # to wind back), so every prompt is read at once.
        return {**found, "enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, limit)}
    memory, together = settings.gpu_memory_utilization, settings.tensor_parallel_size
    return {**found, "gpu_memory_utilization": memory, "tensor_parallel_size": together}
