"""Published sets with cell types, for the two identity tasks."""

from __future__ import annotations

from data_prep.registry.embedded import IDENTITY
from data_prep.registry.entry import CollectionFile, Dataset, RemoteFile, Split, UserFile

GITHUB = "https://raw.githubusercontent.com"
GEO = "https://ftp.ncbi.nlm.nih.gov/geo"
NO_LICENCE = "none stated (GEO)"
INSTRUCTCELL = Split("instructcell")

ANNOTATION = (
    Dataset(
        name="he_2020_liver",
        title="He 2020, liver",
        species="human",
        tissue="liver",
        modality="10x 3', counts",
        sources=(
            RemoteFile(
                f"{GEO}/samples/GSM4850nnn/GSM4850582/suppl/GSM4850582_Liver_Counts.csv.gz",
                "GSM4850582_Liver_Counts.csv.gz",
            ),
            RemoteFile(
                "https://raw.githubusercontent.com/bei-lab/scRNA-AHCA/master/Cell_barcode_and_corresponding_cell_types"
                "_of_AHCA/Annotation_AHCA_alltissues_meta.data_84363_cell.txt",
                "Annotation_AHCA_alltissues_meta.data_84363_cell.txt",
            ),
        ),
        licence=NO_LICENCE,
        citation="He et al. 2020, Genome Biology 21:294, doi:10.1186/s13059-020-02210-0",
        loader="data_prep.published.he_2020_liver:load",
        columns=("cell_type", "tissue"),
        tasks=IDENTITY,
        split=INSTRUCTCELL,
        cells=2_839,
        test_cells=254,
        notes="The labels are in another place and name a cell Liver_cDNA_BARCODE. Types of fewer than 20 cells are"
        " dropped first, then the marker gene at the end of a label (B Cell CD79A) is.",
    ),
    Dataset(
        name="segerstolpe_2016",
        title="Segerstolpe 2016, pancreas",
        species="human",
        tissue="pancreas",
        modality="Smart-seq2, counts",
        sources=(
            RemoteFile(
                "https://www.ebi.ac.uk/biostudies/files/E-MTAB-5061/pancreas_refseq_rpkms_counts_3514sc.txt",
                "pancreas_refseq_rpkms_counts_3514sc.txt",
            ),
            RemoteFile(
                "https://www.ebi.ac.uk/biostudies/files/E-MTAB-5061/E-MTAB-5061.sdrf.txt", "E-MTAB-5061.sdrf.txt"
            ),
        ),
        licence="none stated (ArrayExpress)",
        citation="Segerstolpe et al. 2016, Cell Metabolism 24:593, doi:10.1016/j.cmet.2016.08.020",
        loader="data_prep.published.segerstolpe_2016:load",
        columns=("cell_type", "tissue", "donor"),
        tasks=IDENTITY,
        split=INSTRUCTCELL,
        cells=2_209,
        test_cells=209,
        notes="One table holds RPKM and then counts of the same cells under one header, and spike-ins below the genes.",
    ),
    Dataset(
        name="xin_2016",
        title="Xin, pancreatic islets (GSE114297)",
        species="human",
        tissue="pancreas",
        modality="10x 3', counts",
        sources=(
            RemoteFile(f"{GEO}/series/GSE114nnn/GSE114297/suppl/GSE114297_RAW.tar", "GSE114297_RAW.tar"),
            UserFile(
                "labels.csv",
                "your own table with the columns cell (SAMPLE_BARCODE) and cell_type: InstructCell named its clusters"
                " by hand and has not published the names",
            ),
        ),
        licence=NO_LICENCE,
        citation="Xin et al. 2018, Diabetes 67:1783, doi:10.2337/db18-0365"
        " (as published: Xin et al. 2016, Cell Metabolism 24:608, doi:10.1016/j.cmet.2016.08.018)",
        loader="data_prep.published.xin_2016:load",
        columns=("cell_type", "tissue", "donor"),
        tasks=IDENTITY,
        split=INSTRUCTCELL,
        cells=19_915,
        test_cells=1_992,
        correction="the cells are said to be of Xin 2018, whose accession this is; Xin 2016 is GSE81608.",
        notes="There are no public labels for these cells: you have to bring them.",
    ),
    Dataset(
        name="human_immune",
        title="Domínguez Conde 2022, immune cells across tissues",
        species="human",
        tissue="16 tissues",
        modality="10x 3' and 5', counts",
        sources=(CollectionFile("62ef75e4-cbea-454e-a0ce-998ec40223d3", "Global", "global.h5ad"),),
        licence="CC BY 4.0 (CELLxGENE)",
        citation="Domínguez Conde et al. 2022, Science 376:eabl5197, doi:10.1126/science.abl5197",
        loader="data_prep.published.human_immune:load",
        columns=("cell_type", "tissue", "donor"),
        tasks=IDENTITY,
        split=Split("fractions"),
        cells=329_762,
        notes="Cell2Sentence used 273,502 of these cells in 35 types and does not say which; all are loaded here. Genes"
        " are named by Ensembl id, with the symbol beside it.",
    ),
    Dataset(
        name="ma_2020",
        title="Ma 2020, skin (SHARE-seq)",
        species="mouse",
        tissue="skin",
        modality="SHARE-seq, the RNA half, counts",
        sources=(
            RemoteFile(
                f"{GEO}/samples/GSM4156nnn/GSM4156608/suppl/GSM4156608_skin.late.anagen.rna.counts.txt.gz",
                "GSM4156608_skin.late.anagen.rna.counts.txt.gz",
            ),
            RemoteFile(
                f"{GEO}/samples/GSM4156nnn/GSM4156597/suppl/GSM4156597_skin_celltype.txt.gz",
                "GSM4156597_skin_celltype.txt.gz",
            ),
        ),
        licence=NO_LICENCE,
        citation="Ma et al. 2020, Cell 183:1103, doi:10.1016/j.cell.2020.09.056",
        loader="data_prep.published.ma_2020:load",
        columns=("cell_type", "tissue"),
        tasks=IDENTITY,
        split=INSTRUCTCELL,
        cells=34_135,
        test_cells=3_414,
        notes="Barcodes hold commas in the counts and dots in the labels. 'Mix' (2,543 cells) is a label of the"
        " publication, and no type.",
    ),
    Dataset(
        name="bastidas_ponce_2019",
        title="Bastidas-Ponce 2019, developing pancreas",
        species="mouse",
        tissue="pancreas",
        modality="10x 3', counts",
        sources=(
            RemoteFile(f"{GEO}/series/GSE132nnn/GSE132188/suppl/GSE132188_adata.h5ad.h5", "GSE132188_adata.h5ad.h5"),
        ),
        licence=NO_LICENCE,
        citation="Bastidas-Ponce et al. 2019, Development 146:dev173849, doi:10.1242/dev.173849",
        loader="data_prep.published.bastidas_ponce_2019:load",
        columns=("cell_type", "tissue"),
        tasks=IDENTITY,
        split=INSTRUCTCELL,
        cells=35_481,
        test_cells=3_549,
        notes="A type is the last word of a cluster's name, except for Ngn3 clusters, whose level is part of the type.",
    ),
    Dataset(
        name="pbmc_zheng2017_facs",
        title="Zheng 2017, blood cells sorted by FACS (a sample)",
        species="human",
        tissue="blood",
        modality="10x 3', counts",
        sources=(RemoteFile(f"{GITHUB}/stephenslab/fastTopics/8406f5f/data/pbmc_facs.RData", "pbmc_facs.RData"),),
        licence="BSD-2-Clause (fastTopics); 10x Genomics states CC BY 4.0",
        citation="Zheng et al. 2017, Nature Communications 8:14049, doi:10.1038/ncomms14049",
        loader="data_prep.published.pbmc_zheng2017_facs:load",
        columns=("cell_type", "tissue"),
        tasks=IDENTITY,
        split=Split("fractions"),
        cells=3_874,
        notes="The types are what the cells were sorted for, not clusters: labels that no expression went into, and not"
        " all of which expression can tell apart (four kinds of CD4 T cells). The donor is that of pbmc68k_reduced.",
        coarse_types={
            "CD14+ Monocyte": "Monocyte",
            "CD19+ B": "B cell",
            "CD34+": "",
            "CD4+ T Helper2": "T cell",
            "CD4+/CD25 T Reg": "T cell",
            "CD4+/CD45RA+/CD25- Naive T": "T cell",
            "CD4+/CD45RO+ Memory": "T cell",
            "CD56+ NK": "NK cell",
            "CD8+ Cytotoxic T": "T cell",
            "CD8+/CD45RA+ Naive Cytotoxic": "T cell",
        },
        ready="celltype",
    ),
    Dataset(
        name="pbmc_10x3k",
        title="10x Genomics, 3k blood cells",
        species="human",
        tissue="blood",
        modality="10x 3', counts",
        sources=tuple(
            RemoteFile(f"{GITHUB}/rnabioco/clustifyrdata/ea78504/data/{name}", name)
            for name in ("pbmc_matrix.rda", "pbmc_meta.rda")
        ),
        licence="MIT (clustifyrdata); 10x Genomics states CC BY 4.0",
        citation="10x Genomics 2016, 3k PBMCs from a healthy donor; types: Fu et al. 2020, F1000Research 9:223,"
        " doi:10.12688/f1000research.22969.2",
        loader="data_prep.published.pbmc_10x3k:load",
        columns=("cell_type", "tissue"),
        tasks=IDENTITY,
        split=Split("fractions"),
        cells=2_638,
        notes="The types are names given to clusters of the same counts. Beside pbmc_zheng2017_facs it is another study"
        " that shares lineages: --foreign pbmc_10x3k.",
        coarse_types={
            "B": "B cell",
            "CD14+ Mono": "Monocyte",
            "CD8 T": "T cell",
            "DC": "Dendritic cell",
            "FCGR3A+ Mono": "Monocyte",
            "Memory CD4 T": "T cell",
            "NK": "NK cell",
            "Naive CD4 T": "T cell",
            "Platelet": "",
        },
        ready="classified",
    ),
)
