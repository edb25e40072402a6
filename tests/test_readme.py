"""The README, and those of the rooms behind it, show what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellduality_plugin.alarms import BY_TASK, RATIOS, SIGNS
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.tasks import TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = [
    path.relative_to(ROOT)
    for top in ("recipes", "data_prep", "cellduality_plugin")
    for path in sorted((ROOT / top).rglob("*.md"))
]
TEXTS = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in (Path("README.md"), *ROOMS)}


def test_the_two_commands_come_first_and_the_new_pair_is_the_one_that_is_tested():
    first, shown = (re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)[0] for kind in ("bash", "python"))
    commands = [line.split("#")[0].strip() for line in first.splitlines()]
    assert commands == ["bash recipes/grpo_duality.sh", "bash tests/run.sh"]
    assert shown == (ROOT / "tests" / "stack" / "my_pair.py").read_text(encoding="utf-8")


def test_every_recipe_and_profile_is_in_the_tables():
    names = [f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.sh") if path.name != "common.sh"]
    names += [path.stem for path in (ROOT / "recipes" / "profiles").glob("*.toml")]
    assert [name for name in names if f"`{name}`" not in TEXTS["recipes/README.md"]] == []


@pytest.mark.parametrize("text", TEXTS)
def test_every_file_that_is_named_exists_and_every_link_leads_to_a_heading_in_one(text):
    for name in re.findall(r"`((?:recipes|tests|data_prep|cellduality_plugin)/[\w./]+)`", TEXTS[text]):
        assert (ROOT / name).exists(), name
    for name, _, heading in (found.partition("#") for found in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[text])):
        target = (ROOT / text).parent / name if name else ROOT / text
        assert target.exists(), name
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]


def test_every_room_with_a_text_of_its_own_every_task_and_every_reward_is_told_of():
    assert all(f"]({path}" in README for path in ROOMS)
    assert all(f"| `{name}` |" in README + TEXTS["cellduality_plugin/README.md"] for name in TASKS)
    for name in REWARDS:
        kind, _, comparison = name.partition("-")
        assert f"| `{kind}` |" in TEXTS["cellduality_plugin/README.md"]
        assert not comparison or f"-{comparison}`" in TEXTS["cellduality_plugin/README.md"]


def test_every_alarm_and_every_metric_that_is_divided_is_in_the_tables():
    told = set(re.findall(r"`([^`\n]+)`", TEXTS["cellduality_plugin/openrlhf_hooks/README.md"]))
    assert told >= SIGNS.keys()
    for numerator, denominator in RATIOS.values():
        assert {numerator, denominator} <= told
    for kind, share in BY_TASK.items():
        assert kind in told or f"{kind}/TASK" in told
        assert f"{share}/TASK" in told
