"""Where an op came from: the layer that made it, the user's code line."""

import linecache
import os
import sysconfig

import keras
import tensorflow as tf

__all__ = [
    "code_line",
    "layer_path",
    "source_line",
    "user_frames",
]


def _home(module):
    return os.path.dirname(os.path.abspath(module.__file__)) + os.sep


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# The demo plays the user: its formulas are those to be blamed.
_DEMO = os.path.normcase(os.path.join(_PACKAGE, "demo") + os.sep)
_PATHS = sysconfig.get_paths()
_STRANGERS = tuple(
    os.path.normcase(path)
    for path in {
        _PACKAGE,
        _home(keras),
        _home(tf),
        _PATHS["purelib"] + os.sep,
        _PATHS["platlib"] + os.sep,
        _PATHS["stdlib"] + os.sep,
    }
)


def _is_users(filename):
    path = os.path.normcase(os.path.abspath(filename))
    if filename.startswith("<"):
        return filename.startswith(("<ipython", "<stdin", "<doctest"))
    if path.startswith(_DEMO):
        return True
    if f"{os.sep}site-packages{os.sep}" in path:
        return False
    if os.path.basename(path).startswith("__autograph_generated"):
        return False
    return not path.startswith(_STRANGERS)


def user_frames(op):
    """Returns `(file, line)` of the user's frames, innermost first.

    Frames of stablekeras, Keras, TensorFlow, other installed packages and
    the standard library are left out.
    """
    try:
        stack = list(op.traceback or ())
    except (AttributeError, TypeError):  # an op read back from its proto
        return []
    return [
        (frame.filename, frame.lineno)
        for frame in reversed(stack)
        if _is_users(frame.filename)
    ]


def code_line(op):
    """Returns the user's own line that made an op, `"train.py:41"`.

    Of a formula inside Keras it is the line that called it. `None` where no
    line of the user's own is known.
    """
    frames = user_frames(op)
    if not frames:
        return None
    filename, line = frames[0]
    return f"{os.path.basename(filename)}:{line}"


def source_line(op):
    """Returns the text of the user's line that made an op, or `""`."""
    for filename, line in user_frames(op)[:1]:
        return linecache.getline(filename, line).strip()
    return ""


def layer_path(traced, node):
    """Returns the path of the layer that made a node's op.

    Args:
        traced: The `Traced`.
        node: A `Node` of its run.

    Returns:
        The names of the layers from the outermost to the innermost, joined
        by `/`, without that of the model; `None` outside layers.
    """
    for op in (node.op, *reversed(node.frame)):
        path = _span(traced, op)
        if path is not None:
            return path
    return None


def _span(traced, op):
    spans = traced.spans.get(op.graph)
    if not spans:
        return None
    place = traced.place(op)
    fits = [
        (last - first, -path.count("/"), path)
        for first, last, path in spans
        if first <= place < last
    ]
    return min(fits)[-1] if fits else None
