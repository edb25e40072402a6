"""The live counter of a sampling run: how many, how fast, at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_prep.traces.asking.budget import Budget


class Display:
    """A progress bar on stderr, or nothing.

    Parameters
    ----------
    title
        Who is asked.
    total
        How many candidates there will be; None: not known.
    shown
        Whether there is anything to see.
    """

    def __init__(self, title: str, total: int | None, *, shown: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,
            disable=not shown,
        )
        self._task = self._bar.add_task(title, total=total, figures="")

    def update(self, there: int, asked: int, failed: Mapping[str, int], budget: Budget, seconds: float) -> None:
        """Show the state of the run; the rate is that of this run alone."""
        self._bar.update(self._task, completed=there, figures=figures(asked, failed, budget, seconds))

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def figures(asked: int, failed: Mapping[str, int], budget: Budget, seconds: float) -> str:
    """Return the running figures in a line.

    Examples
    --------
    >>> from data_prep.traces.asking.budget import Tokens
    >>> figures(50, {"429": 2}, Budget(usd=5, price_in=2.5, price_out=10, spent=Tokens(40_000, 30_000)), 10)
    '5.0/s, 70,000 tokens, $0.40 of $5, 2 failed'
    >>> figures(50, {}, Budget(tokens=100_000, spent=Tokens(40_000, 30_000)), 10)
    '5.0/s, 70,000 of 100,000 tokens'
    """
    rate = asked / seconds if seconds > 0 else 0.0
    bound = "" if budget.tokens is None else f" of {budget.tokens:,}"
    parts = [f"{rate:.1f}/s"]
    if budget.spent.total or bound:
        parts.append(f"{budget.spent.total:,}{bound} tokens")
    if budget.price_in or budget.price_out:
        parts.append(f"${budget.cost:.2f}" + ("" if budget.usd is None else f" of ${budget.usd:g}"))
    if failed:
        parts.append(f"{sum(failed.values())} failed")
    return ", ".join(parts)
