"""What a hazard is: a formula, the values that break it, the cure."""

import dataclasses
from collections.abc import Callable
from typing import Any

from stablekeras.graphs.match import Pattern
from stablekeras.hazards.rewrites import REWRITES

__all__ = ["Hazard"]


def _always(site, found):
    return True


@dataclasses.dataclass(frozen=True)
class Hazard:
    """One entry of the catalogue.

    Args:
        code: `"SK101"`; it never changes its meaning.
        title: The hazard in a few words.
        why: Why it happens, in a sentence or two.
        fix: The replacement, as code; `{x}`-like fields are not used.
        ops: Types of the forward op that it is seen at; empty for any.
        patterns: Formulas that end in that op; any one is enough. Empty: the
            op itself is all there is to see.
        phases: Where it shows: `"forward"`, `"backward"`.
        test: Function of a `Site` and the captured views: whether the
            measured values are those that break the formula.
        cause: Function of the same that tells what happened, with figures.
        replacement: Public name that cures it, `"ops.log_softmax"`, for
            those who rewrite; `None` where there is no single one.
    """

    code: str
    title: str
    why: str
    fix: str
    ops: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()
    phases: tuple[str, ...] = ("forward", "backward")
    test: Callable[[Any, dict], bool] = _always
    cause: Callable[[Any, dict], str] | None = None
    replacement: str | None = None

    def find(self, view):
        """Returns what the formula captures at a view, or `None`."""
        if self.ops and view.type not in self.ops:
            return None
        if not self.patterns:
            return {}
        for pattern in self.patterns:
            found = pattern.match(view)
            if found is not None:
                return found
        return None

    def recognize(self, site):
        """Returns what was captured if a site shows this hazard.

        Args:
            site: A `Site`.

        Returns:
            Dict of views by name, or `None`.
        """
        if site.formula_phase not in self.phases:
            return None
        found = self.find(site.view)
        if found is None or not self.test(site, found):
            return None
        return found

    @property
    def rewrite(self):
        """What `stabilize` makes of it, `before -> after`, or `None`."""
        found = REWRITES.get(self.code)
        return None if found is None else " -> ".join(found)

    @property
    def remedy(self):
        """The fix, and the rewrite that does it without one."""
        if self.rewrite is None:
            return self.fix
        return (
            f"{self.fix} Or leave it as it is and decorate the function with "
            f"@stablekeras.stabilize, which rewrites {self.rewrite}."
        )

    @property
    def page(self):
        """Path of its documentation page."""
        return f"docs/hazards/{self.code}.md"
