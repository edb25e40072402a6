"""Settings that are read strictly: nothing unknown, nothing out of range, and every mistake reported in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cellduality_plugin.errors import CellDualityError

Read = TypeVar("Read", bound="Settings")


class Settings(BaseModel):
    """Settings that do not change; an unknown name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls: type[Read], values: object, where: str = "") -> Read:
        """Return the settings in ``values``, a mapping as read from JSON or from the command line.

        A CellDualityError is raised if a name is unknown or a value out of range; every such setting is named, and
        ``where`` they come from, a file or command; by default that is the first wrong setting.

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
        names, mistakes = [".".join(map(str, one["loc"])) for one in wrong], []
        for name, one in zip(names, wrong, strict=True):
            what = str(one["msg"]).removeprefix("Value error, ")
            # What a whole mapping holds would drown what is wrong with it.
            what += "" if isinstance(one["input"], Mapping) else f", found {one['input']!r:.60}"
            mistakes.append(f"{name}: {what}" if name and (len(wrong) > 1 or where) else what)
        unknown = any(one["type"] == "extra_forbidden" for one in wrong)
        hint = f"settings are {', '.join(cls.model_fields)}" if unknown else "correct the value"
        raise CellDualityError("; ".join(mistakes), code="wrong-settings", where=where or names[0], hint=hint)
