"""What a rewrite is: the formula, what replaces it, the hazard it cures."""

import dataclasses
from collections.abc import Callable
from typing import Any

from stablekeras.hazards.catalogue import hazard
from stablekeras.rewrite.terms import Term

__all__ = ["Pattern", "Proposal", "Rewrite"]


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """One formula that was replaced.

    Args:
        code: Code of the hazard, `"SK101"`.
        location: The user's code line, `"train.py:41"`, or `None`.
        before: The formula as it was written.
        after: The formula in its place.
    """

    code: str
    location: str | None
    before: str
    after: str

    @property
    def title(self):
        """The hazard in a few words."""
        return hazard(self.code).title

    def __str__(self):
        where = self.location or "unknown line"
        return f"{self.code} {where}: {self.before} -> {self.after}"


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a pattern wants in place of an op.

    Args:
        code: Code of the hazard.
        term: The `Term` in place of the op's first output.
        before: The formula as it was, where the graph does not tell it.
        wide: Whether to compute 16-bit inputs in float32.
        alike: Whether it looks at its inputs where the op did.
        shielded: Function of a need that returns the term to use where not
            all of the result is needed.
    """

    code: str
    term: Term
    before: str | None = None
    wide: bool = True
    alike: bool = False
    shielded: Callable[[Any], Term] | None = None


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One family of formulas.

    Args:
        name: Name of the family.
        codes: Codes of the hazards it may cure.
        ops: Types of the op that the formula ends in.
        before: The formulas, for the reader.
        after: What replaces them.
        rule: Function of a `Context` and an op; returns a `Proposal` or
            `None`.
    """

    name: str
    codes: tuple[str, ...]
    ops: frozenset[str]
    before: str
    after: str
    rule: Callable[[Any, Any], Proposal | None]

    @property
    def hazards(self):
        """The entries of the catalogue that it cures."""
        return tuple(hazard(code) for code in self.codes)
