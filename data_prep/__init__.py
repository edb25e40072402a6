"""From an .h5ad file to the rows that OpenRLHF trains and evaluates on."""
