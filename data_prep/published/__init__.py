"""Loaders of published sets, one module a set, all of one shape."""
