"""What a trained model does for a biologist: names the cells of a new file, with reasons and confidence."""

from cellduality_plugin.inference.model import Model

__all__ = ["Model"]
