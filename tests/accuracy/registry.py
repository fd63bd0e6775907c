"""All entries of the accuracy suite, by the module they are about."""

from stablekeras import activations, ops
from tests.accuracy import activations_registry, ops_registry

__all__ = ["ENTRIES", "MODULES", "NOT_NUMERIC", "by_name", "public"]

# What is measured, and the registry that must cover it.
MODULES = {"ops": ops, "activations": activations}
REGISTRIES = {"ops": ops_registry, "activations": activations_registry}

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
    """Every public name that must have an entry; aliases have their own's."""
    names = set()
    for room, module in MODULES.items():
        for name in module.__all__:
            function = getattr(module, name)
            names.add(f"{room}.{function.__name__}")
    return names - NOT_NUMERIC
