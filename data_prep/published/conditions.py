"""Drugs and doses as columns that read the same in every set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.published.draft import NO_LABEL, Draft

CONTROL = "control"


def put_drugs(draft: Draft, *, drugs: Sequence[str] | np.ndarray, doses: Sequence[str], control: np.ndarray) -> None:
    """Fill ``drug``, ``dose`` and ``perturbation``; a control has neither drug nor dose.

    Parameters
    ----------
    draft
        The cells.
    drugs, doses
        Of every cell; a dose may be empty.
    control
        Which cells had the vehicle alone.
    """
    draft.put(
        drug=np.where(control, "", np.array(drugs, dtype=object)),
        dose=np.where(control, "", np.array(doses, dtype=object)),
    )
    draft.put(
        perturbation=[
            CONTROL if alone else rendered(drug, dose)
            for alone, drug, dose in zip(control, draft.obs["drug"], draft.obs["dose"], strict=True)
        ]
    )
    draft.keep_cells(draft.obs["perturbation"] != "", NO_LABEL)


def rendered(drug: str, dose: str) -> str:
    """Return the perturbation that a drug at a dose is.

    Examples
    --------
    >>> rendered("erlotinib", "2 uM"), rendered("erlotinib", ""), rendered("", "2 uM")
    ('drug erlotinib 2 uM', 'drug erlotinib', '')
    """
    return f"drug {drug} {dose}".strip() if drug else ""
