"""`cellduality doctor -- COMMAND`: what would fail, or mislead, minutes into a run, found before Ray starts."""
