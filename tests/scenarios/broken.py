"""What a broken program is, and the three ways in which it is run."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import numpy as np

ROWS, COLUMNS = 8, 4


def plain(seed=0):
    """Eight rows of four numbers between 0.5 and 1.5."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, (ROWS, COLUMNS)).astype("float32")


def rows(**values):
    """The plain array with whole rows replaced: `rows(r3=[...])`."""
    array = plain()
    for name, value in values.items():
        array[int(name[1:])] = value
    return array


@dataclasses.dataclass(frozen=True)
class Program:
    """A loss formula that breaks, and what is known about it."""

    fn: Callable
    code: str
    op: str | None
    samples: tuple
    z: np.ndarray
    y: np.ndarray | None
    phase: str
    says: tuple

    @property
    def name(self):
        return self.fn.__name__

    @property
    def location(self):
        """The line that is marked as the root."""
        lines, first = inspect.getsourcelines(self.fn)
        for place, line in enumerate(lines):
            if line.rstrip().endswith("# root"):
                file = inspect.getsourcefile(self.fn).rpartition("/")[2]
                return f"{file}:{first + place}"
        return None


class Table(list):
    """Collects the programs of a file."""

    def add(self, code, op, samples, z=None, y=None, phase="forward", says=()):
        def register(fn):
            self.append(
                Program(
                    fn,
                    code,
                    op,
                    tuple(samples),
                    plain() if z is None else np.asarray(z, "float32"),
                    y,
                    phase,
                    (says,) if isinstance(says, str) else tuple(says),
                )
            )
            return fn

        return register


class Gain(keras.layers.Layer):
    """One weight a column, all 1: lets a gradient pass to a variable."""

    def build(self, shape):
        self.gain = self.add_weight(
            shape=(shape[-1],), initializer="ones", name="gain"
        )

    def call(self, x):
        return x * keras.ops.cast(self.gain, x.dtype)


class Formula(keras.layers.Layer):
    """A program as a layer."""

    def __init__(self, fn, **kwargs):
        super().__init__(**kwargs)
        self.fn = fn

    def call(self, z):
        value = keras.ops.cast(self.fn(z), z.dtype)
        return keras.ops.reshape(value, (1, 1)) * keras.ops.ones_like(z[:, :1])


def compiled(program, place, **options):
    """Returns a compiled model with the program as loss or as layer."""
    inputs = keras.Input(program.z.shape[1:])
    gained = Gain(name="gain")(inputs)
    if place == "loss":
        outputs = gained

        def loss(y, z):
            return program.fn(z, y) if takes_y(program) else program.fn(z)
    else:
        outputs = Formula(program.fn, name="formula")(gained)

        def loss(y, out):
            return keras.ops.mean(out)

    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss=loss, **options)
    return model


def takes_y(program):
    return len(inspect.signature(program.fn).parameters) > 1


def batch(program):
    """Returns the batch that breaks the program."""
    y = program.y
    return program.z, program.z if y is None else y


def check(program, diagnosis, layer):
    """Asserts that a diagnosis says all that is known."""
    assert diagnosis is not None
    got = (
        diagnosis.code,
        diagnosis.op_type,
        diagnosis.phase,
        diagnosis.samples,
        diagnosis.location,
        diagnosis.layer,
    )
    expected = (
        program.code,
        program.op,
        program.phase,
        program.samples,
        program.location,
        layer,
    )
    assert got == expected, f"{got} != {expected}\n{diagnosis}"
    for words in program.says:
        assert words in diagnosis.cause
