"""How a question is framed: the same in SFT, in a rollout and in its dual, today and tomorrow."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_DAYS = (datetime.datetime(2001, 2, 3), datetime.datetime(2034, 11, 25))
_TURN = [{"role": "user", "content": "Which type is the cell?"}]


def chat_template_is_applied(run: Run) -> Iterator[Finding]:
    """Prompts that are not framed by the chat template.

    The dual is always framed by it. SFT without it frames questions as `User: ...`, its default, RL not at all.
    """
    if run.is_rl and not run.is_ours:
        return
    if run.get("data.apply_chat_template"):
        if run.flags.given.get("data.input_template"):
            yield note(
                "the chat template is applied, so the input template is not", "--data.input_template", "leave it out"
            )
        return
    frame = run.get("data.input_template")
    shown = f"framed as {frame!r}" if frame else "not framed at all"
    yield error(f"questions are {shown}, and the dual by the chat template", "--data.apply_chat_template", "pass it")


def template_given_as_text(run: Run) -> Iterator[Finding]:
    """A chat template given as a file.

    `--data.tokenizer_chat_template` is the template's text; a path would become the template itself.
    """
    given = run.get("data.tokenizer_chat_template")
    if given and "{" not in given:
        where = "--data.tokenizer_chat_template"
        what = "a path is taken for the template's text" if Path(given).exists() else "the template shows no message"
        yield error(f"{what}: {given:.60}", where, f'pass the text: "$(cat {given})"')


def date_in_template(run: Run) -> Iterator[Finding]:
    """A chat template that inserts today's date.

    That of Llama 3.2 does. SFT, RL and evaluation on different days then ask different questions, and a run changes at
    midnight.
    """
    if run.tokenizer is None or isinstance(run.tokenizer, CellDualityError):
        return
    texts = {_text(run, _TURN, add_generation_prompt=True, strftime_now=day.strftime) for day in _DAYS}
    if len(texts) > 1:
        pin = (
            "pass a --data.tokenizer_chat_template without it" if not run.is_rl else "replace it in the model's folder"
        )
        yield warning("the chat template inserts today's date", f"{run.model_flag} {run.get(run.model_flag[2:])}", pin)


def end_of_response(run: Run) -> Iterator[Finding]:
    """A chat template whose answer does not follow the prompt, or does not end in the tokenizer's end token.

    OpenRLHF cuts the response out of the rendered conversation by the prompt's length. Where it does not end in the end
    token, a blank and the end token are added, and the policy learns to say both.
    """
    if not run.get("data.apply_chat_template") or not run.row_files:
        return
    if run.tokenizer is None or isinstance(run.tokenizer, CellDualityError):
        return
    try:
        row = next(read_jsonl(run.row_files[0]), {})
    except CellDualityError:  # another check says so
        return
    if not isinstance(row.get("input"), str) or not isinstance(row.get("output"), str):
        return
    turns = [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}]
    from jinja2 import TemplateError

    try:
        prompt, both = _text(run, turns[:1], add_generation_prompt=True), _text(run, turns)
    except TemplateError as failure:
        prompt, both = "", str(failure)
    where = f"{run.model_flag} {run.get(run.model_flag[2:])}"
    if not both.startswith(prompt) or row["output"].strip() not in both[len(prompt) :]:
        yield error(
            "the chat template does not put the answer behind the prompt as it is",
            where,
            "pass a --data.tokenizer_chat_template that does",
        )
    elif not both.rstrip("\n").endswith(str(run.tokenizer.eos_token)):
        yield warning(
            f"answers do not end in the tokenizer's end token {run.tokenizer.eos_token!r}",
            where,
            "make the token that ends a turn the tokenizer's eos_token",
        )


def _text(run: Run, turns: list[dict[str, str]], **settings: Any) -> str:
    assert run.tokenizer is not None
    return str(run.tokenizer.apply_chat_template(turns, tokenize=False, **settings))  # type: ignore[union-attr]
