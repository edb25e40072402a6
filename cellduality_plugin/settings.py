"""Settings that are read strictly: nothing unknown, nothing out of range, and every mistake told in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cellduality_plugin.errors import CellDualityError

Read = TypeVar("Read", bound="Settings")


class Settings(BaseModel):
    """Settings that do not change; an unknown name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls: type[Read], values: object, where: str = "") -> Read:
        """Return the settings in ``values``.

        Parameters
        ----------
        values
            A mapping, as read from JSON or from the command line.
        where
            The file or command they come from, for the message; by default the first wrong setting.

        Raises
        ------
        CellDualityError
            If a name is unknown or a value out of range; every such setting is named.

        Examples
        --------
        >>> class Masking(Settings):
        ...     hidden: float = 0.25
        >>> Masking.read({"hiden": 0.5})
        Traceback (most recent call last):
            ...
        cellduality_plugin.errors.CellDualityError: Extra inputs ... found 0.5 [hiden]: settings are hidden
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            wrong = error.errors(include_url=False)
        names = [".".join(map(str, one["loc"])) for one in wrong]
        unknown = any(one["type"] == "extra_forbidden" for one in wrong)
        hint = f"settings are {', '.join(cls.model_fields)}" if unknown else "correct the value"
        if len(wrong) == 1 and not where:
            raise CellDualityError(_told(wrong[0]), where=names[0], hint=hint)
        told = "; ".join(
            f"{name}: {_told(one)}" if name else _told(one) for name, one in zip(names, wrong, strict=True)
        )
        raise CellDualityError(told, where=where or names[0], hint=hint)


def _told(one: Mapping[str, Any]) -> str:
    told = str(one["msg"]).removeprefix("Value error, ")
    # What a whole mapping holds would drown what is wrong with it.
    return told if isinstance(one["input"], Mapping) else f"{told}, found {one['input']!r:.60}"
