"""Set an attribute of one instance for a while, unseen by its class."""

import contextlib

__all__ = ["replaced_attribute"]


@contextlib.contextmanager
def replaced_attribute(instance, name, value):
    """Sets an instance attribute past Keras' tracking, and undoes it."""
    missing = object()
    before = instance.__dict__.get(name, missing)
    instance.__dict__[name] = value
    try:
        yield
    finally:
        if before is missing:
            instance.__dict__.pop(name, None)
        else:
            instance.__dict__[name] = before
