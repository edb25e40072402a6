"""Small models to start from on a CPU."""
