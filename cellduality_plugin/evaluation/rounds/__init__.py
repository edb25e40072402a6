"""Rounds of expectation-maximisation: labels for cells without one, what they look like, and which round is kept."""
