"""What goes wrong in a dual is data; what goes wrong in the engine or the set-up ends the run, in words."""

from __future__ import annotations

import copy
import json

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies import tokens as engine_policy
from tests.refused import refused

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


class TestDuals:
    def test_without_room_for_the_prompt_earn_nothing(self, scene, tokenizer):
        at = scene(CELL)  # its question is short, its dual holds a whole cell
        room = len(tokenizer(at.engine.answers[0])["input_ids"]) + 1
        [rollout] = at.roll(params=SamplingParams(max_tokens=room), length=len(at.tokens) + room)
        assert not at.engine.duals
        assert (rollout["reward"], rollout["scores"], rollout["truncated"]) == (0.0, 0.0, False)
        assert (rollout["extra_logs"]["dual_failed"], rollout["extra_logs"]["dual_answer_parsed"]) == (1.0, 1.0)

    @pytest.mark.parametrize("reward", ["duality", "likelihood"])
    @pytest.mark.parametrize("error", [EngineGenerateError("at fault"), VLLMValidationError("too long")])
    def test_that_the_engine_refuses_earn_nothing_and_are_told_once(self, error, reward, scene, monkeypatch, caplog):
        monkeypatch.setattr(engine_policy, "_LOGGED", set())
        at = scene(TYPE, "T", "CD19+ B", engine={"dual_fails": error}, task={"reward": reward})
        for rollout in at.roll(4):
            assert (rollout["reward"], rollout["extra_logs"]["dual_failed/engine_error"]) == (0.0, 1.0)
        assert len(at.engine.duals) == 2
        [line] = [record.getMessage() for record in caplog.records]
        assert line == f"the engine refused a dual: {type(error).__name__}: {error}"

    def test_of_an_engine_that_is_dead_end_the_run(self, scene):
        with pytest.raises(EngineDeadError):
            scene(engine={"dual_fails": EngineDeadError()}).roll()


class TestMistakesOfTheUser:
    """None of them may cost a rollout to find out."""

    def test_a_model_without_a_chat_template_is_refused(self, scene):
        at = scene()
        at.engine.tokenizer = copy.deepcopy(at.engine.tokenizer)
        at.engine.tokenizer.chat_template = None
        with refused("no-chat-template"):
            at.roll()
        assert not at.engine.rollouts

    @pytest.mark.parametrize("label", ["", '{"schema":1}', None])
    def test_a_malformed_label_is_refused(self, label, scene):
        at = scene()
        at.label = label
        with pytest.raises(CellDualityError) as raised:
            at.roll()
        assert "--data.label_key label" in raised.value.hint
        assert not at.engine.rollouts

    def test_a_task_that_is_not_configured_and_a_row_without_the_gold_it_needs_are_refused(self, scene):
        at = scene(task={"reward": "oracle"})
        with pytest.raises(CellDualityError):
            at.roll()
        at.label = json.dumps({**json.loads(at.label), "task": "drug_response"})
        with pytest.raises(CellDualityError, match="drug_response"):
            at.roll()
        assert not at.engine.rollouts

    def test_an_endpoint_that_is_no_address_stops_the_executor(self, scene):
        with pytest.raises(CellDualityError, match="localhost:8000"):
            scene(dual={"player": "frozen", "endpoint": {"urls": ["localhost:8000"], "model": "toy"}})
