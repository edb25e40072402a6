"""The paper's Tables 2 to 5 from what recipes/reproduce_paper.sh evaluated: a row a model, a column a set.

python recipes/benchmarks/paper_tables.py RUNS --split test prints mean ± standard deviation over the seeds found in
RUNS/THEME/SEED/SPLIT/metrics.json. The paper's own rows stand below in grey where the numbers are of one kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from shared import SPLITS, options

from cellduality_plugin.evaluation.compare import Spread
from cellduality_plugin.evaluation.report import read_metrics

DASH = "–"


class PaperTable(NamedTuple):
    """One table of the paper: ``rows`` are its own numbers, set by set and metric by metric."""

    title: str
    theme: str  # whose runs it is made of
    task: str
    sets: dict[str, str]  # heading by section: task@SECTION
    metrics: dict[str, str]  # heading by metric, those of labels in per cent
    rows: dict[str, str]
    note: str


LABELS = {"accuracy": "acc. %", "macro_f1": "F1 %"}
SAME_KIND = (
    "In grey the paper's. Which cells it tested on is not known: of InstructCell's sets the numbers of cells are equal."
)
OTHER_SPACE = "The paper's are in {space}, ours in the space that metrics.json names: they are not to be compared."
TABLES = (
    PaperTable(
        "Table 2, cell type annotation", "identity", "cell_type_annotation",
        {"he_2020_liver": "He-2020-Liver (ID)", "segerstolpe_2016": "Segerstolpe-2016 (ID)",
         "xin_2016": "Xin-2016 (ID)", "ma_2020": "Ma-2020 (mouse, OOD)",
         "bastidas_ponce_2019": "Bastidas-Ponce-2019 (mouse, OOD)"},
        LABELS,
        {"paper, SFT": "94.83 94.67 98.76 98.73 99.45 99.01 80.22 74.95 72.87 57.24",
         "paper, CellDuality": "96.34 95.41 99.81 99.78 99.52 99.08 82.03 81.78 88.45 78.12"},
        SAME_KIND,
    ),
    PaperTable(
        "Table 3, drug sensitivity", "dynamics", "drug_sensitivity_prediction",
        {"gse149383": "GSE149383 (lung, ID)", "gse117872": "GSE117872 (oral, ID)",
         "gse110894": "GSE110894 (mouse, OOD)"},
        LABELS,
        {"paper, SFT": "98.91 98.89 96.78 97.12 96.45 96.42",
         "paper, CellDuality": "99.12 99.10 97.23 97.58 96.12 96.08"},
        SAME_KIND,
    ),
    PaperTable(
        "Table 4, perturbation response", "dynamics", "perturbation_response_generation",
        {"ood": "sci-Plex3, drugs held out (OOD)"},
        {"scfid": "scFID", "mmd": "MMD²", "wasserstein": "W1"}, {}, OTHER_SPACE.format(space="scGPT's embedding"),
    ),
    PaperTable(
        "Table 5, conditional cell generation", "identity", "conditional_cell_generation",
        {"human_immune": "human immune (ID)"},
        {**{f"knn_agreement_{k}": f"k-NN {k}" for k in (3, 5, 10, 25)}, "gromov_wasserstein": "GW"},
        {}, OTHER_SPACE.format(space="Cell2Sentence's expression space"),
    ),
)  # fmt: skip


def shown(table: PaperTable, runs: list[dict[str, Any]]) -> Table:
    """Return the table of the runs, one a seed; a dash stands where none has the number, with the reason below."""
    seeds = f"{len(runs)} seeds" if len(runs) != 1 else "1 seed"
    headings = {
        f"{table.task}@{section}/{metric}": (of_set, name)
        for section, of_set in table.sets.items()
        for metric, name in table.metrics.items()
    }
    columns = [(name, column["metrics"]) for run in runs for name, column in run["columns"].items()]
    lacking = {
        ", ".join(heading): found["note"]
        for _, metrics in columns
        for key, heading in headings.items()
        if (found := metrics.get(key, {})).get("value", 0) is None and found.get("note")
    }
    reasons = [*map(": ".join, lacking.items()), "else " * bool(lacking) + "not in these runs"]
    caption = f"{table.note} –: {'; '.join(reasons)}."
    made = Table(title=f"{table.title} ({seeds})", title_justify="left", caption=caption, caption_justify="left")
    made.add_column("model")
    for heading in headings.values():
        made.add_column("\n".join(heading), justify="right")
    for name in dict.fromkeys(name for name, _ in columns):
        found = [metrics for column, metrics in columns if column == name]
        values = [over_seeds(found, key, table.metrics is LABELS) for key in headings]
        if {*values} != {DASH}:
            made.add_row(name, *values)
    if not made.row_count:
        made.add_row("none", *(DASH for _ in headings))
    for name, numbers in table.rows.items():
        made.add_row(name, *numbers.split(), style="bright_black")
    return made


def over_seeds(found: list[dict[str, Any]], key: str, percent: bool) -> str:
    """Return mean and deviation of a metric, per cents as the paper writes them."""
    values = [one[key]["value"] for one in found if one.get(key, {}).get("value") is not None]
    spread = Spread.of(values) if values else None
    if spread is None or not percent:
        return DASH if spread is None else str(spread)
    return f"{100 * spread.mean:.2f}" + ("" if spread.interval is None else f" ± {100 * spread.deviation:.2f}")


if __name__ == "__main__":
    given = options(__doc__, "runs", split=SPLITS)
    for one in TABLES:
        found = sorted((given.runs / one.theme).glob(f"*/{given.split}/metrics.json"))
        Console().print(shown(one, [read_metrics(path) for path in found]), "")
