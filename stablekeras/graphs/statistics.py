"""What is measured of one float tensor, and how."""

import dataclasses

import numpy as np

__all__ = ["TensorStats", "bad_mask", "measure", "rows_of"]


@dataclasses.dataclass(frozen=True)
class TensorStats:
    """What was measured of one float tensor.

    Args:
        name: The tensor's name in the traced step, `"head/Log:0"`.
        shape: Its shape in that run.
        dtype: Its dtype's name.
        size: Number of entries.
        nan: Number of NaN entries.
        posinf: Number of +Inf entries.
        neginf: Number of -Inf entries.
        zeros: Number of entries equal to zero.
        min: Smallest finite entry, or `None` without one.
        max: Largest finite entry, or `None` without one.
        rows: Indices along the first axis that hold a non-finite entry,
            where that axis is the batch; else empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float | None = None
    max: float | None = None
    rows: tuple[int, ...] = ()

    @property
    def finite(self) -> int:
        """Number of finite entries."""
        return self.size - self.nan - self.posinf - self.neginf

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        parts = [f"{self.name} {self.dtype} {shape}"]
        if self.min is not None:
            parts.append(f"finite in [{self.min:.6g}, {self.max:.6g}]")
        for label, count in (
            ("NaN", self.nan),
            ("+Inf", self.posinf),
            ("-Inf", self.neginf),
            ("zero", self.zeros),
        ):
            if count:
                parts.append(f"{count} {label} of {self.size}")
        return ", ".join(parts)


def _plain(array):
    # NumPy is slow on half floats: every question is answered in float32,
    # which holds each of their values exactly.
    if array.dtype.itemsize < 4:
        return array.astype(np.float32)
    return array


def bad_mask(array):
    """Returns where `array` is not finite, or `None` where it all is."""
    array = _plain(np.asarray(array))
    finite = np.isfinite(array)
    return None if finite.all() else ~finite


def measure(array, name="", rows=()):
    """Returns the statistics of one tensor.

    Args:
        array: NumPy array of any floating or complex dtype and any shape.
        name: Name to give it.
        rows: Rows of the batch that hold a non-finite entry.

    Returns:
        A `TensorStats`; of a complex tensor, those of its modulus.
    """
    array = np.asarray(array)
    dtype = array.dtype.name
    plain = _plain(array)
    if plain.dtype.kind == "c":
        plain = np.abs(plain)
    fields: dict = {}
    if plain.size:
        low, high = plain.min(), plain.max()
        if np.isfinite(low) and np.isfinite(high):
            fields.update(min=float(low), max=float(high))
        else:
            kept = plain[np.isfinite(plain)]
            fields.update(
                nan=int(np.isnan(plain).sum()),
                posinf=int(np.isposinf(plain).sum()),
                neginf=int(np.isneginf(plain).sum()),
            )
            if kept.size:
                low, high = kept.min(), kept.max()
                fields.update(min=float(low), max=float(high))
        if fields.get("min") is not None and fields["min"] <= 0.0:
            fields["zeros"] = plain.size - int(np.count_nonzero(plain))
        elif fields.get("min") is not None:
            fields["zeros"] = 0
    return TensorStats(
        name=name,
        shape=tuple(int(n) for n in array.shape),
        dtype=dtype,
        size=int(array.size),
        rows=tuple(int(r) for r in rows),
        **fields,
    )


def rows_of(mask, axis):
    """Returns the batch rows in which `mask` is true.

    Args:
        mask: Boolean array.
        axis: `(position, factor)` of the batch axis: entry `i` of that axis
            belongs to row `i // factor`. `None` where no batch axis is left.

    Returns:
        Tuple of row numbers, rising; empty without a batch axis.
    """
    if axis is None or mask is None or not mask.ndim:
        return ()
    position, factor = axis
    others = tuple(i for i in range(mask.ndim) if i != position)
    hit = np.flatnonzero(mask.any(axis=others))
    return tuple(int(r) for r in np.unique(hit // factor))
