"""The formulas that are rewritten, one family a file."""

from stablekeras.rewrite.patterns import logs, ratios

__all__ = ["ALL"]

ALL = (*logs.PATTERNS, *ratios.PATTERNS)
