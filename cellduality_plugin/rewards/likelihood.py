"""How likely the hidden part is, teacher-forced."""

from __future__ import annotations

import math

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards.base import Reward, Verdict, reward


@reward("likelihood")
class LikelihoodReward(Reward):
    r"""Teacher-forced likelihood of x_u: one prefill, nothing is decoded.

    .. math:: r = \max\bigl(0,\; 1 + \frac{1}{n \ln |V|} \sum_{i=1}^{n} \ln \pi(x_{u,i} \mid y, x_k, x_{u,<i})\bigr)

    It is 1 for certainty and 0 for a policy that does no better than drawing each token evenly from a vocabulary
    of |V| genes. With ``traces`` a prefill after each of them. Not in the paper.
    """

    audited = True
    asks_log_probs = True

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        total, tokens = await dual.log_likelihood(answer, dual.example.unknown)
        return Verdict(min(1.0, max(0.0, 1.0 + total / tokens / math.log(max(2, len(dual.vocabulary.genes))))))
