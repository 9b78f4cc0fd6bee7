"""What the files of the schema share: how a section reads, names for kinds of values, and a hint for a misspelt word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Source = Annotated[str, Field(pattern=r"^(pkg|path|hub):.+$")]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the allowed word that is nearest, or nothing."""
    found = difflib.get_close_matches(word, list(allowed), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
