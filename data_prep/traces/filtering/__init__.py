"""Candidates are judged: what passes becomes SFT rows, what does not keeps the name of its reason."""
