"""The catalogue of numerical hazards: pattern, cause, fix."""
