"""`ClippedOptimizer` and its clipping rules."""
