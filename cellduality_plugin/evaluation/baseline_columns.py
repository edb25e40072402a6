"""What is measured of baselines and of real cells: their columns of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cellduality_plugin.evaluation import baselines
from cellduality_plugin.evaluation.baselines import LOGISTIC, MAJORITY, PROFILES, TRANSFER
from cellduality_plugin.evaluation.metrics import cells, labels, responses
from cellduality_plugin.evaluation.metrics.given import Cells
from cellduality_plugin.evaluation.metrics.registry import Measurement
from cellduality_plugin.evaluation.metrics.responses import Responses
from cellduality_plugin.evaluation.points import REAL
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.winners import BY_CONSTRUCTION
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.vocabulary import Vocabulary


def baseline_columns(
    section: Section, vocabulary: Vocabulary, settings: PredictionSettings, profiles: Profiles | None
) -> dict[str, dict[str, Measurement]]:
    """Return the metrics of baselines and of real cells, by column."""
    yardstick, train = section.yardstick, section.yardstick.train
    rows = dict(sorted(section.rows.items()))  # as predictions are
    if isinstance(section.pair.answer, OneOf):
        kind = section.pair.answer.kind
        known = [e for e in rows.values() if isinstance(e.gold, str) and "cell" in e.inputs]
        gold, shown = [str(e.gold) for e in known], [tuple(e.inputs["cell"]) for e in known]
        answers = {
            LOGISTIC: baselines.logistic_labels(train, shown, vocabulary.genes),
            TRANSFER: baselines.transferred_labels(train, shown, yardstick.embedding, yardstick.neighbours[0]),
            MAJORITY: baselines.majority_labels(train, len(shown)),
        }
        if profiles is not None and kind in profiles.by_kind:
            answers[PROFILES] = baselines.profile_labels(profiles, kind, known)
        shared = section.shared.names if section.shared else ()
        return {
            name: labels.measure(yardstick, section.comparable(gold, predicted), shared=shared)
            for name, predicted in answers.items()
        }
    if not section.writes_cells:
        return {}
    asked = [yardstick.held_out.name_of.get(row, str(e.unknown)) for (_, row), e in rows.items()]
    found = {REAL: cells.measure(Cells.of_real(asked, yardstick))}
    made: dict[str, list[Prediction]] = {}
    if section.writes_responses:
        found[REAL] |= responses.measure(Responses.of_real(yardstick))
        made = baselines.response_baselines(rows, yardstick)
    elif any(train.labelled):
        made = baselines.cell_baselines(train, rows, vocabulary.genes, settings.samples, settings.seed)
    for name, predictions in made.items():
        found[name] = written(predictions, section)
        if all(p.answer for p in predictions):  # real genes, each once, whoever the baseline
            for key in ("validity", "duplicates"):
                found[name][key] = replace(found[name][key], interval=None, note=BY_CONSTRUCTION)
    return found


def written(made: Sequence[Prediction], section: Section) -> dict[str, Measurement]:
    """Return the metrics of written cells, and of responses where they are such."""
    found = cells.measure(Cells.of(made, section.yardstick))
    if section.writes_responses:
        found |= responses.measure(Responses.of(made, section.rows, section.yardstick))
    return found
