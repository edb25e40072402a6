"""The agent executor: after each rollout, the same engine with the same weights plays the dual."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor

from cellduality_plugin.chat import decode
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.policies.base import Policy
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.tokens import EnginePolicy
from cellduality_plugin.records import Recorder
from cellduality_plugin.scoring import Group, Scorer

_REMEMBERED_GROUPS = 4096


class DualityExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]  # openrlhf ships no types
    """OpenRLHF's single-turn rollout, then the dual. Built without arguments, by ``--train.agent_func_path``.

    The configuration file is by default the one that ``CELLDUALITY_CONFIG`` names.
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(None)
        self._config = Config.load(config_path)
        self._scorer = Scorer(self._config)
        self._groups: OrderedDict[tuple[int, str], tuple[object, Group]] = OrderedDict()
        self._recorder = Recorder.of(self._config)
        self._frozen: EndpointPolicy | None = None
        if self._config.dual.player == "frozen" and self._config.dual.endpoint:
            Addresses(self._config.dual.endpoint)  # a wrong one is refused before anything is rolled out

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
            what = "the model has no chat template, so the dual prompt cannot be framed"
            hint = "start from an instruction-tuned model, or add a chat_template to its tokenizer"
            raise CellDualityError(what, code="no-chat-template", where=str(hf_tokenizer.name_or_path), hint=hint)
        group = self._group(sampling_params, label)
        began = time.monotonic()
        with group.member():
            given = (prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine)
            rollout = await super().execute(*given, images=images)
            start, end = rollout["action_ranges"][-1]
            text = decode(hf_tokenizer, rollout["observation_tokens"][start:end])
            policy = self._player(llm_engine, hf_tokenizer, max_length)
            truncated = bool(rollout["truncated"])
            score = await self._scorer.score_member(text, group, policy, truncated=truncated, began=began)
        if self._recorder is not None:
            self._recorder.write(group, text, score, last=group.over)
        if group.over:  # it is remembered by what was judged; what was asked for them takes a hundred times as much
            group.asked.clear()
        rollout.update(reward=score.reward, scores=score.reward, extra_logs=score.logs)
        return dict(rollout)

    def _group(self, sampling_params: object, label: str) -> Group:
        """Return the group of a rollout: all samples of a prompt get one object of sampling parameters."""
        key = (id(sampling_params), label)
        if key not in self._groups:
            self._groups[key] = (sampling_params, self._scorer.group(label))  # kept, so that its id stays its own
            if len(self._groups) > _REMEMBERED_GROUPS:
                self._groups.popitem(last=False)
        return self._groups[key][1]

    def _player(self, engine: Any, tokenizer: Any, max_length: int) -> Policy:
        """Return who plays the dual: the engine of the rollout, or the frozen model at its endpoint."""
        dual = self._config.dual
        if dual.player == "moving" or dual.endpoint is None:
            return EnginePolicy(engine, tokenizer, max_length, dual)
        if self._frozen is None:
            own = dual.endpoint.tokenizer
            self._frozen = EndpointPolicy(read_tokenizer(own) if own else tokenizer, dual.endpoint, dual)
        return self._frozen
