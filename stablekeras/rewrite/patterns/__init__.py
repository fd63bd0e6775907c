"""The formulas that are rewritten, one family a file.

`FORMULAS` are looked for first: they replace a formula by another. `GUARDS`
keep what is left away from where it fails.
"""

from stablekeras.rewrite.patterns import (
    cross_entropy,
    logs,
    masks,
    ratios,
    roots,
    traps,
)

__all__ = ["ALL", "FORMULAS", "GUARDS"]

FORMULAS = (
    *cross_entropy.PATTERNS,
    *logs.PATTERNS,
    *ratios.PATTERNS,
    *masks.PATTERNS,
)
GUARDS = (*traps.PATTERNS, *roots.PATTERNS)
ALL = (*FORMULAS, *GUARDS)
