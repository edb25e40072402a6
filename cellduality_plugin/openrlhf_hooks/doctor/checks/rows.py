"""The rows, and how a question is framed: in SFT, in a rollout and in its dual, today and tomorrow."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, finding_of, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.model import Model
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_CELL = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"), "split": "(\w+)"')


@check()
def data_files(run: Run) -> Found:
    """Rows that are not there. A comma separates data sets and an @ begins a folder inside one, also where they are
    part of a name."""
    if not run.rows:
        yield error("no rows to train on", run.rows_flag, "pass the rows that cellduality data prepare wrote")
    is_split = len(run.rows) > 1 or "@" in str(run.get(run.rows_flag[2:]))
    for name in run.rows:
        if Path(name).exists():
            continue
        if Path(name).is_absolute() or name.endswith((".jsonl", ".json")) or name.startswith("."):
            hint = "prepare the data first (bash recipes/prepare.sh)"
            hint += "; OpenRLHF splits a name at , and @" if is_split else ""
            yield error("no such file", f"{run.rows_flag} {name}", hint)
        else:
            yield note("rows of the hub could not be checked", f"{run.rows_flag} {name}")


@check()
def keys(run: Run) -> Found:
    """Rows read under other names than they have. Without `--data.label_key` every label is empty, and the agent has
    nothing to ask the dual about; without `--data.output_key` SFT takes the input for a list of turns."""
    if run.is_rl and not run.is_ours:
        return
    for name, wanted in (("input_key", "input"), ("label_key", "label") if run.is_rl else ("output_key", "output")):
        found, flag = run.get(f"data.{name}"), f"--data.{name}"
        if found != wanted:
            yield error(f"{flag} is {found}, and rows call it {wanted!r}", flag, f"pass {wanted}")


@check()
def model_folder(run: Run) -> Found:
    """A model that is missing, incomplete, or has no tokenizer or chat template. Without a chat template neither the
    dual nor evaluation can frame a question."""
    problem = run.tokenizer
    if run.model is None:
        yield error("no model to start from", run.model_flag, "name a folder or a model of the hub")
    elif isinstance(problem, CellDualityError) and (run.model.is_local or "chat template" in problem.what):
        yield finding_of(problem)
    elif isinstance(problem, CellDualityError):
        what = f"{problem.what}: lengths and chat template could not be checked"
        yield note(what, run.model_place, "download it first, or check the name and the network")


@check()
def positions(run: Run, model: Model) -> Found:
    """A context longer than the model's positions. vLLM refuses to start with it, and the trainer computes nonsense
    beyond them."""
    found, context = model.size("max_position_embeddings"), run.get("data.max_len")
    if not found and not model.is_missing:
        yield note("how many positions the model has could not be checked", run.model_flag)
    elif found and found < context:
        what = f"the model has {found} positions, fewer than {context}"
        yield error(what, "--data.max_len", "lower it (MAX_LEN)")


@check(RL)
def room_for_prompts(run: Run) -> Found:
    """Responses that may be as long as the context. A prompt too long for what they leave is cut from the left, system
    turn first; where they leave nothing it is passed whole, and overflows the engine. Without a limit a response may
    leave its dual no room."""
    limit, context, flag = run.get("rollout.max_new_tokens"), run.get("data.max_len"), "--rollout.max_new_tokens"
    if limit is None:
        yield warning("responses have no limit", flag, f"pass less than {context}")
    elif limit >= context:
        yield error(f"{limit} tokens of a response leave no room for a prompt in {context}", flag, "lower it")


@check(RL)
def rl_rows(run: Run, config: Config, tokenizer: Any) -> Found:
    """A row whose prompt, dual or both responses do not fit, whose task is unknown, or that its reward cannot judge. An
    overlong prompt is cut in silence, and an overlong dual counts as failed."""
    limit = run.get("rollout.max_new_tokens") or 0
    for path in run.row_files:
        try:
            preflight.check_rl(path, config, tokenizer, max_len=run.get("data.max_len"), max_new_tokens=limit)
        except CellDualityError as failure:
            yield finding_of(failure)


@check()
def held_out_rows(run: Run) -> Found:
    """Rows about cells that are kept for evaluation, or of another preparation than the agent's. An `eval_test.jsonl`,
    and traces that were chosen before the data were prepared anew, train on test cells; under another vocabulary
    nothing can be answered right."""
    for path in run.row_files:
        folder = run.config_path.parent if run.is_ours and run.config_path else path.parent
        splits, hint = _splits(folder / "cells.jsonl"), "pass the rows that were prepared with this configuration"
        if not splits:
            continue
        try:
            found = Counter(splits.get(str(row["id"]), "") for row in read_jsonl(path) if "id" in row)
        except CellDualityError:  # another check says so
            continue
        held = ", ".join(f"{count} {split}" for split, count in sorted(found.items()) if split not in ("", "train"))
        if held:
            what = f"rows are about cells that are kept for evaluation ({held})"
            yield error(what, f"{run.rows_flag} {path}", f"{hint}; choose traces again (cellduality traces filter)")
        elif found[""]:
            what = f"{found['']} of {found.total()} rows are about cells that this preparation does not have"
            yield error(what, f"{run.rows_flag} {path}", hint)
        elif _vocabulary(path) not in ("", _vocabulary(folder / "cells.jsonl")):
            yield error("rows were prepared with another vocabulary", f"{run.rows_flag} {path}", hint)


def _splits(path: Path) -> dict[str, str]:
    """Return the split of each cell of a preparation, none if there is no such file."""
    if not path.is_file():
        return {}
    with path.open("rb") as stream:  # a line begins with both, and the genes behind them need not be read
        found = (_CELL.match(line) for line in stream)
        return {json.loads(each[1]): each[2].decode() for each in found if each}


def _vocabulary(path: Path) -> str:
    """Return the fingerprint in the manifest of a prepared file, empty if there is none."""
    try:
        manifest = json.loads(path.with_name(f"{path.name}.manifest.json").read_bytes())
        return str(manifest.get("vocabulary", ""))
    except (OSError, ValueError, AttributeError):
        return ""


@check(SFT)
def sft_rows(run: Run, tokenizer: Any) -> Found:
    """An SFT row that is malformed or does not fit. Rows whose prompt does not fit are dropped in silence; of others
    the end is cut, and the last token overwritten."""
    for path in run.row_files:
        try:
            preflight.check_sft(path, tokenizer, run.get("data.max_len"))
        except CellDualityError as failure:
            yield finding_of(failure)


@check()
def chat_template_is_applied(run: Run) -> Found:
    """Prompts that are not framed by the chat template. The dual is always framed by it. SFT without it frames
    questions as `User: ...`, its default, RL not at all."""
    frame = run.get("data.input_template")
    if run.is_rl and not run.is_ours:
        return
    if not run.get("data.apply_chat_template"):
        what = f"framed as {frame!r}" if frame else "not framed at all"
        yield error(f"questions are {what}, and the dual by the chat template", "--data.apply_chat_template", "pass it")
    elif run.flags.given.get("data.input_template"):
        what = "the chat template is applied, so the input template is not"
        yield note(what, "--data.input_template", "leave it out")


@check(SFT)
def template_given_as_text(run: Run) -> Found:
    """A chat template given as a file. `--data.tokenizer_chat_template` is the template's text; a path would become the
    template itself."""
    given, flag = run.get("data.tokenizer_chat_template"), "--data.tokenizer_chat_template"
    if given and "{" not in given:
        what = "a path is taken for the template's text" if Path(given).exists() else "the template shows no message"
        yield error(f"{what}: {given:.60}", flag, f'pass the text: "$(cat {given})"')


@check()
def date_in_template(run: Run, tokenizer: Any) -> Found:
    """A chat template that inserts today's date. That of Llama 3.2 does. SFT, RL and evaluation on different days then
    ask different questions, and a run changes at midnight."""
    turn = [{"role": "user", "content": "Which type is the cell?"}]
    days = (datetime.datetime(2001, 2, 3), datetime.datetime(2034, 11, 25))
    texts = {_framed(tokenizer, turn, add_generation_prompt=True, strftime_now=day.strftime) for day in days}
    if len(texts) > 1:
        pin = "replace it in the model's folder" if run.is_rl else "pass a --data.tokenizer_chat_template without it"
        yield warning("the chat template inserts today's date", run.model_place, pin)


@check(SFT)
def end_of_response(run: Run, tokenizer: Any) -> Found:
    """A chat template whose answer does not follow the prompt, or does not end in the tokenizer's end token. OpenRLHF
    cuts the response out of the rendered conversation by the prompt's length. Where it does not end in the end token, a
    blank and the end token are added, and the policy learns to say both."""
    from jinja2 import TemplateError

    if not run.get("data.apply_chat_template") or not run.row_files:
        return
    try:
        row = next(read_jsonl(run.row_files[0]), {})
    except CellDualityError:  # another check says so
        return
    question, answer = row.get("input"), row.get("output")
    if not isinstance(question, str) or not isinstance(answer, str):
        return
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        prompt, both = _framed(tokenizer, turns[:1], add_generation_prompt=True), _framed(tokenizer, turns)
    except TemplateError as failure:
        prompt, both = "", str(failure)
    if not both.startswith(prompt) or answer.strip() not in both[len(prompt) :]:
        what = "the chat template does not put the answer behind the prompt as it is"
        yield error(what, run.model_place, "pass a --data.tokenizer_chat_template that does")
    elif not both.rstrip("\n").endswith(str(tokenizer.eos_token)):
        what = f"answers do not end in the tokenizer's end token {tokenizer.eos_token!r}"
        yield warning(what, run.model_place, "make the token that ends a turn the tokenizer's eos_token")


def _framed(tokenizer: Any, turns: list[dict[str, str]], **settings: Any) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, **settings))
