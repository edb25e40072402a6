"""Rollouts as OpenRLHF shows them to a remote reward, and their scores by the policy behind an endpoint."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any, NamedTuple, get_args

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Value
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.parsing import Answer, Failure, OneOf
from cellduality_plugin.policies.base import Policy
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.settings import EndpointSettings
from cellduality_plugin.scoring import Group, Score, Scorer

OPENRLHF_WAITS = 180.0  # seconds after which OpenRLHF gives up on a reward server's answer

_OF_THE_TEXT = frozenset(get_args(Failure))
_SHORTEST_MATCH = 32


class Rollout(NamedTuple):
    """The response of a policy, as ``chat.decode`` gives it, and what it shares with others of its row."""

    text: str
    group: Group


class Judge:
    """Scores rollouts one by one, in whatever order they come; answers of one row share their dual calls.

    ``tokenizer`` is the trained model's, ``policy`` plays the dual, and the ``rows`` asked for last are remembered. A
    CellDualityError is raised if a setting needs the group of a rollout, or a dual may take longer than OpenRLHF waits.
    """

    def __init__(self, config: Config, tokenizer: Any, policy: Policy, *, rows: int = 4096) -> None:
        _refuse_unfit(config)
        self.policy = policy
        self._scorer, self._tokenizer, self._rows = Scorer(config), tokenizer, rows
        self._tasks, self._vocabulary = config.load_tasks(), config.load_vocabulary()
        self._groups: OrderedDict[str, Group] = OrderedDict()
        special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token} - {None}  # as chat.decode does
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)")

    def rollout(self, query: str, prompt: str, label: str) -> Rollout:
        """Return the rollout that OpenRLHF shows: ``query`` is ``prompt``, framed by the chat template, and response.

        A CellDualityError whose ``where`` is ``"query"`` or ``"labels"`` is raised if that is none of ours.
        """
        group = self._group(label)
        response = response_in(query, prompt)
        if response is None:  # decoding a prompt's tokens need not give the very text they were made of
            tokens = self._tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
            response = response_in(query, self._tokenizer.decode(tokens, skip_special_tokens=False))
        if response is None:
            hint = "serve with the tokenizer of the trained model"
            raise CellDualityError("does not begin with its prompt", code="foreign-prompt", where="query", hint=hint)
        return Rollout(self._special.sub("", response), group)

    async def score(self, rollout: Rollout) -> Score:
        """Return the score of a rollout; one that cannot be judged scores 0, and the next of its row is asked anew."""
        group, kept = rollout.group, False
        try:
            score = await self._scorer.score(rollout.text, group, self.policy)
            kept = score.failure in _OF_THE_TEXT
        finally:
            if not kept and self._groups.get(group.label) is group:
                del self._groups[group.label]
        return score

    def _group(self, label: str) -> Group:
        group = self._groups.get(label)
        if group is None:
            try:
                group = self._scorer.group(label)
            except CellDualityError as error:
                raise CellDualityError(error.what, code=error.code, where="labels", hint=error.hint) from error
            self._check_row(group)
            self._groups[label] = group
            if len(self._groups) > self._rows:
                self._groups.popitem(last=False)
        self._groups.move_to_end(label)
        return group

    def _check_row(self, group: Group) -> None:
        """Raise if the row lacks what its task asks for: it comes from outside, and duals are made of it."""
        example, task, vocabulary = group.example, self._tasks[group.example.task], self._vocabulary
        some: Value = next(iter(vocabulary.labels[task.answer.kind]), "") if isinstance(task.answer, OneOf) else ("A",)
        try:
            task.primal_prompt(example.inputs, vocabulary)
            task.dual_prompt(example.known, some, vocabulary)
            task.rebuilt_response(example.unknown)
            task.validity(example, Answer(some, listed=1))
            if isinstance(task.unknown, OneOf) != isinstance(example.unknown, str):
                raise TypeError("x_u is of another kind")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"not a row of {task.name} ({type(error).__name__}: {error!s:.80})"
            hint = "pass rows made by cellduality data prepare, with --data.label_key label"
            raise CellDualityError(what, code="malformed-row", where="labels", hint=hint) from error


def _refuse_unfit(config: Config) -> None:
    for name, task in config.tasks.items():
        for setting, what in (("minimum_spread", "level a group"), ("votes", "count a group's votes")):
            if getattr(task, setting):
                what = f"a remote reward sees one rollout at a time and cannot {what}"
                hint = "leave it out, or use the agent (--train.agent_func_path)"
                raise CellDualityError(what, code="needs-group", where=f"tasks.{name}.{setting}", hint=hint)
    if config.dual.timeout_seconds >= OPENRLHF_WAITS:
        what = f"OpenRLHF waits {OPENRLHF_WAITS:g} s for a reward, no longer than a dual may take"
        hint = "lower it, to 120 for example"
        raise CellDualityError(what, code="dual-timeout-too-long", where="dual.timeout_seconds", hint=hint)


def with_endpoint(config: Config, **changes: Any) -> Config:
    """Return the configuration with its endpoint, changed by those ``changes`` that are not empty, as the dual."""
    old = config.dual.endpoint.model_dump() if config.dual.endpoint else {}
    new = {**old, **{name: value for name, value in changes.items() if value}}
    for name, flag in {"urls": "--policy-url", "model": "--model"}.items():
        if not new.get(name):
            what = f"no {name} of an endpoint that plays the dual"
            hint = f"add it to the configuration; for serve-reward, {flag} will do as well"
            raise CellDualityError(what, code="no-endpoint", where=f"dual.endpoint.{name}", hint=hint)
    endpoint = EndpointSettings.read(new, where="dual.endpoint")
    dual = config.dual.model_copy(update={"endpoint": endpoint, "player": "frozen"})
    return config.model_copy(update={"dual": dual})


def open_judge(config: Config) -> tuple[Judge, EndpointPolicy]:
    """Return (a judge, the endpoint of the configuration that it asks, to be closed); there has to be one."""
    config = with_endpoint(config)
    endpoint = config.dual.endpoint
    assert endpoint is not None
    tokenizer = read_tokenizer(endpoint.tokenizer or endpoint.model)
    policy = EndpointPolicy(tokenizer, endpoint, config.dual)
    return Judge(config, tokenizer, policy), policy


def response_in(query: str, prompt: str) -> str | None:
    """Return what follows ``prompt`` in ``query``; None if that does not begin with it.

    OpenRLHF cuts a prompt that is too long at its beginning, so the query may begin within it.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    head = query[:_SHORTEST_MATCH]
    start = prompt.find(head, 1) if len(head) == _SHORTEST_MATCH else -1
    while start >= 0 and not query.startswith(prompt[start:]):
        start = prompt.find(head, start + 1)
    return query[len(prompt) - start :] if start >= 0 else None
