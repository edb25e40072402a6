"""What each rollout and each group writes to the trainer's log, beside its reward: the same keys always, sorted.

OpenRLHF takes numbers alone, needs the same keys from every rollout, and logs the mean of each over a step. Two things
follow. A figure that not every rollout has (the truth, the entropy of a closed set) is logged as 0 where there is none,
beside a 1 or 0 that says whether there was one: the quotient of the two means is the figure's mean
(:mod:`cellduality_plugin.alarms`). And a figure of a whole group is known to its last rollout alone, which logs it
times the number of rollouts, while the others log 0: the mean over the step is then the mean over groups.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import MAX_CHARACTERS, Answer, OneOf
from cellduality_plugin.rewards import Verdict
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

CAUSES = (
    "ambiguous", "empty", "engine_error", "http_429", "http_5xx", "malformed", "no_answer", "no_log_probs",
    "not_a_number", "not_finite", "out_of_range", "prompt_too_long", "refused", "timeout", "too_long", "unclosed",
    "unknown_label",
)  # fmt: skip
"""Why a dual gave no verdict. Logged besides: ``partial`` where a part of it gave one, ``other`` for any further
cause, for keys may not depend on what happens."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Rollout:
    """A rollout that was judged."""

    task: DualTask
    example: Example
    text: str
    answer: Answer
    verdict: Verdict
    # What the policy was shown and what it rebuilt from that and the answer, of every draw; empty if the reward asked
    # for no reconstruction.
    rebuilt: Sequence[tuple[Mapping[str, Value], Answer]]
    validity: float  # in [0, 1], like the reward
    reward: float
    requests: int  # the calls that were made for it and for no rollout before it, of its group or of others in flight
    seconds: float  # how long it waited for its verdict


def rollout_logs(rollout: Rollout, tasks: Iterable[str], vocabulary: Vocabulary) -> dict[str, float]:
    """Return what is logged of one rollout: every key there is, those of :func:`group_logs` as 0.

    ``tasks`` are the names of all tasks of the run: each has its keys in every rollout.
    """
    example, answer, verdict = rollout.example, rollout.answer, rollout.verdict
    parsed, listed = float(answer.value is not None), max(answer.listed, 1)
    cause = verdict.failure if verdict.failure in CAUSES else "other" if verdict.failure else "partial"
    truth = 0.0 if example.gold is None or answer.value is None else rollout.task.truth(example.gold, answer.value)
    mine = rollout.task.name
    of_task: dict[str, float] = {
        "dual_reward": rollout.reward,
        "dual_share": 1.0,
        "dual_similarity": verdict.similarity,
        "dual_truth": truth if 0.0 <= truth <= 1.0 else 0.0,  # a pair of the user's own may be wrong
        "dual_truth_share": example.gold is not None,
        "dual_validity": rollout.validity,
    }
    logs: dict[str, float] = {
        "dual_answer_parsed": parsed,
        "dual_failed": verdict.failed,
        "dual_levelled": 0.0,
        "dual_lists": answer.listed > 0,
        "dual_repeated_genes": answer.repeated / listed,
        "dual_requests": rollout.requests,
        "dual_reward": rollout.reward,
        "dual_seconds": rollout.seconds,
        "dual_similarity": verdict.similarity,
        "dual_succeeded": parsed - verdict.failed,
        "dual_timeout": verdict.failure == "timeout",
        "dual_unknown_genes": answer.unknown / listed,
        "dual_validity": rollout.validity,
        **{f"dual_failed/{name}": verdict.failed * (name == cause) for name in (*CAUSES, "other", "partial")},
        **{f"{key}/{task}": each * (task == mine) for key, each in of_task.items() for task in tasks},
        **_copies(rollout),
        **_leaks(rollout, vocabulary),
        **group_logs([], rollout.task, vocabulary, truncated=False, seconds=0.0),
    }
    return {key: float(logs[key]) for key in sorted(logs)}


def group_logs(
    group: Sequence[tuple[Value | None, float]],
    task: DualTask,
    vocabulary: Vocabulary,
    *,
    truncated: bool,
    seconds: float,
) -> dict[str, float]:
    """Return what is known of a rollout when it is over, and of its group if that is over with it.

    ``group`` is the answer and the final reward of every rollout of the group, if this one is its last; else nothing.
    The response may be ``truncated`` at its length; the rollout took so many ``seconds``, the dual included.
    """
    labels = len(vocabulary.labels[task.answer.kind]) if isinstance(task.answer, OneOf) else 0
    answers = [answer for answer, _ in group if answer is not None]
    rewards = [reward for _, reward in group]
    size = float(len(group)) if len(group) > 1 else 0.0  # one rollout has no spread that could be missing
    closed = size if labels > 1 and len(answers) > 1 else 0.0
    return {
        "dual_distinct_answers": size * len(set(answers)),
        "dual_groups": size,
        "dual_label_entropy": closed and closed * entropy(answers, labels),
        "dual_label_groups": closed,
        "dual_rollout_seconds": seconds,
        "dual_truncated": float(truncated),
        "dual_zero_variance": size and size * (min(rewards) == max(rewards)),
    }


def entropy(answers: Sequence[Value], labels: int) -> float:
    """Return the entropy of ``answers`` as a share of the most it could be, in [0, 1]; 1 if all differ that can.

    These are two answers of a group at least, to choose from two ``labels`` at least.
    """
    count, most = len(answers), min(len(answers), labels)
    # The most even spread there is: with more answers than labels some labels come once more than others.
    each, over = divmod(count, most)
    evenest = _entropy([each + 1] * over + [each] * (most - over))
    return min(1.0, _entropy(list(Counter(answers).values())) / evenest)


def _entropy(counts: Sequence[int]) -> float:
    total = sum(counts)
    return 0.0 - math.fsum(count / total * math.log(count / total) for count in counts)


def _copies(rollout: Rollout) -> dict[str, float]:
    """Return how much was copied: of a cell that was shown what stands at the same ranks (relatives share genes), in a
    reconstruction every gene that was shown."""
    shown = _lists(rollout.example.inputs)
    written = rollout.answer.value if shown and isinstance(rollout.answer.value, tuple) else ()
    same = [sum(map(str.__eq__, written, genes)) / max(len(written), 1) for genes in shown]
    shares = []
    for known, read in rollout.rebuilt:
        seen = {gene for genes in _lists(known) for gene in genes}
        if seen and isinstance(read.value, tuple):
            shares.append(sum(gene in seen for gene in read.value) / len(read.value))
    return {
        "dual_copyable/rebuilt": float(bool(shares)),
        "dual_copyable/response": float(bool(written)),
        "dual_copied/rebuilt": math.fsum(shares) / len(shares) if shares else 0.0,
        "dual_copied/response": max(same, default=0.0),
    }


def _lists(values: Mapping[str, Value]) -> list[tuple[str, ...]]:
    return [value for value in values.values() if not isinstance(value, str)]


def _leaks(rollout: Rollout, vocabulary: Vocabulary) -> dict[str, float]:
    """Return how much of x_u the response names, in its trace and outside: all of it would help a dual that saw it."""
    text, trace = rollout.text[: MAX_CHARACTERS + 1], rollout.answer.trace
    rest = text.replace(trace, " ", 1) if trace else text
    # Where the answer is a list of genes, as what is hidden is, to name genes there is to answer.
    free = not isinstance(rollout.answer.value, tuple) or isinstance(rollout.example.unknown, str)
    return {
        "dual_leak/answer": named(rollout.example.unknown, rest, vocabulary) if free else 0.0,
        "dual_leak/trace": named(rollout.example.unknown, trace, vocabulary),
    }


def named(hidden: Value, text: str, vocabulary: Vocabulary) -> float:
    """Return 1 if ``text`` names the label, or the share of the genes that it names; in [0, 1].

    A label that is spelled like a gene is never counted.

    Examples
    --------
    >>> world = Vocabulary(genes=("CD74", "LYZ", "HLA-DRA", "T"), labels={})
    >>> named("CD19+ B", "as a cd19+ B cell", world), named("T", "CD74 T LYZ", world), named("B", "CD8B B2M", world)
    (1.0, 0.0, 0.0)
    >>> named(("LYZ", "HLA-DRA"), "HLA-DRA, and nothing else", world)
    0.5
    """
    if not isinstance(hidden, str):
        words = {vocabulary.gene(word.strip(".,;:!?()[]{}\"'`*<>")) for word in re.split(r"[\s,;/]+|<[^<>]*>", text)}
        return sum(gene in words for gene in hidden) / max(len(hidden), 1)
    label = " ".join(_WORD.findall(hidden.casefold()))
    if not label or vocabulary.gene(hidden.strip()) is not None:
        return 0.0
    return float(f" {label} " in f" {' '.join(_WORD.findall(text.casefold()))} ")
