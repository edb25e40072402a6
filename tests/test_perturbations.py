from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import OPERATIONS, Perturbation
from tests.refused import refused

words = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1).map(str.split).filter(bool)
doses = st.builds(
    lambda amount, unit: f"{amount} {unit}",
    st.one_of(st.integers(0, 10_000), st.decimals(0, 100, places=2)),
    st.sampled_from(["nM", "uM", "ng/ml", "h"]),
)


@given(st.sampled_from([o for o in OPERATIONS if o != "control"]), words, st.just("") | doses)
def test_a_label_is_read_back_as_the_perturbation_it_was(operation, target, dose):
    made = attempt(Perturbation, operation, " ".join(target), dose)
    if isinstance(made, CellDualityError):
        assert "ends like a dose" in made.what
    else:
        assert "\n" not in made.render()
        assert Perturbation.parse(made.render()) == made


@given(st.text())
def test_a_text_is_a_label_or_one_line_of_complaint(text):
    made = attempt(Perturbation.parse, text)
    assert isinstance(made, CellDualityError) or made.render() == text


def attempt(make: Callable[..., Perturbation], *parts: str) -> Perturbation | CellDualityError:
    try:
        return make(*parts)
    except CellDualityError as error:
        return error


@pytest.mark.parametrize(
    ("label", "perturbation"),
    [
        ("control", Perturbation("control")),
        ("cytokine IFN-beta", Perturbation("cytokine", "IFN-beta")),
        ("drug erlotinib 2 uM", Perturbation("drug", "erlotinib", "2 uM")),
        ("drug erlotinib 2", Perturbation("drug", "erlotinib 2")),
        ("knockdown TP53", Perturbation("knockdown", "TP53")),
        ("overexpression KLF4 SOX2", Perturbation("overexpression", "KLF4 SOX2")),
    ],
)
def test_labels_as_prompts_show_them(label, perturbation):
    assert Perturbation.parse(label) == perturbation
    assert perturbation.render() == label


@pytest.mark.parametrize(
    "parts",
    [
        ("poison", "x"), ("control", "x"), ("control", "", "2 uM"), ("drug", ""), ("drug", "two  spaces"),
        ("drug", "<answer>"), ("drug", "erlotinib", "much"), ("drug", "erlotinib 2 uM"),
    ],
)  # fmt: skip
def test_what_could_not_be_read_back_is_refused(parts):
    with refused("wrong-perturbation"):
        Perturbation(*parts)
