"""Table 6: what reinforcement learning from the cells' own duals gains, beside what the true answers would have."""
