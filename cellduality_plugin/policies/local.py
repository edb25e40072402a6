"""A checkpoint in this process, by transformers: nothing to start, on a CPU as on a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.chat import decode
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.offline import check_checkpoint
from cellduality_plugin.policies.tokens import TokenPolicy, Tokens

if TYPE_CHECKING:
    import torch

_LOGITS = 1 << 26
"""Numbers that the logits of one batch may hold: 256 MB."""


@dataclass
class _Asked:
    """A question: how likely each token of ``target`` is after ``tokens``; or, if that is empty, a response."""

    tokens: Tokens
    answer: asyncio.Future[Any]
    target: Tokens = field(default_factory=list)
    limit: int = 0  # tokens of a response
    temperature: float = 0.0
    seed: int = 0


class LocalModel:
    """A causal language model of transformers, which may be in training, and its tokenizer, which has a chat template.

    Questions that wait at the same time are computed together, ``batch`` at most. A question and its response have up
    to ``max_model_len`` tokens, a response ``max_new_tokens``.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_model_len: int, max_new_tokens: int, batch: int = 64) -> None:
        self._model, self.tokenizer, self._batch = model, tokenizer, batch
        positions = getattr(model.config, "max_position_embeddings", max_model_len)
        self.limit, self.max_new_tokens = min(max_model_len, positions), max_new_tokens
        self._waiting: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None

    @classmethod
    def load(cls, folder: Path, **lengths: int) -> LocalModel:
        """Return the model of a Hugging Face folder, on the first GPU if there is one.

        A CellDualityError is raised if the folder is no checkpoint, or there is no chat template.
        """
        import torch
        from transformers import AutoModelForCausalLM

        check_checkpoint(folder)
        try:
            tokenizer = read_tokenizer(str(folder))
            model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto")
        except (OSError, ValueError, RuntimeError) as error:
            what, hint = f"cannot load the checkpoint: {error}", "save it again"
            raise CellDualityError(what, code="broken-checkpoint", where=str(folder), hint=hint) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device, torch.float32 if device == "cpu" else model.dtype), tokenizer, **lengths)

    async def ask(self, tokens: Tokens, **how: Any) -> Any:
        """Return the answer to a question (the fields of ``_Asked``): log-probabilities, or generated token ids."""
        asked = _Asked(tokens, asyncio.get_running_loop().create_future(), **how)
        self._waiting.append(asked)
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return await asked.answer

    async def _run(self) -> None:
        import torch

        while self._waiting:
            await asyncio.sleep(0)  # all callers that are ready ask first
            scores = bool(self._waiting[0].target)
            chosen = sorted(
                (each for each in self._waiting if bool(each.target) == scores), key=lambda each: each.tokens
            )
            self._waiting = [each for each in self._waiting if bool(each.target) != scores]
            compute = self._score if scores else self._generate
            found: list[Any]
            training = self._model.training
            try:
                self._model.eval()
                with torch.inference_mode():
                    found = [each for part in self._parts(chosen) for each in compute(part)]
            except Exception as error:
                found = [error] * len(chosen)
            finally:
                self._model.train(training)
            for asked, each in zip(chosen, found, strict=True):
                if asked.answer.done():  # the caller has given up
                    continue
                if isinstance(each, Exception):
                    asked.answer.set_exception(each)
                else:
                    asked.answer.set_result(each)
            await asyncio.sleep(0)

    def _parts(self, asked: Sequence[_Asked]) -> list[list[_Asked]]:
        """Return ``asked`` in parts that are computed at once: equal questions together, and what fits in memory."""
        parts: list[list[_Asked]] = [[]]
        vocabulary = self._model.config.vocab_size
        for each in asked:
            distinct = len({tuple(other.tokens) for other in parts[-1]} | {tuple(each.tokens)})
            large = (len(parts[-1]) + 1) * len(each.target) * vocabulary > _LOGITS
            if parts[-1] and (distinct > self._batch or large):
                parts.append([])
            parts[-1].append(each)
        return parts

    def _read(self, prompts: Sequence[Sequence[int]]) -> _Read:
        """Read ``prompts``, of which equal ones are read once."""
        import torch

        distinct = list(dict.fromkeys(map(tuple, prompts)))
        longest = max(map(len, distinct))
        ids, mask = torch.zeros(2, len(distinct), longest, dtype=torch.long, device=self._model.device)
        for row, tokens in enumerate(distinct):
            ids[row, longest - len(tokens) :], mask[row, longest - len(tokens) :] = torch.tensor(tokens), 1
        places = mask.cumsum(-1).sub(1).clamp(min=0)
        output = self._model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
        read = _Read(mask, places[:, -1], output.past_key_values, output.logits)
        number = {tokens: row for row, tokens in enumerate(distinct)}
        return read.rows([number[tuple(tokens)] for tokens in prompts])

    def _next(self, read: _Read, tokens: Sequence[Sequence[int]]) -> _Read:
        """Return what was ``read`` with one more token in every row, or several; shorter rows are padded."""
        import torch

        ids, new = torch.zeros(2, len(tokens), max(map(len, tokens)), dtype=torch.long, device=self._model.device)
        for row, following in enumerate(tokens):
            ids[row, : len(following)], new[row, : len(following)] = torch.tensor(following), 1
        mask, places = torch.cat([read.mask, new], dim=1), read.places[:, None] + new.cumsum(-1)
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=read.past, use_cache=True
        )
        return _Read(mask, places[:, -1], output.past_key_values, output.logits)

    def _score(self, asked: Sequence[_Asked]) -> list[list[float]]:
        """Return the log-probability of each token of each target."""
        import torch

        read = self._read([each.tokens for each in asked])
        after = self._next(read, [each.target for each in asked])
        found = []
        for row, each in enumerate(asked):
            target = torch.tensor(each.target, device=self._model.device)[:, None]
            logits = torch.cat([read.logits[row, -1:], after.logits[row, : len(target) - 1]])
            found.append(logits.float().log_softmax(-1).gather(1, target)[:, 0].tolist())
        return found

    def _generate(self, asked: Sequence[_Asked]) -> list[list[int]]:
        ends = self._model.generation_config.eos_token_id
        stops = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        rngs = [np.random.default_rng(each.seed) for each in asked]
        found: list[list[int]] = [[] for _ in asked]
        going = list(range(len(asked)))
        read = self._read([each.tokens for each in asked])
        while True:
            logits = read.logits[:, -1].float().cpu().numpy()
            tokens = [_draw(logits[row], asked[which].temperature, rngs[which]) for row, which in enumerate(going)]
            left = []
            for row, (which, token) in enumerate(zip(going, tokens, strict=True)):
                if token not in stops:
                    found[which].append(token)
                    left += [row] if len(found[which]) < asked[which].limit else []
            if not left:
                return found
            if len(left) < len(going):  # what has ended is computed no further
                read, tokens, going = read.rows(left), [tokens[row] for row in left], [going[row] for row in left]
            read = self._next(read, [[token] for token in tokens])


@dataclass
class _Read:
    """What a model has read: mask (rows x tokens), last positions, its memory, the logits behind the last tokens."""

    mask: torch.Tensor
    places: torch.Tensor
    past: Any
    logits: torch.Tensor

    def rows(self, rows: Sequence[int]) -> _Read:
        """Return some of the rows; a row may be taken several times. This one is used up."""
        import torch

        if list(rows) == list(range(len(self.mask))):
            return self
        chosen = torch.tensor(rows, device=self.mask.device)
        self.past.batch_select_indices(chosen)
        return _Read(self.mask[chosen], self.places[chosen], self.past, self.logits[chosen])


def _draw(logits: Any, temperature: float, rng: np.random.Generator) -> int:
    """Return the likeliest token, or a drawn one (by the Gumbel trick) where the temperature is above 0."""
    return int(np.argmax(logits + temperature * rng.gumbel(size=len(logits)) if temperature else logits))


class LocalPolicy(TokenPolicy):
    """A policy over a :class:`LocalModel`."""

    spare = 0

    def __init__(self, model: LocalModel, *, temperature: float, seed: int) -> None:
        super().__init__(model.tokenizer, temperature, seed, context=model.limit, limit=model.max_new_tokens)
        self._model = model

    async def _write(self, tokens: Tokens, room: int, temperature: float, seed: int | None) -> str:
        found = await self._model.ask(tokens, limit=room, temperature=temperature, seed=seed or 0)
        return decode(self._tokenizer, found)

    async def _score(self, tokens: Tokens, target: Tokens) -> list[float]:
        return list(await self._model.ask(tokens, target=target)) if target else []
