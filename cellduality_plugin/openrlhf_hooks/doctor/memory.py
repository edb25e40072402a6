"""What a run takes of each card and of the host, by formula.

With P parameters, t tokens of a micro-batch, h the hidden size, L layers and V words, in bytes. The optimiser holds
master weights and both moments in fp32; logits are in fp32, with a gradient in fp32 and in bf16; each process reads the
whole model as it loads. Ray's object store may take up to 30 % of the host besides, and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, Model
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

HOST = "host"
_VLLM_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"


@dataclass(frozen=True)
class Part:
    """One thing that takes memory, in bytes: while answers are generated, the policy is updated, models are loaded."""

    name: str
    where: str  # host of one node, or one card: "card", or "actor card" and the like where cards are not shared
    generating: float
    training: float
    formula: str
    loading: float = 0.0


def parts(run: Run) -> tuple[Part, ...]:
    """Return what the run takes; nothing where the model's size is not known."""
    if run.model is None or run.model.parameters is None or run.shares is None or run.devices is None:
        return ()
    found = [*_trainer(run, run.model.parameters), *_others(run, run.model.parameters)]
    if run.on_cpu:
        times = {part: 1 if part.name == "engine" else run.devices for part in found}
        found = [Part(p.name, HOST, p.generating * n, p.training * n, p.formula) for p, n in times.items()]
    return (*found, *_host(run, run.model.parameters, run.devices))


def totals(found: Sequence[Part]) -> dict[str, Part]:
    """Return {where: the sum of the parts there}."""
    summed: dict[str, Part] = {}
    for part in found:
        old = summed.get(part.where, Part("all", part.where, 0, 0, ""))
        generating, training = old.generating + part.generating, old.training + part.training
        summed[part.where] = Part("all", part.where, generating, training, "", old.loading + part.loading)
    return summed


def cache_tokens(run: Run) -> int | None:
    """Return how many tokens one engine can remember; None where card or model are not known."""
    if run.model is None or run.machine.gpu_memory is None or not run.is_rl:
        return None
    each, share = run.get("vllm.tensor_parallel_size"), run.get("vllm.gpu_memory_utilization")
    return cache_of(run.model, share * run.machine.gpu_memory, each)


def cache_of(model: Model, share: float, each: int) -> int | None:
    """Return how many tokens an engine can remember that has ``share`` bytes on each of ``each`` cards."""
    if model.parameters is None or not model.cache_bytes:
        return None
    return int((share * each - 2 * model.parameters - GIB * each) // model.cache_bytes)


def _trainer(run: Run, parameters: int) -> Iterator[Part]:
    """Yield what one process of the trainer takes."""
    where, stage, model = _card(run, "actor"), run.get("ds.zero_stage"), run.model
    assert model is not None
    awake = run.is_rl and not run.get("ds.enable_sleep")
    for name, times, shared_from, while_generating in (
        ("weights", 2, 3, run.is_rl), ("gradients", 2, 2, awake), ("optimiser", 12, 1, awake),
    ):  # fmt: skip
        size, formula = _shared(run, times * parameters, stage >= shared_from)
        if name != "optimiser" or not run.get("ds.adam_offload"):
            yield Part(name, where, size * while_generating, size, f"{times} P{formula}")
    tokens = int(run.get("train.micro_batch_size") * run.get("data.max_len"))
    if run.get("train.dynamic_batch_enable"):
        tokens = max(int(run.get("train.max_tokens_per_gpu")), int(run.get("data.max_len")))
    wide, layers = tokens * model.size("hidden_size"), model.size("num_hidden_layers")
    activations, formula = 34 * wide * layers, "34 t h L"
    if run.saves_activations:
        activations, formula = 2 * wide * layers + 34 * wide, "2 t h L + 34 t h"
    yield Part("activations", where, 0, activations, f"{formula}, t = {tokens}; roughly")
    yield Part("logits", where, 0, 10 * tokens * model.size("vocab_size"), f"10 t V, t = {tokens}")


def _others(run: Run, parameters: int) -> Iterator[Part]:
    """Yield what one process of the reference model and one card of an engine take."""
    if run.has_reference and not run.get("ref.offload"):
        size, formula = _shared(run, 2 * parameters, run.get("ds.zero_stage") == 3)
        yield Part("reference", _card(run, "reference"), size, size, f"2 P{formula}")
    if not run.is_rl:
        return
    each, share = run.get("vllm.tensor_parallel_size"), run.get("vllm.gpu_memory_utilization")
    if run.on_cpu:
        size, formula = float(run.machine.variables.get(_VLLM_CPU_CACHE, 1)) * GIB, f"2 P + {_VLLM_CPU_CACHE}"
        size += 2 * parameters
    elif run.machine.gpu_memory is None:
        size, formula = 2 * parameters / each, f"2 P / {each}; and its cache, up to {share:g} of the card"
    else:
        size, formula = share * run.machine.gpu_memory, f"{share:g} of the card"
    sleeps = run.colocated and run.get("vllm.enable_sleep") and not run.on_cpu
    yield Part("engine", _card(run, "engine"), size, 0 if sleeps else size, formula)


def _host(run: Run, parameters: int, devices: int) -> Iterator[Part]:
    """Yield what the processes of one node take of its host."""
    here = int(run.get("actor.num_gpus_per_node")) if run.is_rl else devices
    models = 2 if run.has_reference else 1
    formula = f"2 P x {here} processes x {models}, at most; then freed"
    yield Part("loading", HOST, 0, 0, formula, 2 * parameters * here * models)
    if run.get("ds.adam_offload"):
        offloaded = 16 * parameters * here / (devices if run.get("ds.zero_stage") else 1)
        yield Part("optimiser", HOST, 0, offloaded, "12 P + 4 P for gradients, of this node's share")
    elif run.is_rl and run.get("ds.enable_sleep"):
        yield Part("trainer asleep", HOST, 14 * parameters * here / devices, 0, "14 P, of this node's share")
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


def _shared(run: Run, size: float, is_shared: bool) -> tuple[float, str]:
    """Return the size of one device's share, and the end of its formula."""
    shares = (run.shares or 1) if is_shared else 1
    return size / shares, f" / {shares}" if shares > 1 else ""
