"""`cellduality doctor --plan`: GiB of a card, tokens a second and hours of each stage, before anything starts.

With P parameters, and rates that nobody measured on a card but that makers state, or shares of them that are assumed:

training   6 P floating-point operations a token, 8 P with gradient checkpointing; in stage 2 a further 2 P for the old
           log-probabilities and as many for a reference. Rows are padded to the longest of their micro-batch.
prefill    2 P a token
decoding   a token of every sequence under way reads 2 P bytes and what is cached of each, or computes 2 P a sequence

Loading, saving, offloading, moving weights to engines and waiting for the last sequence are not counted.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import Field

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.openrlhf_hooks.doctor.flags import TRAINERS, value_of
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, Machine, Model
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, cache_of, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run
from cellduality_plugin.openrlhf_hooks.preflight import Lengths, Measured, asked_about, rl_questions, sft_questions
from cellduality_plugin.settings import Settings

_EVALUATION = 0.9  # of a card's memory: vLLM's default
_PIPE = "PROFILE=gpu1 DRY_RUN=1 bash recipes/grpo_duality.sh | cellduality doctor --plan --gpu-memory 48"
CARDS = (
    ("A10", 24, 125.0, 600.0),
    ("RTX A6000", 48, 154.8, 768.0),
    ("A100", 80, 312.0, 2039.0),
    ("H200", 141, 989.0, 4800.0),
)
"""(card, GB, dense bf16 TFLOP/s, GB/s of its memory), as NVIDIA's data sheets state them; one of each size."""


class Rates(Settings):
    """The rates, each of which can be given; the description of a field says where it is from."""

    teraflops: float = Field(gt=0, allow_inf_nan=False, description="{}, data sheet: dense bf16")
    gigabytes_a_second: float = Field(gt=0, allow_inf_nan=False, description="{}, data sheet: its memory")
    compute_share: float = Field(0.35, gt=0, le=1, description="assumed: of TFLOP/s, in training and prefill")
    memory_share: float = Field(0.5, gt=0, le=1, description="assumed: of GB/s, in decoding")
    characters_a_token: float = Field(2.0, gt=0, description="assumed: gene names, where there is no tokenizer")
    response_tokens: float | None = Field(None, gt=0, description="by default as SFT's responses, else the limit")

    @classmethod
    def of(cls, gpu_memory: float, assumed: Sequence[str] = ()) -> tuple[Rates, dict[str, str]]:
        """Return the rates of the largest known card of ``gpu_memory`` bytes or fewer, and {name: where it is from}.

        ``assumed`` holds NAME=VALUE, which take precedence; a CellDualityError is raised if one cannot be read.
        """
        card, _, *stated = next((each for each in reversed(CARDS) if each[1] * 0.9e9 < gpu_memory), CARDS[0])
        given = dict(text.partition("=")[::2] for text in assumed)
        sources = {name: str(each.description).format(card) for name, each in cls.model_fields.items()}
        rates = cls.read({"teraflops": stated[0], "gigabytes_a_second": stated[1], **given}, "--assume")
        return rates, {**sources, **dict.fromkeys(given, "given")}


@dataclass(frozen=True)
class Stage:
    """A stage: GiB of the fullest card (None: not known), tokens that pass through all ``cards``, and seconds."""

    name: str
    cards: int
    gib: float | None
    tokens: float
    seconds: float  # inf: an engine has no room for one sequence


def plan(lines: Iterable[str], machine: Machine, rates: Rates, model: str = "") -> list[Stage]:
    """Return the stages of commands, one a line, as `DRY_RUN=1` of a recipe prints them.

    ``model``, if given, counts instead of what the commands name. Of two commands with the same output the last one
    whose rows are there counts: before an audit has chosen rows, stage 2 is planned on all. A CellDualityError is
    raised if no trainer is run, rows are missing, the size of the model is not known, or all is on a CPU.
    """
    try:
        words = [shlex.split(line) for line in lines]
    except ValueError as error:
        raise CellDualityError(f"not a command: {error}", code="unreadable-command", hint=_PIPE) from error
    fetched = next((each[3] for each in words if each[:3] == ["cellduality", "model", "fetch"]), "")
    runs: dict[str, Run] = {}
    for each in words:
        if not {*TRAINERS}.isdisjoint(each):
            run = _run(each, machine, model, fetched)
            key = f"{run.trainer} {run.get('ckpt.output_dir')}"
            if run.row_count or key not in runs:
                runs[key] = run
    if not runs:
        raise CellDualityError("no command runs a trainer", code="no-trainer", hint=_PIPE)
    if empty := [run for run in runs.values() if not run.row_count]:
        where, hint = ", ".join(empty[0].rows), "prepare the data first (bash recipes/prepare.sh, then traces.sh)"
        raise CellDualityError("no rows to plan with", code="no-rows", where=where, hint=hint)
    ordered = sorted(runs.values(), key=lambda run: run.is_rl)  # a recipe looks at stage 2 before stage 1 runs
    found = [stage for run in ordered for stage in (_rl(run, rates) if run.is_rl else _sft(run, rates))]
    evaluations = [each for each in words if "evaluate" in each and "--model" in each]
    return found + [stage for each in evaluations for stage in _evaluation(each, ordered[-1], rates)]


def _run(words: Sequence[str], machine: Machine, model: str, fetched: str) -> Run:
    run = Run(words, machine)
    if run.flags.args is None:
        raise CellDualityError("; ".join(run.flags.refusals), code="wrong-flags", where=run.trainer)
    if "cellduality-cpu" in run.launchers:
        raise CellDualityError("a plan is for cards, and this run is on a CPU", code="no-cards", hint=_PIPE)
    if other := model or ("" if run.model and run.model.parameters else fetched):
        run = Run([*words, run.model_flag, other], machine)
    if run.model is None or run.model.parameters is None:
        hint = "pass --model with a folder that holds a config.json, or a well-known name of the hub"
        raise CellDualityError("the size of the model is not known", code="no-model", where=run.model_place, hint=hint)
    return run


def _lengths(run: Run, rates: Rates) -> Lengths:
    """Return lengths by the model's tokenizer, by characters where a folder has none or it cannot be read."""
    assert run.model is not None
    if not run.model.is_local or Path(run.model.name, "tokenizer_config.json").is_file():
        with contextlib.suppress(CellDualityError):
            return Lengths(_tokenizer(run.model.name, run.get("data.tokenizer_chat_template")))
    return Lengths(None, rates.characters_a_token)


_tokenizer = functools.cache(read_tokenizer)


def _taught(folder: Path, lengths: Lengths) -> list[Measured]:
    """Return what SFT is shown, of the rows in a prepared folder."""
    path = next((path for name in ("sft_traces", "sft") if (path := folder / f"{name}.jsonl").is_file()), None)
    return list(sft_questions(path, lengths)) if path else []


def _gib(run: Run, moment: str) -> float | None:
    on_cards = [getattr(total, moment) for where, total in totals(parts(run)).items() if where != HOST]
    return max(on_cards) / GIB if on_cards else None


def _padded(lengths: Sequence[float], run: Run) -> float:
    """Return the tokens a row takes on average: as many as the longest of its micro-batch, unless rows are packed."""
    together = 1 if run.get("ds.packing_samples") else run.get("train.micro_batch_size")
    shares = [(place / len(lengths)) ** together for place in range(len(lengths) + 1)]
    return math.fsum(each * (shares[at + 1] - shares[at]) for at, each in enumerate(sorted(lengths)))


def _training(run: Run, rates: Rates, tokens: float, scored: int = 0) -> float:
    """Return the seconds of updates on ``tokens``, with ``scored`` passes without gradients."""
    passes = (8 if run.saves_activations else 6) * (run.get("train.max_epochs") if run.is_rl else 1) + 2 * scored
    speed = _cards(run) * rates.teraflops * 1e12 * rates.compute_share
    return float(tokens * passes * (run.model.parameters or 0 if run.model else 0) / speed)


def _cards(run: Run) -> int:
    return run.devices or run.machine.gpus or 1  # None: the launcher takes what it finds


def _sft(run: Run, rates: Rates) -> Iterator[Stage]:
    lengths, name = _lengths(run, rates), f"SFT ({Path(run.get('ckpt.output_dir')).stem})"
    shown = [prompt + said[0] for path in run.row_files for _, prompt, said in sft_questions(path, lengths)]
    tokens = (run.row_count or 0) * run.get("train.max_epochs") * _padded(shown, run)
    yield Stage(name, _cards(run), _gib(run, "training"), tokens, _training(run, rates, tokens))


@dataclass(frozen=True)
class _Engines:
    """So many engines on ``each`` cards, each with room for so many tokens and, at most, so many sequences."""

    model: Model
    rates: Rates
    count: float
    each: int
    room: int
    sequences: float

    def seconds(self, prefill: float, decoded: float, context: float) -> float:
        """Return how long they take for so many tokens in all, in sequences of ``context`` tokens."""
        weights = 2 * (self.model.parameters or 0)
        compute = self.each * self.rates.teraflops * 1e12 * self.rates.compute_share
        memory = self.each * self.rates.gigabytes_a_second * 1e9 * self.rates.memory_share
        if self.room < context:
            return math.inf
        batch = max(1.0, min(self.sequences, self.room / max(1.0, context)))
        step = max((weights + batch * context * self.model.cache_bytes) / memory, weights * batch / compute)
        return (weights * prefill / compute + decoded * step / batch) / self.count


def _rl(run: Run, rates: Rates) -> Iterator[Stage]:
    assert run.model is not None
    rows, lengths, config = (run.row_count or 0) * run.get("train.num_episodes"), _lengths(run, rates), _config(run)
    group, count = run.get("rollout.n_samples_per_prompt"), run.get("vllm.num_engines") or 1
    limit, each = run.get("rollout.max_new_tokens") or run.get("data.max_len"), run.get("vllm.tensor_parallel_size")
    taught, files = _taught(run.row_files[0].parent, lengths), run.row_files
    response = min(limit, rates.response_tokens or fmean([said[0] for _, _, said in taught] or [0]) or limit)
    asked = [each for path in files if config for each in rl_questions(path, config, lengths, round(response))]
    prompts = [prompt for q, prompt, _ in asked if not q.is_dual]
    if not config:  # another agent, or a reward behind an address
        prompts = lengths.prompts([str(row.get("input")) for path in files for row in read_jsonl(path)])
    sequences = run.get("rollout.batch_size") * group / count
    engines = _Engines(run.model, rates, count, each, cache_tokens(run) or 0, sequences)
    prefill = rows * fmean(prompts) * (1 if run.get("vllm.enable_prefix_caching") else group)
    decoded, gib = rows * group * response, _gib(run, "generating")
    seconds = engines.seconds(prefill, decoded, fmean(prompts) + response / 2)
    yield Stage("rollouts", count * each, gib, prefill + decoded, seconds)
    if config and (duals := list(_duals(asked, config, group, response))):
        prefill, decoded = (rows / len(prompts) * math.fsum(part) for part in zip(*duals, strict=True))
        context = max(prompt + q.more + max(said) for q, prompt, said in asked if q.is_dual)
        yield Stage("duals", count * each, gib, prefill + decoded, engines.seconds(prefill, decoded, context))
    tokens = rows * group * (_padded(prompts, run) + response)
    seconds = _training(run, rates, tokens, 1 + run.has_reference)
    yield Stage("training step", _cards(run), _gib(run, "training"), tokens, seconds)


def _config(run: Run) -> Config | None:
    """Return the configuration of the dual; also where the agent that will be bound to it is not written yet."""
    agent = Path(str(run.get("train.agent_func_path")))
    unbound = agent.with_name(agent.name.replace(".agent.py", ".json"))
    if isinstance(run.config, CellDualityError):
        raise run.config
    return run.config or (Config.load(unbound) if not agent.exists() and unbound.is_file() else None)


def _duals(asked: Sequence[Measured], config: Config, group: int, response: float) -> Iterator[tuple[float, float]]:
    """Yield the tokens that the rewards of a row's group read and write at most; nothing that an endpoint answers."""
    tasks, vocabulary = config.load_tasks(), config.load_vocabulary()
    rewards = config.load_rewards(tasks)
    for q, prompt, said in asked:
        if not q.is_dual or config.dual.player == "frozen" or not rewards[q.task].asks_dual:
            continue
        reward, settings = rewards[q.task], config.tasks[q.task]
        read, written = prompt + q.more, max(said)
        times, _ = asked_about(tasks[q.task], reward, settings, vocabulary, group)
        if reward.asks_log_probs:
            read, written = read + written, 0
        else:
            times *= config.dual.samples
        drawn = settings.traces * (config.dual.max_new_tokens or response)
        yield read * times * max(1, settings.traces), times * (written + drawn)


def _evaluation(words: Sequence[str], run: Run, rates: Rates) -> Iterator[Stage]:
    """Yield `cellduality evaluate`, at most: both directions and the dual of the true answer, as long as SFT's rows."""
    assert run.model is not None
    data, split, drawn = (value_of(words, flag) for flag in ("--data", "--split", "--samples"))
    folder, answers = Path(data or ""), int(drawn or 4) + (value_of(words, "--decode") in (None, "both"))
    shown = _taught(folder, _lengths(run, rates))
    files = [path for name in (split or "test", "ood") if (path := folder / f"eval_{name}.jsonl").is_file()]
    if not files or not shown:
        return
    asked = words.count("--model") * sum(1 for path in files for _ in read_jsonl(path)) * (2 * answers + 1)
    prompt, response = fmean([prompt for _, prompt, _ in shown]), fmean([said[0] for _, _, said in shown])
    each, share = int(value_of(words, "--tensor-parallel") or 1), _EVALUATION * (run.machine.gpu_memory or 0)
    cards = run.get("actor.num_gpus_per_node", _cards(run))
    batch = int(value_of(words, "--batch") or 256) * each / cards
    engines = _Engines(run.model, rates, cards / each, each, cache_of(run.model, share, each) or 0, batch)
    seconds = engines.seconds(asked * prompt, asked * response, prompt + response / 2)
    yield Stage("evaluation", cards, share / GIB, asked * (prompt + response), seconds)
