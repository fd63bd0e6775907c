"""Lower an optimizer's learning rate, whatever it is made of."""

import keras

__all__ = [
    "ScaledSchedule",
    "lower",
    "make_scalable",
    "rates",
    "set_rate",
    "variables",
]


@keras.saving.register_keras_serializable(package="stablekeras")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a constant.

    Args:
        schedule: A `LearningRateSchedule`.
        factor: Float, the constant.

    Example:
    >>> schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    >>> round(float(ScaledSchedule(schedule, 0.5)(0)), 4)
    0.05
    """

    def __init__(self, schedule, factor):
        super().__init__()
        self.schedule = schedule
        # A variable, so that a traced step sees a later change.
        self._factor = keras.Variable(factor, trainable=False, name="factor")

    @property
    def factor(self):
        """The constant, a float."""
        return float(keras.ops.convert_to_numpy(self._factor))

    @factor.setter
    def factor(self, value):
        self._factor.assign(value)

    def __call__(self, step):
        """Returns the scaled rate of a step."""
        rate = self.schedule(step)
        return rate * keras.ops.cast(self._factor, rate.dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "factor": self.factor,
        }

    @classmethod
    def from_config(cls, config):
        """Returns a schedule made from the result of `get_config`."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["factor"])


def _base(optimizer):
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    return optimizer


def rates(optimizers):
    """Returns the learning rates of optimizers now, floats."""
    return [
        float(keras.ops.convert_to_numpy(_base(o).learning_rate))
        for o in optimizers
    ]


def variables(optimizers):
    """Returns the variables that hold plain learning rates."""
    found = [_base(o)._learning_rate for o in optimizers]
    return [v for v in found if isinstance(v, keras.Variable)]


def set_rate(optimizer, rate):
    """Sets the rate if it is a plain number; returns whether it was."""
    base = _base(optimizer)
    if not isinstance(base._learning_rate, keras.Variable):
        return False
    base.learning_rate = rate
    return True


def lower(optimizer, factor):
    """Multiplies the learning rate by `factor`.

    Args:
        optimizer: A Keras optimizer; of a wrapper the inner one is meant.
        factor: Float in (0, 1].

    Returns:
        Whether a traced step sees the new rate. The first time, a schedule
        is replaced by a scaled one, and steps must be traced again.
    """
    if set_rate(optimizer, rates([optimizer])[0] * factor):
        return True
    base = _base(optimizer)
    rate = base._learning_rate
    if isinstance(rate, ScaledSchedule):
        rate.factor *= factor
        return True
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        base.learning_rate = ScaledSchedule(rate, factor)
    else:
        base.learning_rate = lambda: rate() * factor
    return False


def make_scalable(optimizers):
    """Scales schedules by 1, so that what is traced now can be lowered."""
    for optimizer in optimizers:
        base = _base(optimizer)
        rate = base._learning_rate
        if isinstance(
            rate, keras.optimizers.schedules.LearningRateSchedule
        ) and not isinstance(rate, ScaledSchedule):
            base.learning_rate = ScaledSchedule(rate, 1.0)
