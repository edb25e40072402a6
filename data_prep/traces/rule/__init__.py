"""A teacher that needs no model: marker genes say what a cell is, and memory what a cell looks like."""
