"""Tapes inside what is stabilized: rewrite before they differentiate."""

import contextlib

import tensorflow as tf

from stablekeras.graphs.emit import current_graph, recording

__all__ = ["before_derivatives"]


@contextlib.contextmanager
def before_derivatives(stable):
    """Rewrites what a tape is asked to differentiate, while a graph is built.

    Args:
        stable: Function of a target that returns its stand-in.
    """
    original = tf.GradientTape.gradient

    def gradient(tape, target, sources, *more, **options):
        if current_graph() is not None:
            with recording(tape):
                target = stable(target)
        return original(tape, target, sources, *more, **options)

    tf.GradientTape.gradient = gradient
    try:
        yield
    finally:
        tf.GradientTape.gradient = original
