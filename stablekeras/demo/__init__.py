"""A NaN on real data: shown, explained and cured."""
