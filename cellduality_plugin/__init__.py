"""CellDuality: single-cell reasoning trained on its own complementary duals, as an OpenRLHF plugin."""

__version__ = "0.1.0"
