"""The agent executor: after each rollout, the same engine with the same weights plays the dual."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams

from cellduality_plugin.config import Config, DualSettings
from cellduality_plugin.endpoint.addresses import Addresses
from cellduality_plugin.endpoint.policy import EndpointPolicy
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.framing import render
from cellduality_plugin.openrlhf_hooks.preflight import read_tokenizer
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.scoring import Group, Scorer

_REMEMBERED_GROUPS = 4096


class EnginePolicy:
    """The moving policy, asked through the vLLM engine that made the rollout.

    Parameters
    ----------
    engine
        OpenRLHF's rollout actor.
    tokenizer
        The policy's tokenizer; its chat template frames the dual prompt as it framed the primal one.
    max_length
        The engine's context, in tokens (``--data.max_len``).
    settings
        Temperature and length of the dual.
    """

    def __init__(self, engine: Any, tokenizer: Any, max_length: int, settings: DualSettings) -> None:
        self._engine, self._tokenizer, self._max_length, self._settings = engine, tokenizer, max_length, settings

    async def generate(self, prompt: str) -> str:
        """Return the response to ``prompt``; raises PolicyError if the prompt leaves no room for one."""
        tokens = self._tokens(prompt)
        room = self._max_length - len(tokens)
        if room < 1:
            raise PolicyError("prompt_too_long")
        limit = min(room, self._settings.max_new_tokens or room)
        params = SamplingParams(temperature=self._settings.temperature, max_tokens=limit, skip_special_tokens=False)
        output = await self._engine.generate(tokens, params)
        return str(self._tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True))

    async def log_probs(self, prompt: str, response: str) -> list[float]:
        """Return the log-probability of each token of ``response``; raises PolicyError if both do not fit."""
        tokens = self._tokens(prompt)
        target = self._tokenizer(response, add_special_tokens=False)["input_ids"]
        if len(tokens) + len(target) >= self._max_length:
            raise PolicyError("prompt_too_long")
        # vLLM always decodes at least one token; the prompt's own log-probs come with the prefill.
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        output = await self._engine.generate(tokens + target, params)
        return [at[token].logprob for token, at in zip(target, output.prompt_logprobs[len(tokens) :], strict=True)]

    def _tokens(self, prompt: str) -> list[int]:
        return render(self._tokenizer, prompt)


class _Groups:
    """The groups under way, told apart by the sampling parameters that OpenRLHF hands to all samples of a prompt.

    The object itself is kept, so its identity cannot be taken over by a later group. Were each sample given its own
    object, every group would have one member: more duals would be asked, no reward would be wrong.
    """

    def __init__(self, capacity: int = _REMEMBERED_GROUPS) -> None:
        self._capacity = capacity
        self._groups: OrderedDict[tuple[int, str], tuple[object, Group]] = OrderedDict()

    def get(self, sampling_params: object, label: str, scorer: Scorer) -> Group:
        key = (id(sampling_params), label)
        if key not in self._groups:
            self._groups[key] = (sampling_params, scorer.group(label))
            if len(self._groups) > self._capacity:
                self._groups.popitem(last=False)
        return self._groups[key][1]


class DualityExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]  # openrlhf ships no types
    """OpenRLHF's single-turn rollout, then the dual. Built without arguments, by ``--train.agent_func_path``.

    Parameters
    ----------
    config_path
        The configuration file; by default the one ``CELLDUALITY_CONFIG`` names.
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(None)
        self._config = Config.load(config_path)
        self._scorer = Scorer(self._config)
        self._groups = _Groups()
        self._frozen: EndpointPolicy | None = None
        if self._config.dual.player == "frozen" and self._config.dual.endpoint:
            Addresses(self._config.dual.endpoint)  # what is wrong with them is said before anything is rolled out

    async def execute(
        self,
        prompt: str,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """Return the rollout with ``reward``, ``scores`` and ``extra_logs`` set, none of them None or NaN."""
        if not hf_tokenizer.chat_template:
            raise CellDualityError(
                "the model has no chat template, so the dual prompt cannot be framed",
                where=str(hf_tokenizer.name_or_path),
                mend="start from an instruction-tuned model, or add a chat_template to its tokenizer",
            )
        group = self._groups.get(sampling_params, label, self._scorer)
        with group.member():
            rollout = await super().execute(
                prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=images
            )
            start, end = rollout["action_ranges"][-1]
            text = hf_tokenizer.decode(rollout["observation_tokens"][start:end], skip_special_tokens=True)
            policy = self._player(llm_engine, hf_tokenizer, max_length)
            score = await self._scorer.level(await self._scorer.score(text, group, policy), group)
        rollout.update(reward=score.reward, scores=score.reward, extra_logs=score.logs)
        return dict(rollout)

    def _player(self, engine: Any, tokenizer: Any, max_length: int) -> Policy:
        """Return who plays the dual: the engine of the rollout, or the frozen model at its endpoint."""
        dual = self._config.dual
        if dual.player == "moving" or dual.endpoint is None:
            return EnginePolicy(engine, tokenizer, max_length, dual)
        if self._frozen is None:
            own = dual.endpoint.tokenizer
            self._frozen = EndpointPolicy(read_tokenizer(own) if own else tokenizer, dual.endpoint, dual)
        return self._frozen
