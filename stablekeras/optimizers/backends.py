"""What an optimizer needs that differs between the Keras backends.

Both files define the same names; the rest of this package imports them here.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from stablekeras.optimizers.on_tensorflow import (
        add_to,
        all_reduce,
        at_once,
        cond,
        do_not_convert,
        frugal,
        half_sum_of_squares,
        indices_of,
        map_values,
        may_raise_here,
        rarely,
        share_of_replica,
        sum_duplicates,
        transact,
        usable_here,
        values_of,
    )
else:
    from stablekeras.optimizers.on_other_backends import (
        add_to,
        all_reduce,
        at_once,
        cond,
        do_not_convert,
        frugal,
        half_sum_of_squares,
        indices_of,
        map_values,
        may_raise_here,
        rarely,
        share_of_replica,
        sum_duplicates,
        transact,
        usable_here,
        values_of,
    )

__all__ = [
    "add_to",
    "all_reduce",
    "at_once",
    "cond",
    "do_not_convert",
    "frugal",
    "half_sum_of_squares",
    "indices_of",
    "map_values",
    "may_raise_here",
    "rarely",
    "share_of_replica",
    "sum_duplicates",
    "transact",
    "usable_here",
    "values_of",
]
