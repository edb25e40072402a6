"""A dual pair of one's own: the highest genes of a cell -> its type, judged by the genes that were not shown."""

from dataclasses import replace

from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation


class Panel(CellTypeAnnotation):
    """Name a type from the highest quarter of a cell's genes; the dual rebuilds the other three from that name."""

    name = "panel"

    def example(self, cell, *, hidden, labelled, rng):
        shown = len(cell.genes) // 4
        rest = replace(cell, genes=cell.genes[shown:])
        row = super().example(rest, hidden=hidden, labelled=labelled, rng=rng)
        return replace(row, inputs={**row.inputs, "cell": cell.genes[:shown]})
