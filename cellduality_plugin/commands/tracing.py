"""`cellduality traces ...`: reasoning traces for SFT, from a teacher's candidates to the rows that passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from typer import Option

from cellduality_plugin.commands.arguments import Data, Seed, pairs, wide_console
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from data_prep.traces.asking.sampling import SampleSettings, SampleSummary


def sample_candidates(
    data: Data,
    teacher: Annotated[str, Option(help="`rule` (offline, from labelled training cells), or a MODEL's name.")],
    base_url: Annotated[str, Option(help="Of an OpenAI-compatible endpoint; OpenAI's own if empty.")] = "",
    candidates: Annotated[int, Option(help="Candidates for each question.")] = 4,
    concurrency: Annotated[int, Option(help="Requests at the same time, at most.")] = 64,
    temperature: Annotated[float, Option(help="Of the model.")] = 1.0,
    max_tokens: Annotated[int, Option(help="Tokens of a reply, at most.")] = 1024,
    budget_tokens: Annotated[int | None, Option(help="Tokens it may take, earlier runs counted.")] = None,
    budget_usd: Annotated[float | None, Option(help="The same in US dollars, at the prices given.")] = None,
    price_in: Annotated[float, Option(help="Dollars for a million tokens of questions.")] = 0.0,
    price_out: Annotated[float, Option(help="Dollars for a million tokens of replies.")] = 0.0,
    api_key_env: Annotated[str, Option(help="The environment variable that holds the key.")] = "OPENAI_API_KEY",
    limit: Annotated[int | None, Option(help="Questions at most, drawn at random with their duals.")] = None,
    well_posed: Annotated[bool, Option("--well-posed", help="Ask the dual about each answer, for the filter.")] = False,
    seed: Seed = 42,
) -> None:
    """Ask a teacher about every question of DATA/sft.jsonl and keep each reply in DATA/traces/candidates.jsonl.

    A run that was stopped goes on where it was: nothing is asked twice. Keys are read from the environment alone.

    Examples:

    `cellduality traces sample --data data --teacher rule`

    `cellduality traces sample --data data --teacher gpt-4o --budget-usd 5 --price-in 2.5 --price-out 10`

    `cellduality traces sample --data data --teacher Qwen/Qwen3-8B --base-url http://localhost:8000/v1 --limit 100`
    """
    import numpy as np

    from data_prep.traces.asking.endpoint import EndpointTeacher
    from data_prep.traces.asking.sampling import SampleSettings, sample
    from data_prep.traces.candidates import dual_questions, read_instances, some_questions
    from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS
    from data_prep.traces.rule.teacher import read_rule_teacher

    config = Config.load(data / "cellduality.json")
    tasks, vocabulary = config.load_tasks(), config.load_vocabulary()
    how = {"candidates": candidates, "concurrency": concurrency, "budget_tokens": budget_tokens}
    settings = SampleSettings.read({**how, "budget_usd": budget_usd, "price_in": price_in, "price_out": price_out})
    model: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "api_key_env": api_key_env}
    rule = read_rule_teacher(data, seed) if teacher == "rule" else None
    who = rule or EndpointTeacher(teacher, base_url, seed=seed, **model)
    questions = some_questions(data / QUESTIONS, tasks, limit, np.random.default_rng(seed))
    did = sample(questions, who, data / CANDIDATES, settings)
    _print_summary(did, who.name, settings)
    if well_posed and not did.stopped_by:
        duals = dual_questions(read_instances(data / QUESTIONS, data / CANDIDATES, tasks)[0], vocabulary)
        did = sample(duals, who, data / CANDIDATES, settings)
        _print_summary(did, f"{who.name}, duals of all answers", settings)


def _print_summary(did: SampleSummary, title: str, settings: SampleSettings) -> None:
    """Print what a run did; raise a CellDualityError if it ended because the endpoint failed."""
    parts = [f"{did.asked} new candidates in {did.seconds:.1f} s", f"{did.present} were there"]
    parts += [f"{did.left} are missing"] if did.left else []
    parts += [f"{did.tokens.sum():,} tokens"] if did.tokens.any() else []
    parts += [f"${settings.cost(did.tokens):.2f}"] if settings.price_in or settings.price_out else []
    print(f"{title}: {', '.join(parts)}")
    for reason, count in did.failed.items():
        print(f"  given up: {count} x {reason}: {did.said.get(reason, '')}"[:200])
    if did.stopped_by == "faults":
        what = f"stopped: the last {settings.patience} questions were all given up"
        hint = "see what the endpoint said; the same command goes on from here"
        raise CellDualityError(what, code="endpoint-fails", where=title, hint=hint)
    if did.stopped_by == "budget":
        print("stopped at the budget; the same command with a larger one goes on from here")


def filter_candidates(
    data: Data,
    keep: Annotated[int, Option(help="Rows of a question, at most: the best.")] = 1,
    threshold: Annotated[
        list[str] | None,
        Option(
            help="The least RWJS of a gene list to the right one: NUMBER for all, or GROUP=NUMBER,...; a group is "
            "TASK, primal, dual, TASK/primal or TASK/dual. 0.5 where nothing is said."
        ),
    ] = None,
    share: Annotated[list[str] | None, Option(help="Weights of rows, GROUP=WEIGHT,...; others weigh 1.")] = None,
    directions: Annotated[str, Option(help="both, or primal: no dual rows at all.")] = "both",
    duals: Annotated[str, Option(help="paired: duals of kept primal rows alone; all: all that pass.")] = "paired",
    fill: Annotated[bool, Option("--fill", help="Where no candidate is accepted the bare answer is kept.")] = False,
    traces: Annotated[bool, Option("--traces/--no-traces", help="With the teacher's reasoning, or without.")] = True,
    well_posed: Annotated[bool, Option("--well-posed", help="Leave out where not just one answer solves.")] = False,
    min_trace_words: Annotated[int, Option(help="Words of a trace, at least.")] = 3,
    max_trace_words: Annotated[int, Option(help="Words of a trace, at most.")] = 400,
    seed: Seed = 42,
) -> None:
    """Keep the candidates that pass as SFT rows in DATA/sft_traces.jsonl, the others with their reason.

    Labels must be right; gene lists must be like the right one (RWJS); traces must be there, of bounded length, and
    must not tell that the answer was known. DATA/traces/rejected.jsonl names the reason of every other candidate.

    Examples:

    `cellduality traces filter --data data --threshold 0.5 --threshold dual=0.3 --fill`

    `cellduality traces filter --data data --keep 2 --share dual=0.5,cell_type_annotation/primal=2`
    """
    from data_prep.traces.filtering.curation import CurationSettings, curate, describe

    filters: dict[str, Any] = {
        "keep": keep, "traces": traces, "min_trace_words": min_trace_words, "max_trace_words": max_trace_words,
    }  # fmt: skip
    least = pairs(",".join(threshold or []), "--threshold", "")
    filters["thresholds"] = {group: number for group, number in least.items() if number}
    for alone in (text for text, number in least.items() if not number):
        filters["threshold"] = alone
    shares = pairs(",".join(share or []), "--share")
    how = {"directions": directions, "duals": duals, "fill": fill, "well_posed": well_posed, "seed": seed}
    settings = CurationSettings.read({"filters": filters, "shares": shares, **how})
    with Console(stderr=True).status("filtering"):
        summary = curate(data, Config.load(data / "cellduality.json").load_tasks(), settings)
    wide_console().print(describe(summary))


def show_statistics(data: Data) -> None:
    """Print how many candidates pass and why others do not, what thresholds would leave, and how long traces are.

    The settings are those of the last `traces filter`, or its defaults.

    Example: `cellduality traces stats --data data`
    """
    from data_prep.traces.filtering.statistics import last_settings, statistics, tables

    settings = last_settings(data)
    with Console(stderr=True).status("counting"):
        found = statistics(data, Config.load(data / "cellduality.json").load_tasks(), settings)
    wide_console().print(*tables(found, settings.filters.keep), sep="\n")
