"""Files of published sets: from the network or from Python packages into a cache, checked."""
