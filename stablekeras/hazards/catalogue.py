"""The catalogue: every hazard, in the order in which they are tried.

The special stands before the general: a softmax written by hand is also an
overflow of exp, and the first that fits is named.
"""

from stablekeras.hazards import (
    backward,
    data,
    divergence,
    division,
    domains,
    exponentials,
    guards,
    logarithms,
    overflow,
    precision,
)
from stablekeras.hazards.hazard import Hazard

__all__ = ["CATALOGUE", "UNKNOWN", "describe", "hazard", "recognize"]

UNKNOWN = Hazard(
    code="SK000",
    title="unknown",
    why="What was measured does not show a cause that the catalogue knows.",
    fix=(
        "Read the evidence; run the step eagerly with the recorded batch "
        "and look at the named op."
    ),
)


def _pick(family, *codes):
    return tuple(h for h in family.HAZARDS if h.code in codes)


def _but(family, *codes):
    return tuple(h for h in family.HAZARDS if h.code not in codes)


# Faults of data and variables first; then what is behind a mask or a where;
# then the formulas; then what an op can do wrong by itself.
_ORDER = (
    _pick(data, "SK502", "SK501"),
    _pick(precision, "SK702"),
    _pick(divergence, "SK602", "SK603"),
    _pick(precision, "SK701"),
    _pick(division, "SK208"),
    _pick(data, "SK503", "SK504", "SK505", "SK506"),
    _pick(backward, "SK404"),
    _pick(guards, "SK105", "SK104"),
    _pick(logarithms, "SK101", "SK102"),
    _pick(logarithms, "SK103", "SK106", "SK107", "SK108"),
    _pick(exponentials, "SK302", "SK303", "SK305", "SK307"),
    _pick(exponentials, "SK304", "SK308"),
    _pick(division, "SK204"),
    _pick(backward, "SK412"),
    _pick(logarithms, "SK109", "SK110"),
    _but(division, "SK208", "SK204"),
    domains.HAZARDS,
    _pick(exponentials, "SK306"),
    _pick(divergence, "SK601"),
    _pick(exponentials, "SK301"),
    overflow.HAZARDS,
    _pick(divergence, "SK604"),
    _but(backward, "SK404", "SK412", "SK405", "SK413"),
    _pick(precision, "SK703"),
    _pick(backward, "SK405", "SK413"),
)
CATALOGUE: tuple[Hazard, ...] = tuple(h for part in _ORDER for h in part)


def recognize(site):
    """Returns the first hazard that a site shows, and what it captured.

    Args:
        site: A `Site`.

    Returns:
        `(hazard, captures)`; `(UNKNOWN, {})` where none was shown.
    """
    for entry in CATALOGUE:
        found = entry.recognize(site)
        if found is not None:
            return entry, found
    return UNKNOWN, {}


def hazard(code):
    """Returns the hazard of a code.

    Args:
        code: `"SK101"`; upper or lower case.

    Raises:
        ValueError: If there is none.
    """
    for entry in (UNKNOWN, *CATALOGUE):
        if entry.code == str(code).upper():
            return entry
    known = ", ".join(sorted(entry.code for entry in CATALOGUE))
    raise ValueError(
        f"code must be that of a hazard. Received: code={code!r}. Known: "
        f"SK000, {known}."
    )


def describe(code=None):
    """Returns the catalogue as text, as `python -m stablekeras hazards`.

    Args:
        code: Code of one hazard to tell in full; `None` lists all.

    Raises:
        ValueError: If there is no such hazard.

    Example:
    >>> from stablekeras.hazards.catalogue import describe
    >>> print(describe("SK109").splitlines()[0])
    SK109 log of a negative number
    """
    if code is not None:
        entry = hazard(code)
        return "\n".join(
            (
                f"{entry.code} {entry.title}",
                "",
                f"why  {entry.why}",
                f"fix  {entry.remedy}",
                f"page {entry.page}",
            )
        )
    entries = sorted((UNKNOWN, *CATALOGUE), key=lambda entry: entry.code)
    return "\n".join(f"{entry.code}  {entry.title}" for entry in entries)
