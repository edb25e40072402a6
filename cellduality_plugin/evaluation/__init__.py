"""How good a checkpoint is: predictions, metrics against real cells, and a report."""
