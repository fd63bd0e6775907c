"""The stages of a watched step: guard, replay, diagnose, report, recover."""
