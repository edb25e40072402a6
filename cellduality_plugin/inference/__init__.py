"""What a trained model does for a biologist: names the cells of a new file, with reasons and confidence."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellduality_plugin.inference.model import Model

__all__ = ["Model"]


def __getattr__(name: str) -> Any:  # what packs a model does not wait for what asks one
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cellduality_plugin.inference.model import Model

    return Model
