"""A checkpoint in this process, by transformers: nothing to start, on a CPU as on a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.chat import decode
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.offline import check_checkpoint
from cellduality_plugin.policies.tokens import Prefix, TokenPolicy, Tokens, room_after

if TYPE_CHECKING:
    import torch

_LOGITS = 1 << 26
"""Numbers that the logits of one batch may hold: 256 MB."""


@dataclass
class _Asked:
    """A question: how likely the last ``scored`` tokens are, or what follows at ``branches``; or a response."""

    tokens: Tokens
    answer: asyncio.Future[Any]
    scored: int = 0
    branches: Mapping[Prefix, Sequence[int]] = field(default_factory=dict)
    limit: int = 0  # tokens of a response
    temperature: float = 0.0
    seed: int = 0

    @property
    def wants(self) -> str:
        return "score" if self.scored else "choose" if self.branches else "generate"


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

        answers: dict[str, Callable[[Sequence[_Asked]], list[Any]]] = {
            "score": self._score, "choose": self._choose, "generate": self._generate,
        }  # fmt: skip
        while self._waiting:
            await asyncio.sleep(0)  # all callers that are ready ask first
            wants = self._waiting[0].wants
            chosen = sorted((asked for asked in self._waiting if asked.wants == wants), key=lambda asked: asked.tokens)
            self._waiting = [asked for asked in self._waiting if asked.wants != wants]
            found: list[Any]
            training = self._model.training
            try:
                self._model.eval()
                with torch.inference_mode():
                    found = [each for part in self._parts(chosen) for each in answers[wants](part)]
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
            large = (len(parts[-1]) + 1) * len(each.tokens) * vocabulary > _LOGITS
            if parts[-1] and (distinct > self._batch or (each.scored and large)):
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
        read = _Read(mask, places[:, -1], output.past_key_values, output.logits[:, -1])
        number = {tokens: row for row, tokens in enumerate(distinct)}
        return read.rows([number[tuple(tokens)] for tokens in prompts])

    def _next(self, read: _Read, tokens: Sequence[int]) -> _Read:
        """Return what was ``read`` with one more token in every row."""
        import torch

        ids = torch.tensor(tokens, device=read.mask.device)[:, None]
        mask, places = torch.cat([read.mask, torch.ones_like(ids)], dim=1), read.places + 1
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=places[:, None], past_key_values=read.past, use_cache=True
        )
        return _Read(mask, places, output.past_key_values, output.logits[:, -1])

    def _score(self, asked: Sequence[_Asked]) -> list[list[float]]:
        """Return the log-probabilities of the last ``scored`` tokens of each."""
        import torch

        longest = max(len(each.tokens) for each in asked)
        ids, mask = torch.zeros(2, len(asked), longest, dtype=torch.long)
        for row, each in enumerate(asked):
            ids[row, : len(each.tokens)], mask[row, : len(each.tokens)] = torch.tensor(each.tokens), 1
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = []
        for row, each in enumerate(asked):
            end = len(each.tokens)
            logs = logits[row, end - each.scored - 1 : end - 1].float().log_softmax(-1)
            found.append(logs.gather(1, ids[row, end - each.scored : end, None])[:, 0].tolist())
        return found

    def _choose(self, asked: Sequence[_Asked]) -> list[dict[Prefix, dict[int, float]]]:
        """Return for each, where its continuations branch, the log-probabilities of the tokens that follow."""
        prefixes = [(row, at) for row, each in enumerate(asked) for at in each.branches]
        read = self._read([asked[row].tokens for row, _ in prefixes])
        found: list[dict[Prefix, dict[int, float]]] = [{} for _ in asked]
        for depth in range(max(len(at) for _, at in prefixes) + 1):
            if depth:
                going = [place for place, (_, at) in enumerate(prefixes) if len(at) >= depth]
                prefixes = [prefixes[place] for place in going]
                read = self._next(read.rows(going), [at[depth - 1] for _, at in prefixes])
            logs = read.logits.float().log_softmax(-1)
            for place, (row, at) in enumerate(prefixes):
                if len(at) == depth:
                    found[row][at] = {token: float(logs[place, token]) for token in asked[row].branches[at]}
        return found

    def _generate(self, asked: Sequence[_Asked]) -> list[list[int]]:
        ends = self._model.generation_config.eos_token_id
        stops = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        rngs = [np.random.default_rng(each.seed) for each in asked]
        found: list[list[int]] = [[] for _ in asked]
        going = list(range(len(asked)))
        read = self._read([each.tokens for each in asked])
        while True:
            logits = read.logits.float().cpu().numpy()
            tokens = [_draw(logits[row], asked[which].temperature, rngs[which]) for row, which in enumerate(going)]
            for which, token in zip(going, tokens, strict=True):
                if token not in stops:
                    found[which].append(token)
            left = [
                row
                for row, (which, token) in enumerate(zip(going, tokens, strict=True))
                if token not in stops and len(found[which]) < asked[which].limit
            ]
            if not left:
                return found
            if len(left) < len(going):  # what has ended is computed no further
                read, tokens, going = read.rows(left), [tokens[row] for row in left], [going[row] for row in left]
            read = self._next(read, tokens)


@dataclass
class _Read:
    """What a model has read: mask (rows x tokens), last positions, its memory, and the logits of what follows."""

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
        super().__init__(model.tokenizer, temperature, seed)
        self._model = model

    async def _room(self, used: int) -> int:
        return room_after(used, self._model.limit, self._model.max_new_tokens)

    async def _write(self, tokens: Tokens, room: int, temperature: float, seed: int | None) -> str:
        found = await self._model.ask(tokens, limit=room, temperature=temperature, seed=seed or 0)
        return decode(self._tokenizer, found)

    async def _score(self, tokens: Tokens, target: Tokens) -> list[float]:
        return list(await self._model.ask(tokens + target, scored=len(target)))

    async def _choose(
        self, tokens: Tokens, targets: list[Tokens], branches: Mapping[Prefix, Sequence[int]]
    ) -> dict[Prefix, dict[int, float]]:
        return dict(await self._model.ask(tokens, branches=branches))
