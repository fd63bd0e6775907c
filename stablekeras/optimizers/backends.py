"""What an optimizer needs that differs between the Keras backends.

Both files define the same names; the rest of this package imports them here.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from stablekeras.optimizers.on_tensorflow import (
        all_reduce,
        cond,
        do_not_convert,
        indices_of,
        map_values,
        may_raise_here,
        rarely,
        share_of_replica,
        sum_duplicates,
        sum_of_squares,
        transact,
        usable_here,
        values_of,
    )
else:
    from stablekeras.optimizers.on_other_backends import (
        all_reduce,
        cond,
        do_not_convert,
        indices_of,
        map_values,
        may_raise_here,
        rarely,
        share_of_replica,
        sum_duplicates,
        sum_of_squares,
        transact,
        usable_here,
        values_of,
    )

__all__ = [
    "all_reduce",
    "cond",
    "do_not_convert",
    "indices_of",
    "map_values",
    "may_raise_here",
    "rarely",
    "share_of_replica",
    "sum_duplicates",
    "sum_of_squares",
    "transact",
    "usable_here",
    "values_of",
]
