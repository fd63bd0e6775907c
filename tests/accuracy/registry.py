"""All entries of the accuracy suite, by the module they are about."""

import inspect

from stablekeras import activations, losses, ops
from tests.accuracy import (
    activations_registry,
    losses_registry,
    ops_registry,
)

__all__ = ["ENTRIES", "MODULES", "NOT_NUMERIC", "by_name", "public"]

# What is measured, and the registry that must cover it.
MODULES = {"ops": ops, "activations": activations, "losses": losses}
REGISTRIES = {
    "ops": ops_registry,
    "activations": activations_registry,
    "losses": losses_registry,
}

ENTRIES = [e for r in REGISTRIES.values() for e in r.ENTRIES]
NOT_NUMERIC = {
    f"{name}.{what}" for name, r in REGISTRIES.items() for what in r.NOT_NUMERIC
}


def by_name():
    """Groups the entries of one public name, in the order of the names."""
    groups = {}
    for entry in sorted(ENTRIES, key=lambda e: e.name):
        groups.setdefault(entry.name, []).append(entry)
    return groups


def public():
    """Every public function, under its own name where it has aliases.

    A loss class calls the function of its name, which is measured.
    """
    names = set()
    for room, module in MODULES.items():
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isclass(function):
                names.add(f"{room}.{function.__name__}")
    return names - NOT_NUMERIC
