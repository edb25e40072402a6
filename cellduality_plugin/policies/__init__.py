"""One way to ask a model: in training through its engine, at an endpoint, offline in batches, or from records."""
