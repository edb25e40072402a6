"""How well the policy, asked back, accounts for the hidden part: the reward of one answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cellduality_plugin.config import RewardName
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


@dataclass(frozen=True)
class Verdict:
    """The similarity of x_u and its reconstruction, in [0, 1], or why there is none."""

    similarity: float
    failure: str = ""


class Reward(Protocol):
    """Judges one parsed answer by asking a policy."""

    async def judge(
        self, task: DualTask, example: Example, answer: Value, policy: Policy, vocabulary: Vocabulary
    ) -> Verdict:
        """Return the verdict on ``answer``.

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """
        ...


class DualityReward:
    """Generate the reconstruction, parse it, compare it: r = similarity(x_u, x_u_hat), section 3.4.1."""

    async def judge(
        self, task: DualTask, example: Example, answer: Value, policy: Policy, vocabulary: Vocabulary
    ) -> Verdict:
        """Return the similarity of the generated reconstruction to x_u; 0 if it cannot be read."""
        text = await policy.generate(task.dual_prompt(example.known, answer, vocabulary))
        rebuilt = task.parse_rebuilt(text, vocabulary)
        if rebuilt.value is None:
            return Verdict(0.0, rebuilt.failure)
        return Verdict(task.similarity(example.unknown, rebuilt.value))


class LikelihoodReward:
    r"""Teacher-forced likelihood of x_u: one prefill, nothing is decoded.

    .. math:: r = \max\bigl(0,\; 1 + \frac{1}{n \ln |V|} \sum_{i=1}^{n} \ln \pi(x_{u,i} \mid y, x_k, x_{u,<i})\bigr)

    It is 1 for certainty and 0 for a policy that does no better than drawing each token evenly from a vocabulary
    of |V| genes. Not in the paper.
    """

    async def judge(
        self, task: DualTask, example: Example, answer: Value, policy: Policy, vocabulary: Vocabulary
    ) -> Verdict:
        """Return the normalised mean log-probability of the true x_u."""
        prompt = task.dual_prompt(example.known, answer, vocabulary)
        log_probs = await policy.log_probs(prompt, task.rebuilt_response(example.unknown))
        mean = math.fsum(log_probs) / len(log_probs) if log_probs else math.nan
        if not math.isfinite(mean):
            raise PolicyError("not_finite")
        return Verdict(min(1.0, max(0.0, 1.0 + mean / math.log(max(2, len(vocabulary.genes))))))


REWARDS: dict[RewardName, Reward] = {"duality": DualityReward(), "likelihood": LikelihoodReward()}
