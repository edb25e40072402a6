"""Published sets with drugs, for sensitivity and for the response to a perturbation."""

from __future__ import annotations

from data_prep.registry.annotation import GEO, GITHUB, INSTRUCTCELL, NO_LICENCE
from data_prep.registry.entry import Dataset, RemoteFile, Split, UserFile

SENSITIVITY = ("drug_sensitivity_prediction",)
RESPONSE = ("perturbation_response_generation",)
SCDEAL = (
    "data.zip of scDEAL (the README of https://github.com/OSU-BMBL/scDEAL links to it), folder data/GSE149383, behind a"
    " web page without a fixed address"
)
LINCS = f"{GEO}/series/GSE92nnn/GSE92742/suppl/GSE92742_Broad_LINCS"
CHEMCPA_HELD_OUT = (
    "Dacinostat",
    "CUDC-907",
    "Givinostat",
    "CUDC-101",
    "Pirarubicin",
    "Hesperadin",
    "Tanespimycin",
    "Trametinib",
    "Raltitrexed",
)

DYNAMICS = (
    Dataset(
        name="gse117872",
        title="Sharma 2018, oral carcinoma, cisplatin",
        species="human",
        tissue="oral squamous cell carcinoma",
        modality="full-length, TPM only",
        sources=tuple(
            RemoteFile(f"{GEO}/series/GSE117nnn/GSE117872/suppl/{name}", name)
            for name in ("GSE117872_good_Data_TPM.txt.gz", "GSE117872_good_Data_cellinfo.txt.gz")
        ),
        licence=NO_LICENCE,
        citation="Sharma et al. 2018, Nature Communications 9:4931, doi:10.1038/s41467-018-07261-3",
        loader="data_prep.published.gse117872:load",
        columns=("tissue", "donor", "drug", "sensitivity"),
        tasks=SENSITIVITY,
        split=INSTRUCTCELL,
        cells=1_302,
        test_cells=131,
        correction="cells on a drug holiday are left out; as published they count as Sensitive.",
        notes="The header of the cell table is shifted by one: the drug status stands under `cluster`.",
    ),
    Dataset(
        name="gse149383",
        title="Aissa 2021, lung cancer line PC9, erlotinib",
        species="human",
        tissue="lung",
        modality="Drop-seq, counts",
        sources=(UserFile("erl_total_data_2K.csv", SCDEAL), UserFile("erl_total_2K_meta.csv", SCDEAL)),
        licence=NO_LICENCE,
        citation="Aissa et al. 2021, Nature Communications 12:1628, doi:10.1038/s41467-021-21884-z",
        loader="data_prep.published.gse149383:load",
        columns=("tissue", "drug", "sensitivity", "cell_line"),
        tasks=SENSITIVITY,
        split=INSTRUCTCELL,
        cells=2_739,
        test_cells=226,
        notes="The published size is before the caps on genes and mitochondrial counts, the test size after them (2,254"
        " cells). The label is the third value of a line without header.",
    ),
    Dataset(
        name="gse110894",
        title="Bell 2019, leukaemia of mouse marrow, I-BET-762",
        species="mouse",
        tissue="bone marrow",
        modality="plate-based, counts",
        sources=tuple(
            RemoteFile(f"{GEO}/series/GSE110nnn/GSE110894/suppl/{name}", name)
            for name in ("GSE110894_gene_count.csv.gz", "GSE110894_SingleCellInfo.xlsx")
        ),
        licence=NO_LICENCE,
        citation="Bell et al. 2019, Nature Communications 10:2723, doi:10.1038/s41467-019-10652-9",
        loader="data_prep.published.gse110894:load",
        columns=("tissue", "drug", "sensitivity"),
        tasks=SENSITIVITY,
        split=INSTRUCTCELL,
        cells=1_419,
        test_cells=143,
        correction="EMPTY wells are left out; as published everything without RESISTANT in its name is Sensitive,"
        " EMPTY wells too.",
        notes="The sheet has three lines above its header, and merged cells.",
    ),
    Dataset(
        name="l1000",
        title="L1000 (LINCS phase I, level 3)",
        species="human",
        tissue="cell lines",
        modality="bulk, 978 landmark genes, log2 of intensities",
        sources=tuple(
            RemoteFile(f"{LINCS}_{name}.gz", f"GSE92742_Broad_LINCS_{name}")
            for name in ("Level3_INF_mlr12k_n1319138x12328.gctx", "inst_info.txt", "gene_info.txt")
        ),
        licence=NO_LICENCE,
        citation="Subramanian et al. 2017, Cell 171:1437, doi:10.1016/j.cell.2017.10.049",
        loader="data_prep.published.l1000:load",
        columns=("drug", "perturbation", "dose", "cell_line"),
        tasks=RESPONSE,
        split=Split("held_out", "cell_line"),
        notes="Bulk, not single cells; 11,350 of the 12,328 genes are inferred and left out. Compounds and their"
        " vehicle alone are loaded, in blocks. The 1,034,271 profiles one reads of are chemCPA's, with phase II"
        " (GSE70138) added. The matrix is 65 GB unpacked.",
    ),
    Dataset(
        name="l1000_chemcpa",
        title="L1000 as chemCPA prepared it",
        species="human",
        tissue="cell lines",
        modality="bulk, 978 landmark genes",
        sources=(
            RemoteFile("https://f003.backblazeb2.com/file/chemCPA-datasets/lincs_full.h5ad.gz", "lincs_full.h5ad"),
        ),
        licence="none stated",
        citation="Hetzel et al. 2022, NeurIPS, arXiv:2204.13545; Subramanian et al. 2017,"
        " doi:10.1016/j.cell.2017.10.049",
        loader="data_prep.published.l1000:load",
        columns=("drug", "perturbation", "dose", "cell_line"),
        tasks=RESPONSE,
        split=Split("held_out", "cell_line"),
        cells=1_034_271,
        notes="Phases I and II (GSE92742, GSE70138), compounds and vehicles alone, ready made: what was filtered is"
        " chemCPA's choice.",
    ),
    Dataset(
        name="sciplex3",
        title="sci-Plex3, 188 compounds on three cell lines",
        species="human",
        tissue="cell lines",
        modality="sci-RNA-seq3, counts",
        sources=(
            RemoteFile(
                "https://zenodo.org/records/13350497/files/SrivatsanTrapnell2020_sciplex3.h5ad?download=1",
                "SrivatsanTrapnell2020_sciplex3.h5ad",
                md5="d1f51b9f8de35ca07638132539da9a99",
            ),
        ),
        licence="CC BY 4.0 (scPerturb)",
        citation="Srivatsan et al. 2020, Science 367:45, doi:10.1126/science.aax6234; scPerturb: Peidli et al. 2024,"
        " doi:10.1038/s41592-023-02144-y",
        loader="data_prep.published.sciplex3:load",
        columns=("drug", "perturbation", "dose", "cell_line"),
        tasks=RESPONSE,
        split=Split("held_out", "drug", CHEMCPA_HELD_OUT),
        cells=799_317,
        notes="'control' in `perturbation` is the vehicle; doses are in nM. The drugs held out are chemCPA's. Filters"
        " leave about 650,000 cells in publications.",
    ),
    Dataset(
        name="lung_lines_10x",
        title="Tian 2019, five lung cancer lines, gefitinib and afatinib",
        species="human",
        tissue="lung",
        modality="10x 3', 2,000 genes, log-normalised counts",
        sources=(
            RemoteFile(
                f"{GITHUB}/cran/SuperCell/141ae9293e869f19e6182013f293b7a044309153/data/cell_lines.rda",
                "cell_lines.rda",
            ),
        ),
        licence="GPL-3 (SuperCell, whose file is read and never imported)",
        citation="Tian et al. 2019, Nature Methods 16:479, doi:10.1038/s41592-019-0425-8; IC50 (GDSC): Iorio et al."
        " 2016, Cell 166:740, doi:10.1016/j.cell.2016.06.017",
        loader="data_prep.published.lung_lines_10x:load",
        columns=("tissue", "drug", "sensitivity", "cell_line"),
        tasks=SENSITIVITY,
        split=Split("held_out", "cell_line", ("H1975", "H838")),
        cells=1_959,
        notes="No cell saw a drug: sensitivity is the measured IC50 of its line, constant within line and drug. Hold"
        " whole lines out, or the line is learnt instead. Every cell is asked about one of two drugs. The 393 cells of"
        " H2228, which was not screened, are left out.",
        ready="cell_line",
    ),
)
