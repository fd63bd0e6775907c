"""Ops that only move entries: which entry of the result came from where."""

import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context

from stablekeras.graphs.program import eager_attrs

__all__ = ["MOVES", "moved_from"]

# Op type: the places of the inputs whose entries move; None: all floats.
MOVES = {
    "Reshape": (0,),
    "Squeeze": (0,),
    "ExpandDims": (0,),
    "Identity": (0,),
    "StopGradient": (0,),
    "Transpose": (0,),
    "Slice": (0,),
    "StridedSlice": (0,),
    "StridedSliceGrad": (4,),
    "GatherV2": (0,),
    "GatherNd": (0,),
    "ResourceGather": (),
    "Tile": (0,),
    "BroadcastTo": (0,),
    "ReverseV2": (0,),
    "Pad": (0,),
    "PadV2": (0, 2),
    "Split": (1,),
    "SplitV": (0,),
    "Unpack": (0,),
    "Pack": None,
    "ConcatV2": None,
    "Roll": (0,),
    "MirrorPad": (0,),
}


def moved_from(node, output, shapes):
    """Returns where the entries of a result came from.

    Args:
        node: A `Node` whose small integer inputs were kept.
        output: Which of its results.
        shapes: Shapes of its inputs.

    Returns:
        Integer array of the result's shape: with the inputs laid end to end
        and counted from 1, the number of the entry that stands there; 0
        where the op put in a value of its own. `None` if the op does more
        than move, or what it needs was not kept.
    """
    if node.type not in MOVES or MOVES[node.type] == ():
        return None
    places = MOVES[node.type]
    kept = node.kept or {}
    args, start = [], 1
    for place, shape in enumerate(shapes):
        size = int(np.prod(shape, dtype=np.int64))
        if place in kept:
            args.append(tf.constant(kept[place]))
        elif places is None or place in places:
            numbers = np.arange(start, start + size, dtype=np.int64)
            args.append(tf.constant(numbers.reshape(shape)))
        else:
            return None
        start += size
    attrs = list(eager_attrs(node.op))
    for place in range(0, len(attrs), 2):
        if attrs[place] in ("T", "Tparams"):
            attrs[place + 1] = tf.int64.as_datatype_enum
    results = pywrap_tfe.TFE_Py_Execute(
        context.context()._handle,
        None,
        node.type,
        args,
        tuple(attrs),
        len(node.op.outputs),
    )
    return results[output].numpy()
