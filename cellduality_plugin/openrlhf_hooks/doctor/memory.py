"""What a run takes of each card and of the host, by formula.

With P parameters, D devices that share a batch, z the ZeRO stage, t tokens of a micro-batch, h the hidden size,
L layers and V words (bytes; P, L, h, V out of the model's config.json):

weights      2 P / (D if z = 3)
gradients    2 P / (D if z >= 2)
optimiser    12 P / (D if z >= 1): master weights and both moments in fp32; on the host with --ds.adam_offload
activations  2 t h L + 34 t h with gradient checkpointing, 34 t h L without; roughly
logits       10 t V: fp32, their gradient in fp32 and in bf16
reference    2 P / (D if z = 3); on the host with --ref.offload
engine       --vllm.gpu_memory_utilization of the card, while generating; while training as well, unless it sleeps
cache        of it, 2 x layers x kv heads x head size x 2 bytes a token
host         each process reads the whole model as it loads: 2 P each; then whatever is offloaded, and 2 P an engine
             that sleeps. Ray's object store may take up to 30 % of the host besides, and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.model import Model
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

HOST = "host"
_VLLM_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True)
class Part:
    """One thing that takes memory.

    Parameters
    ----------
    name
        What it is.
    where
        ``host`` of one node, or one card: ``card``, or ``actor card`` and the like where cards are not shared.
    generating, training, loading
        Bytes, while answers are generated, while the policy is updated, and while models are loaded.
    formula
        How they were reckoned.
    """

    name: str
    where: str
    generating: float
    training: float
    formula: str
    loading: float = 0.0


def parts(run: Run) -> tuple[Part, ...]:
    """Return what the run takes; nothing where the model's size is not known."""
    model = run.model
    if model is None or model.parameters is None or run.shares is None or run.devices is None:
        return ()
    found = [*_trainer(run, model, model.parameters)]
    if run.is_rl:
        found += [*_reference(run, model.parameters), *_engine(run, model.parameters)]
    found += _host(run, model.parameters)
    return tuple(_on_host(part, run) if on_cpu(run) else part for part in found)


def totals(found: tuple[Part, ...]) -> dict[str, tuple[float, float, float]]:
    """Return {where: bytes while generating, while training, while loading}."""
    places = dict.fromkeys(part.where for part in found)
    return {
        place: (
            sum(part.generating for part in found if part.where == place),
            sum(part.training for part in found if part.where == place),
            sum(part.loading for part in found if part.where == place),
        )
        for place in places
    }


def on_cpu(run: Run) -> bool:
    """Return whether everything is in the host's memory."""
    return run.command.on_cpu and not run.machine.gpus


def cache_tokens(run: Run) -> int | None:
    """Return how many tokens one engine can remember; None where card or model are not known."""
    model, card = run.model, run.machine.gpu_memory
    if model is None or model.parameters is None or card is None or not model.cache_bytes or not run.is_rl:
        return None
    each = run.get("vllm.tensor_parallel_size")
    room = card * run.get("vllm.gpu_memory_utilization") * each - 2 * model.parameters - GIB * each
    return int(room // model.cache_bytes)


def _trainer(run: Run, model: Model, parameters: int) -> Iterator[Part]:
    where, stage, shares = _card(run, "actor"), run.get("ds.zero_stage"), run.shares or 1
    sleeps, offloads = bool(run.get("ds.enable_sleep")), bool(run.get("ds.adam_offload"))
    weights = 2 * parameters / (shares if stage == 3 else 1)
    gradients = 2 * parameters / (shares if stage >= 2 else 1)
    optimiser = 12 * parameters / (shares if stage >= 1 else 1)
    awake = 1 if run.is_rl and not sleeps else 0
    yield Part("weights", where, weights if run.is_rl else 0, weights, f"2 P{_share(shares, stage == 3)}")
    yield Part("gradients", where, gradients * awake, gradients, f"2 P{_share(shares, stage >= 2)}")
    if not offloads:
        formula = f"12 P{_share(shares, stage >= 1)}"
        yield Part("optimiser", where, optimiser * awake, optimiser, formula)
    tokens = _tokens(run)
    name = "actor" if run.is_rl else "model"
    checkpoints = bool(run.get(f"{name}.gradient_checkpointing_enable"))
    if checkpoints:
        activations, formula = 2 * tokens * model.hidden * model.layers + 34 * tokens * model.hidden, "2 t h L + 34 t h"
    else:
        activations, formula = 34 * tokens * model.hidden * model.layers, "34 t h L"
    yield Part("activations", where, 0, activations, f"{formula}, t = {tokens}; roughly")
    yield Part("logits", where, 0, 10 * tokens * model.vocabulary, f"10 t V, t = {tokens}")


def _reference(run: Run, parameters: int) -> Iterator[Part]:
    if run.get("algo.kl.init_coef") > 0 and not run.get("ref.offload"):
        whole = run.get("ds.zero_stage") == 3
        size = 2 * parameters / ((run.shares or 1) if whole else 1)
        yield Part("reference", _card(run, "reference"), size, size, f"2 P{_share(run.shares or 1, whole)}")


def _engine(run: Run, parameters: int) -> Iterator[Part]:
    where, each = _card(run, "engine"), run.get("vllm.tensor_parallel_size")
    if on_cpu(run):
        cache = float(run.machine.variables.get(_VLLM_CPU_CACHE, 1)) * GIB
        yield Part("engine", where, 2 * parameters + cache, 2 * parameters + cache, f"2 P + {_VLLM_CPU_CACHE}")
        return
    share, card = run.get("vllm.gpu_memory_utilization"), run.machine.gpu_memory
    if card is None:
        least = 2 * parameters / each
        formula = f"2 P / {each}; and its cache, up to {share:g} of the card"
    else:
        least, formula = share * card, f"{share:g} of the card"
    sleeps = run.colocated and run.get("vllm.enable_sleep")
    yield Part("engine", where, least, 0 if sleeps else least, formula)


def _host(run: Run, parameters: int) -> Iterator[Part]:
    devices = run.devices or 1
    here = int(run.get("actor.num_gpus_per_node")) if run.is_rl else devices
    models = 2 if run.is_rl and run.get("algo.kl.init_coef") > 0 else 1
    size = 2 * parameters * here * models
    yield Part("loading", HOST, 0, 0, f"2 P x {here} processes x {models}, at most; then freed", size)
    if run.get("ds.adam_offload"):
        offloaded = 16 * parameters * here / devices if run.get("ds.zero_stage") else 16 * parameters * here
        yield Part("optimiser", HOST, 0, offloaded, "12 P + 4 P for gradients, of this node's share")
    elif run.is_rl and run.get("ds.enable_sleep"):
        asleep = 14 * parameters * here / devices
        yield Part("trainer asleep", HOST, asleep, 0, "14 P, of this node's share")
    if run.is_rl and run.colocated and run.get("vllm.enable_sleep"):
        engines = here / run.get("vllm.tensor_parallel_size")
        yield Part("engines asleep", HOST, 0, 2 * parameters * engines, f"2 P x {engines:g} engines")
    if run.is_rl and run.get("ref.offload"):
        yield Part("reference", HOST, 2 * parameters * here, 2 * parameters * here, f"2 P x {here}, at most")


def _card(run: Run, name: str) -> str:
    if not run.is_rl or run.colocated:
        return "card"
    if name != "engine" and (run.get("train.colocate_actor_ref") or run.get("train.colocate_all")):
        return "trainer's card"
    return f"{name} card"


def _on_host(part: Part, run: Run) -> Part:
    """Return the part as it is on a machine without a card: that of every process, on the host."""
    times = 1 if part.where == HOST or part.name == "engine" else run.devices or 1
    return Part(part.name, HOST, part.generating * times, part.training * times, part.formula, part.loading)


def _tokens(run: Run) -> int:
    if run.get("train.dynamic_batch_enable"):
        return max(int(run.get("train.max_tokens_per_gpu")), int(run.get("data.max_len")))
    return int(run.get("train.micro_batch_size") * run.get("data.max_len"))


def _share(shares: int, is_shared: bool) -> str:
    return f" / {shares}" if is_shared and shares > 1 else ""
