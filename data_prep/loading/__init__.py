"""What the loaders of published sets share: the entry of a set, its cells on the way, tables, files of R."""
