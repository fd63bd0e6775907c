"""Rewriting unstable formulas before they are differentiated."""
