"""A pytest plugin: Keras' own optimizer tests meet wrapped optimizers.

Each optimizer class of Keras is replaced by a function that makes one and
puts a `ClippedOptimizer` without clipping around it. An optimizer that clips
by itself stays bare, as it cannot be wrapped.
"""

import importlib

from stablekeras.optimizers import ClippedOptimizer

MODULES = {
    "adadelta": "Adadelta",
    "adafactor": "Adafactor",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "ftrl": "Ftrl",
    "lamb": "Lamb",
    "lion": "Lion",
    "muon": "Muon",
    "nadam": "Nadam",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
}


def wrapping(cls):
    """Returns a function that stands for the class."""

    def make(*args, **kwargs):
        inner = cls(*args, **kwargs)
        if any(kwargs.get(f"{x}") for x in CLIPS):
            return inner
        return ClippedOptimizer(inner, name=inner.name)

    return make


CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def pytest_configure():
    """Wraps what is reached as `optimizers.Adam`, before tests are imported."""
    package = importlib.import_module("keras.src.optimizers")
    for name in MODULES.values():
        if hasattr(package, name):
            setattr(package, name, wrapping(getattr(package, name)))


def pytest_collection_modifyitems(items):
    """Replaces the class a test module imported by its wrapping function."""
    for module in {item.module for item in items}:
        for file, name in MODULES.items():
            cls = getattr(
                importlib.import_module(f"keras.src.optimizers.{file}"), name
            )
            if getattr(module, name, None) is cls:
                setattr(module, name, wrapping(cls))
