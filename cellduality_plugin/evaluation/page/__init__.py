"""The parts of the report's page: what is said in words, maps of cells, rollouts, failures, how to repeat the run."""
