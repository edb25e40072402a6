"""Every setting of a run, in one place: name, default, values, meaning; and what a recipe runs with.

A setting is a variable (SFT_EPOCHS) and has a place in a run file (sft.epochs). Its value comes from --set, else from
the environment, the run file (RUN_FILE), the recipe, the profile, or stands here: that of the paper's machine.
Without any package: recipes/common.sh asks before there is an environment.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(os.path.abspath(__file__)).parents[1]
# Which texts are values: a pattern. Those of several words, as both|primal, say so themselves.
ANY, NAME, SWITCH = r"(?s).*", r"(?s).*\S.*", "0|1"
WHOLE, COUNT, NUMBER = r"\d+", r"0*[1-9]\d*", r"(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
SHARE, PART = r"[01](\.0*)?|0?\.\d+|\d(\.\d+)?e-\d+", r"(1(\.0*)?|0?\.\d+|\d(\.\d+)?e-\d+)"
PARTS, COUNTS = rf"{PART}(,\s*{PART})*", r"|\d+(,\s*\d+)*"
CELLS, URL, SEED = r"\d+|[^,]+=\d+(,[^,]+=\d+)*", r"|https?://.+", r"\d+|seed"
SAYS = {
    ANY: "any text", NAME: "a name", WHOLE: "a whole number", COUNT: "a whole number from 1", NUMBER: "a number from 0",
    SHARE: "a number from 0 to 1", PARTS: "shares of more than 0, with commas", "|" + PARTS: "such shares, or nothing",
    COUNTS: "whole numbers with commas, or nothing", CELLS: "N or SET=N,...", "|" + CELLS: "N, SET=N,... or nothing",
    URL: "http://..., or nothing", SEED: "a whole number or seed", r"-1|\d+": "a whole number, or -1",
}  # fmt: skip

TABLE = [  # section of a run file, variable, default (a text, or "= FORMULA" of those above it), values, meaning
    ("run", "PROFILE", "", NAME, "the machine: a file of recipes/profiles/; by default by the cards that are there"),
    ("run", "RUN_FILE", "", ANY, "a file of settings such as RUN_DIR/run.toml"),
    ("run", "RUN_DIR", "= ROOT + '/runs/' + PROFILE", NAME, "where everything of the run goes"),
    ("run", "RESUME", "0", SWITCH, "1: skips finished stages and takes up a stopped one"),
    ("run", "DRY_RUN", "0", SWITCH, "1: prints the exact commands, and does nothing"),
    ("run", "VENV", "= ROOT + '/.venv'", NAME, "the virtual environment"),
    ("run", "SET_UP", "1", SWITCH, "0: takes the environment as it is"),
    ("run", "PYTHON", "", ANY, "the Python that the environment is made with"),
    ("run", "FLASH_ATTN", "", "|build", "build: set-up compiles flash-attn (GPU)"),
    ("run", "CONFIG", "", ANY, "the configuration that GRPO is paid by; by default what the audit chose"),
    ("run", "RL_ROWS", "", ANY, "GRPO's rows; by default those of what the audit chose"),
    ("run", "SFT_ROWS", "", ANY, "SFT's rows; by default those with traces"),
    ("run", "START_MODEL", "", ANY, "the checkpoint that SFT starts from, in place of stage 0's"),
    ("run", "STAGE0_OF", "", ANY, "a run of the same seed: where its rows are the same, so is its stage 0"),
    ("model", "BASE_MODEL", "meta-llama/Llama-3.2-3B-Instruct", NAME, "small-llama, smollm2, a hub name or a folder"),
    ("model", "LAYERS", "4", COUNT, "of small-llama"),
    ("model", "SEED", "42", WHOLE, "of the model, the rollouts and the training"),
    ("model", "MAX_LEN", "4096", COUNT, "context in tokens"),
    ("model", "MAX_NEW_TOKENS", "1536", COUNT, "of a response, at most"),
    ("stages", "PRETRAIN", "= int(BASE_MODEL == 'small-llama')", SWITCH, "1: stage 0, training cells without labels"),
    ("stages", "AUDIT", "1", SWITCH, "0: no audit of the reward before GRPO"),
    ("stages", "ROUNDS", "1", COUNT, "above 1: GRPO in rounds, with SFT on pseudo-labels between them"),
    ("machine", "NODES", "1", COUNT, "of GPUs GPUs each"),
    ("machine", "GPUS", "8", COUNT, "of a node; on a CPU: processes of GRPO"),
    ("machine", "SFT_PROCESSES", "= GPUS", COUNT, "that share a batch of SFT"),
    ("machine", "TENSOR_PARALLEL", "1", COUNT, "GPUs of an engine"),
    ("machine", "ENGINES", "= NODES * GPUS // TENSOR_PARALLEL", COUNT, "of vLLM, that answer in GRPO"),
    ("machine", "ENGINE_MEMORY", "0.5", SHARE, "share of a card's memory that an engine takes"),
    ("machine", "OFFLOAD", "0", "0|1|", "1: the optimiser's state on the host; 0 or nothing: on the card"),
    ("machine", "PREFIX_CACHING", "1", SWITCH, "0: vLLM reads the question of a group for each of its rollouts anew"),
    ("machine", "MAX_TOKENS_PER_GPU", "8192", COUNT, "of a dynamic batch; MAX_LEN or more"),
    ("machine", "ROLLOUT_TOKENS_PER_GPU", "16384", COUNT, "the same where answers are only read"),
    ("machine", "RAY_JOB_ADDRESS", "http://127.0.0.1:8265", NAME, "of the Ray cluster that multinode's job goes to"),
    ("data", "DATASET", "pbmc68k_reduced kang_2018_ifnb", NAME, "names (`cellduality data list`), or an .h5ad's path"),
    ("data", "HELD_OUT", "kang_2018_ifnb:cell_type=B cell", ANY, "out-of-distribution cells: SET:COLUMN=VALUE;..."),
    ("data", "LABEL_COLUMN", "", ANY, "obs column with the labels; the data set's own by default"),
    ("data", "PREPARE_OPTIONS", "", ANY, "further options of `cellduality data prepare`: --species mouse"),
    ("data", "TASKS", "", ANY, "dual pairs, PAIR or PAIR=SHARE,...; by default all that the sets serve"),
    ("data", "WEIGHTS", "", ANY, "shares of the RL rows other than 1: TASK=SHARE,..."),
    ("data", "FOREIGN", "", ANY, "sets no cell of which trains, for annotation out of distribution: kidney_immune"),
    ("data", "SMALL_CLASSES", "refuse", "refuse|drop", "drop: leave out classes of fewer than three cells"),
    ("data", "MAX_CELLS", "", "|" + CELLS, "of a set, at most; by default all"),
    ("data", "TOP_GENES", "200", COUNT, "genes of a cell sentence"),
    ("data", "N_GENES", "0", WHOLE, "most variable genes of each set that make the vocabulary; 0: all"),
    ("data", "HIDDEN", "0.25", PARTS, "share of a cell's genes that the dual of a label rebuilds"),
    ("data", "N_LABELLED", "140", CELLS, "training cells of a set that show their label"),
    ("data", "N_RL", "12800", WHOLE, "rows for GRPO"),
    ("data", "DATA_SEED", "42", WHOLE, "of the split and the labelled cells: the same test cells for every SEED"),
    ("data", "LABEL_SEED", "= DATA_SEED", SEED, "of which cells those are; seed: as SEED"),
    ("traces", "TEACHER", "rule", NAME, "of SFT's reasoning traces: rule, the name of a chat model, or none"),
    ("traces", "TEACHER_URL", "", URL, "its OpenAI-compatible endpoint, .../v1"),
    ("traces", "CANDIDATES", "4", COUNT, "answers a teacher gives to each question"),
    ("traces", "TRACE_SIMILARITY", "0.5", SHARE, "rank-weighted Jaccard a teacher's list of genes must reach"),
    ("traces", "FILL", "1", SWITCH, "whether questions without an accepted candidate keep their bare answer"),
    ("pretrain", "PRETRAIN_VIEWS", "2", WHOLE, "versions of each training cell"),
    ("pretrain", "CLUSTERS", "32", COUNT, "of a set's cells, at most, whose numbers stand for labels"),
    ("pretrain", "PRETRAIN_EPOCHS", "1", COUNT, "passes over those rows"),
    ("pretrain", "PRETRAIN_LR", "1e-5", NUMBER, "learning rate"),
    ("sft", "SFT_VIEWS", "4", COUNT, "versions of each labelled cell: whole, then with lost genes"),
    ("sft", "SFT_LABEL_VIEWS", "4", WHOLE, "the same where a label is the answer; 0: as many"),
    ("sft", "SFT_DIRECTIONS", "both", "both|primal", "primal: without the dual questions"),
    ("sft", "TRACES", "1", SWITCH, "0: SFT sees the answers that passed, without the reasoning"),
    ("sft", "SFT_EPOCHS", "3", COUNT, "passes over the rows"),
    ("sft", "SFT_LR", "1e-5", NUMBER, "learning rate"),
    ("sft", "SFT_BATCH", "128", COUNT, "rows of an update"),
    ("sft", "SFT_MICRO_BATCH", "2", COUNT, "rows of a process at a time"),
    ("reward", "REWARDS", "auto", ANY, "by task, TASK=KIND,...; auto: the audit chooses; nothing: the paper's"),
    ("reward", "VOTES", "", ANY, "tasks, with commas, in whose groups the answers share the evidence by votes"),
    ("reward", "GOLD", "0", SWITCH, "1: RL rows hold gold, which is logged beside the reward (Figure 2) and is none"),
    ("reward", "MASKS", "1", COUNT, "splits into known and hidden genes that an answer's reward is the mean over"),
    ("reward", "DUAL_TEMPERATURE", "0", NUMBER, "sampling temperature of the dual; 0: greedy"),
    ("reward", "VALIDITY_POWER", "1", NUMBER, "how much repeats in a list of genes cost; 0: nothing (the paper)"),
    ("reward", "VALIDITY_SHARE", "0", SHARE, "share of the reward that a valid form alone earns"),
    ("audit", "AUDIT_CELLS", "96", COUNT, "of each task"),
    ("audit", "AUDIT_REWARDS", "", ANY, "kinds, with commas; by default the configured and all built-in ones that fit"),
    ("audit", "AUDIT_HIDDEN", "", "|" + PARTS, "as HIDDEN, of duals to try"),
    ("audit", "AUDIT_TRACES", "", COUNTS, "reasoning traces of the dual"),
    ("grpo", "ROLLOUT_BATCH", "64", COUNT, "questions of a rollout"),
    ("grpo", "GROUP_SIZE", "8", COUNT, "answers to each of them"),
    ("grpo", "TRAIN_BATCH", "256", COUNT, "answers of an update: half a rollout, so that the clip is active"),
    ("grpo", "MICRO_BATCH", "4", COUNT, "answers of a process at a time"),
    ("grpo", "EPISODES", "1", COUNT, "passes over the rows"),
    ("grpo", "ACTOR_LR", "1e-6", NUMBER, "learning rate"),
    ("grpo", "LR_WARMUP", "0.03", SHARE, "share of the steps in which it rises"),
    ("grpo", "KL", "1e-2", NUMBER, "weight of the KL term; 0: no reference model is started"),
    ("grpo", "CLIP", "0.2", NUMBER, "of the ratio to the policy that answered"),
    ("grpo", "TEMPERATURE", "1.0", NUMBER, "of rollouts"),
    ("grpo", "ADVANTAGE", "group_norm", NAME, "OpenRLHF's estimator; dr_grpo: without division by the deviation"),
    ("grpo", "SAVE_STEPS", "20", r"-1|\d+", "steps between checkpoints; -1: none"),
    ("rounds", "RL", "1", "0|1|last", "1: GRPO in every round; last: the last is GRPO alone, others none; 0: none"),
    ("rounds", "RL_LABELS", "1", SWITCH, "0: where refits named cells, GRPO leaves out tasks that ask for labels"),
    ("rounds", "JUDGE", "configured", NAME, "of cells without a label: a kind of reward, none, or audited"),
    ("rounds", "FIRST", "", ANY, "the checkpoint that is round 1, in place of GRPO"),
    ("rounds", "REFIT_FROM", "pretrained", "pretrained|policy", "what refits start from: stage 0, or the last policy"),
    ("rounds", "REFIT_EPOCHS", "= SFT_EPOCHS", COUNT, "passes of a refit over its rows"),
    ("rounds", "KEEP", "best", "best|last", "by validation cells; or last, and nothing is evaluated"),
    ("rounds", "ROUNDS_PATIENCE", "1", COUNT, "rounds in a row that may do no better than the best"),
    ("rounds", "PSEUDO_VOTES", "8", WHOLE, "answers to a cell; 0: the judge alone names it, the rule teacher reasons"),
    ("rounds", "PSEUDO_CELLS", "0", WHOLE, "of each task, at most; 0: all"),
    ("rounds", "PSEUDO_WEIGHT", "1.0", SHARE, "the share of cells that get rows"),
    ("rounds", "PSEUDO_KEEP_ABOVE", "0.0", SHARE, "the share that the likeliest label of a cell must have"),
    ("rounds", "PSEUDO_CHOICE", "", "|best|drawn", "best: the likeliest label; drawn: by its share"),
    ("rounds", "PSEUDO_LABELLED", "0.5", SHARE, "labelled rows are repeated until they are this share of all"),
    ("evaluate", "SPLIT", "test", "test|validation", "validation: while choosing settings"),
    ("evaluate", "DECODE", "both", "both|headline|greedy|sampled", "labels drawn, too; headline: greedily"),
    ("evaluate", "SAMPLES", "4", COUNT, "cells drawn for each condition"),
]  # fmt: skip


class Setting(NamedTuple):
    section: str
    variable: str
    default: str
    values: str
    meaning: str

    @property
    def place(self) -> str:
        return f"{self.section}.{self.variable.lower().removeprefix(f'{self.section}_')}"

    def takes(self, text: str) -> bool:
        return re.fullmatch(self.values, text, re.ASCII) is not None

    def says(self) -> str:
        return SAYS.get(self.values) or " or ".join(word or "nothing" for word in self.values.split("|"))


SETTINGS = {row[1]: Setting(*row) for row in TABLE}
VARIABLES = {setting.place: variable for variable, setting in SETTINGS.items()} | {"profile": "PROFILE"}
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?"
_PAIR = rf"([\w.]+)\s*=\s*(\"(?:[^\"\\]|\\[\"\\bfnrt]|\\u[0-9a-fA-F]{{4}})*\"|'[^']*'|true|false|{_NUMBER})"
_TABLE = rf"(?P<table>[\w.]+)\s*=\s*\{{\s*(?P<pairs>{_PAIR}(?:\s*,\s*{_PAIR})*)\s*\}}"
_LINE = re.compile(rf"\s*(?:\[(?P<section>[\w.]+)\]|{_TABLE}|(?P<pair>{_PAIR}))?\s*(?:#.*)?")


def nearest(name: str, least: float) -> str:
    """Return the setting whose name is most like ``name``, if this share of both is the same, or an empty text."""
    return "".join(difflib.get_close_matches(name, SETTINGS if name.isupper() else VARIABLES, 1, least))


def read(path: Path) -> dict[str, str]:
    """Return {place: text} of a file of settings, in that part of TOML: tables of texts, numbers, true and false.

    Not by tomllib, which Python 3.10 lacks, as it lacks every package before the set-up.
    """
    found: dict[str, str] = {}
    section = ""
    if not path.is_file():
        sys.exit(f"error: no file {path}: name one such as RUN_DIR/run.toml")
    for at, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            sys.exit(f"error: {path}, line {at} is not NAME = VALUE: write one in a line, texts between quotes")
        section = f"{parts['section']}." if parts["section"] else section
        for name, value in re.findall(_PAIR, parts["pairs"] or parts["pair"] or ""):
            place = f"{section}{parts['table']}.{name}" if parts["table"] else section + name
            if place in found:
                sys.exit(f"error: {path}, line {at} has {place} again: leave one of them")
            text = json.loads(value, strict=False) if value[0] == '"' else value.strip("'")
            found[place] = {"true": "1", "false": "0"}.get(value, text)
    return found


def profile_of(name: str) -> dict[str, str]:
    """Return what a profile says, with what it extends."""
    paths = {path.stem: path for path in (ROOT / "recipes" / "profiles").glob("*.toml")}
    if name not in paths:
        sys.exit(f"error: no profile {name!r}: use one of: {' '.join(sorted(paths))}")
    found = read(paths[name])
    return {**(profile_of(found.pop("extends")) if "extends" in found else {}), **found}


def checked(where: str, texts: Mapping[str, str], formulas: bool = False) -> dict[str, str]:
    """Return {variable: value} of what was given by variable or by place; a mistake ends everything."""
    found = {}
    for name, text in texts.items():
        setting = SETTINGS.get(VARIABLES.get(name, name))
        if setting is None:
            sys.exit(f"error: no setting {name}{where}: did you mean {nearest(name, 0)}? --help lists all")
        if not setting.takes(text) and not (formulas and text.startswith("= ")):
            sys.exit(f"error: no {name}={text}{where}: use {setting.says()}")
        found[setting.variable] = text
    return found


def resolved(given: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return {variable: value} of all settings; a formula, of a profile or this file, sees those above its own."""
    found = {"ROOT": str(ROOT), "CORES": str(len(os.sched_getaffinity(0)))}
    for variable, setting in SETTINGS.items():
        text = defaults.get(variable, setting.default)
        if text.startswith("= ") and variable not in given:
            above = {name: int(each) if each.isdecimal() else each for name, each in found.items()}
            text = str(eval(text[2:], above))
        found[variable] = given.get(variable, text)
    return found


def run_file(values: Mapping[str, str], without: str = "run") -> str:
    """Return the file that gives these settings again."""
    lines = [f'profile = "{values["PROFILE"]}"']
    for setting in (setting for setting in SETTINGS.values() if setting.section != without):
        text = values[setting.variable]
        text = text if re.fullmatch(_NUMBER, text) else json.dumps(text, ensure_ascii=False)
        lines.append(f"{f'{setting.place} = {text}':46} # {setting.variable} ({setting.says()}): {setting.meaning}")
    return "\n".join(lines)


def assignments(recipe: str, by_cards: str, words: list[str]) -> str:
    """Return what bash is to evaluate; ``words`` are a recipe's presets, then --, then its arguments.

    ``by_cards`` is the profile that fits the cards that are there, and further presets if it is taken.
    """
    at = words.index("--")
    presets = dict(word.split("=", 1) for word in words[:at])
    sets: dict[str, str] = {}
    rest, arguments = [], iter(words[at + 1 :])
    for word in arguments:
        if word != "--set":
            rest.append(word)
        elif "=" in (item := next(arguments, "")):
            sets |= dict([item.split("=", 1)])
        else:
            sys.exit(f"error: --set {item}: write --set NAME=VALUE")
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "recipes").glob("*.sh"))
    own = {*re.findall(r'"\$\{([A-Z][A-Z0-9_]+):?=', texts)} - SETTINGS.keys()  # of one recipe: SEEDS, ARMS
    lines = [f"export {name}={shlex.quote(sets.pop(name))}" for name in own.intersection(sets)]
    sets = checked(" (--set)", sets)
    # A recipe that calls this one has looked at them.
    strange = () if "CELLDUALITY_PYTHON" in os.environ else os.environ.keys() - SETTINGS.keys() - own
    for name in filter(str.isupper, strange):
        if near := nearest(name, 0.86):
            hint = f"did you mean {near}? If not, leave it out: env -u {name} bash {recipe}"
            sys.exit(f"error: {name} is no setting: {hint}")
    # An empty variable counts as not set, unless nothing is one of the values.
    environment = {name: os.environ[name] for name in SETTINGS.keys() & os.environ.keys()}
    given = checked("", {name: text for name, text in environment.items() if text or SETTINGS[name].takes("")}) | sets
    if file := given.get("RUN_FILE"):
        given = checked(f" ({file})", read(Path(file))) | given
    found, *further = by_cards.split()
    name = given.setdefault("PROFILE", presets.get("PROFILE", found))
    presets |= dict(word.split("=") for word in further if name == found)
    profile = profile_of(name)
    lines.append(f"BACKEND={profile.pop('backend')}")
    lines += [f"expected[{stage[9:]}]={profile.pop(stage)}" for stage in [*profile] if stage.startswith("expected.")]
    defaults = checked(f" (profile {name})", profile, formulas=True) | presets
    if "--help" in rest:
        header = Path(recipe).read_text(encoding="utf-8").partition("\nset ")[0]
        usage = re.findall("^#(?!!) ?(.*)", header, re.MULTILINE)
        usage += ["", "Settings, for --set and for a RUN_FILE:", run_file(resolved({"PROFILE": name}, defaults), "")]
        return f"printf '%s\\n' {shlex.join(usage)}; exit"
    values = resolved(given, defaults)
    lines += [f"{name}={shlex.quote(values[name])}" for name in SETTINGS]
    lines += [f"export {name}" for name in presets | sets]
    return "\n".join([*lines, f"run_file={shlex.quote(run_file(values))}", f"set -- {shlex.join(rest)}"])


if __name__ == "__main__":
    print(assignments(sys.argv[1], sys.argv[2], sys.argv[3:]))
