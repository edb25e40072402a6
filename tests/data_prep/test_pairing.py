from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL
from data_prep.pairing import pair_with_controls

IFN = "cytokine IFN-beta"

worlds = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(st.sampled_from([CONTROL, IFN, "knockdown TP53"]), st.sampled_from(["T", "B"])),
).filter(lambda world: any(done == CONTROL for done, _ in world.values()))


@given(worlds, st.integers(0, 5))
def test_partners_are_untreated_cells_of_the_group_and_nobodys_own(world, seed):
    done, groups = ({name: both[place] for name, both in world.items()} for place in (0, 1))
    pairs = pair_with_controls(done, groups, np.random.default_rng(seed))
    for name, control in pairs.items():
        assert (done[control], groups[control]) == (CONTROL, groups[name])
        assert control != name
    controls = Counter(groups[name] for name in done if done[name] == CONTROL)
    for name in done:
        assert (name in pairs) == (controls[groups[name]] > (done[name] == CONTROL))
    for treated in (True, False):
        for group in controls:
            used = Counter(
                c for name, c in pairs.items() if groups[name] == group and (done[name] != CONTROL) == treated
            )
            counts = [used[name] for name in done if done[name] == CONTROL and groups[name] == group]
            assert max(counts) - min(counts) <= 1, "one control is taken twice before another is taken once"
    again = pair_with_controls(dict(reversed(done.items())), groups, np.random.default_rng(seed))
    assert again == pairs


def test_another_seed_pairs_otherwise():
    done = {f"c{n}": CONTROL for n in range(20)} | {f"p{n}": IFN for n in range(20)}
    groups = dict.fromkeys(done, "T")
    first, second = (pair_with_controls(done, groups, np.random.default_rng(seed)) for seed in (0, 1))
    assert first != second


def test_set_without_a_control_is_told():
    with pytest.raises(CellDualityError) as raised:
        pair_with_controls({"a": IFN}, {"a": "T"}, np.random.default_rng(0))
    assert "no cell is untreated" in raised.value.what
    assert IFN in raised.value.what
    assert raised.value.where == "perturbation"
    assert "'control'" in raised.value.mend
