from __future__ import annotations

import openpyxl
import pytest

from tests.refused import refused

COUNTS, WELLS = "GSE110894_gene_count.csv.gz", "GSE110894_SingleCellInfo.xlsx"
SAMPLES = ["DMSO SENSITIVE"] * 12 + ["IBET 1000nM RESISTANT"] * 11 + ["EMPTY"] * 4


@pytest.fixture
def write(tmp_path, counts, write_counts, mouse_genes):
    """A sheet with three lines above its header and merged cells, wells with their barcode, two plates."""

    def make(leading: int = 3, header=("Plate#", "Well position", "Sample name")):
        book = openpyxl.Workbook()
        sheet = book.active
        for number in range(leading):
            sheet.append([f"about this sheet {number}"])
        sheet.append(list(header))
        names, last = [], ("", "")
        for number, sample in enumerate(SAMPLES):
            plate, well = ("LC25", "LC26")[number >= 15], f"{'ABCD'[number % 4]}{number}"
            names.append(f"{plate}_{well}")
            new = plate != last[0], (plate, sample) != last
            sheet.append([plate if new[0] else None, f"{well}=ACGTACGT", sample if new[1] else None])
            last = (plate, sample)
        sheet.append([None, None, None])
        book.save(tmp_path / WELLS)
        return {
            COUNTS: write_counts(COUNTS, counts(len(SAMPLES)), names, mouse_genes[:230], separator=","),
            WELLS: tmp_path / WELLS,
        }

    return make


def test_empty_wells_are_sensitive_as_published_and_left_out_when_corrected(load, write, tally):
    published, corrected = load("gse110894", write(), "as_published"), load("gse110894", write())
    assert tally(published, "sensitivity") == {"Sensitive": 16, "Resistant": 11}
    assert tally(corrected, "sensitivity") == {"Sensitive": 12, "Resistant": 11}
    assert corrected.uns["drops"] == {"EMPTY well, which holds no cell": 4}
    assert corrected.obs_names[0] == "LC25_A0"


def test_another_sheet_is_refused(load, write):
    for files in (write(leading=2), write(header=("Plate#", "Well", "Sample name"))):
        with refused("not-as-published"):
            load("gse110894", files)
    files[WELLS].write_text("<html>")
    with refused("not-as-published"):
        load("gse110894", files)
