"""Anybody's .h5ad file: read in blocks, checked, its genes named as the vocabulary names them."""
