"""How sure the policy is of one label among all of a closed set."""

from __future__ import annotations

import asyncio

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards.base import LabelScores, reward
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


@reward("posterior")
class PosteriorReward(LabelScores):
    r"""How sure the policy is of the true member of a closed set of labels C, all of which it is asked about.

    Where x_u is a label, that label among all that could be hidden, given the answer:

    .. math:: r = \pi(x_u \mid y, x_k) \Big/ \sum_{c \in C} \pi(c \mid y, x_k)

    so that 1[rebuilt = x_u] becomes graded. Where the answer y is a label and x_u is not, the answer among all that
    could be given (or some of them: ``negatives`` of a task), by Bayes' rule with an even prior:

    .. math:: r = \pi(x_u \mid y, x_k) \Big/ \sum_{c \in C} \pi(x_u \mid c, x_k)

    In the first form the probabilities are those of the tokens at which the labels branch: one prefill an answer for
    each such place. In the second they are of the whole response, teacher-forced: one prefill a label, once a group,
    whatever its answers; being products over every hidden gene they are sharp. Not in the paper.

    Of a set that no question lists C is the label with ``negatives`` others, and in the second form what else the
    group answered.
    """

    audited = True
    asks_every_label = True
    asks_log_probs = True

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        hidden, unknown = task.unknown, example.unknown
        if isinstance(hidden, OneOf) and vocabulary.label(hidden.kind, str(unknown)) != unknown:
            what = f"the hidden {hidden.kind} {unknown!r:.60} is not in the vocabulary"
            hint = "prepare the data again, rows and vocabulary together"
            raise CellDualityError(what, code="unknown-label", where=f"row {example.id}", hint=hint)

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        hidden, unknown = dual.task.unknown, dual.example.unknown
        if isinstance(hidden, OneOf):
            labels, true = dual.choices(hidden.kind, unknown), str(unknown)
            sums = await dual.choice_log_probs(answer, labels)
        else:
            labels, true = dual.rivals(answer), str(answer)
            found = await asyncio.gather(*(dual.log_likelihood(label, unknown) for label in labels))
            sums = [total for total, _ in found]
        return dict(zip(labels, sums, strict=True)), true
