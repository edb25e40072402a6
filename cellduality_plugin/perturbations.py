"""What was done to a cell, as a label: operation, target and, where it matters, dose (section 3.1).

Such as ``"cytokine IFN-beta"``, ``"knockdown TP53"`` or ``"drug erlotinib 2 uM"``: one line, as prompts show it.
"""

CONTROL = "control"
"""The label of an untreated cell."""
