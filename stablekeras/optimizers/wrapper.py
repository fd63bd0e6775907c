"""An optimizer around another one: everything that is merely passed on."""

import itertools

import keras

from stablekeras.optimizers import backends

__all__ = ["OptimizerWrapper"]


def _of_inner(name):
    """Returns a property: the attribute of that name of the inner optimizer."""

    def get(self):
        # Keras' base class would keep averages and accumulators of its own.
        if self._inner() is None or self.__dict__.get("_is_building"):
            return None
        return getattr(self._inner(), name)

    def set_(self, value):
        # Keras sets it before there is an inner optimizer.
        if self._inner() is not None:
            setattr(self._inner(), name, value)

    return property(get, set_, doc=f"`{name}` of the inner optimizer.")


class OptimizerWrapper(keras.optimizers.Optimizer):
    """Passes on to an inner optimizer what Keras and its callbacks ask of one.

    A subclass builds the inner optimizer and applies gradients.

    Args:
        inner_optimizer: The optimizer that is wrapped. Attributes that only
            it has are read from it.
        name: String. The name of the optimizer.
        **thresholds: Number or `None` each: what Keras knows of clipping.
    """

    def __init__(self, inner_optimizer, name=None, **thresholds):
        # The learning rate is the inner optimizer's; a callable here keeps
        # Keras from making a variable for it.
        super().__init__(
            learning_rate=_no_learning_rate,
            name=name,
            # A NumPy number or a tensor could not be written as JSON.
            **{k: v and float(v) for k, v in thresholds.items()},
        )
        # Our own count of steps, which Keras makes and nobody uses.
        self._id_of_unused = id(super().iterations)
        self.inner_optimizer = inner_optimizer
        self._known = _Known([])
        self._unread = None

    def build(self, variables):
        """Ends the building: reads what was loaded before.

        Args:
            variables: List of the trainable variables.
        """
        self._is_building = True
        try:
            super().build(variables)
        finally:
            self._is_building = False
        if self._unread is not None:
            store, self._unread = self._unread, None
            # Not as a part of the step that is being traced.
            with backends.at_once():
                self.load_own_variables(store)

    def add_variable(self, *args, name=None, **kwargs):
        """Adds a variable of our own, numbered if its name is taken.

        `Model.get_state_tree` tells variables apart by their names, and two
        rules of a kind give theirs the same.

        Args:
            *args: As in `keras.optimizers.Optimizer.add_variable`.
            name: String.
            **kwargs: As in `keras.optimizers.Optimizer.add_variable`.
        """
        taken = {v.name for v in super().variables}
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        name = next(
            n for n in itertools.chain([name], numbered) if n not in taken
        )
        return super().add_variable(*args, name=name, **kwargs)

    def _remember(self, variables):
        # In a record, or Keras would take them for variables of its own.
        self._known = _Known(variables)

    @property
    def _known_variables(self):
        return self._known.variables

    def _places(self, variables):
        """Returns the places of variables among those we were built with."""
        try:
            return [self._get_variable_index(v) for v in variables]
        except KeyError:
            unknown = [getattr(v, "path", None) or v.name for v in variables]
            raise ValueError(
                "The optimizer can only be called for the variables it was "
                f"built with. Received: {', '.join(unknown)}. Make a new "
                "optimizer for a new set of variables."
            ) from None

    @property
    def variables(self):
        """List of our own variables, then those of the inner optimizer."""
        own = [v for v in super().variables if id(v) != self._id_of_unused]
        return own + self.inner_optimizer.variables

    @property
    def iterations(self):
        """The inner optimizer's count of steps; skipped ones do not count."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        """The inner optimizer's learning rate; can be set."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    loss_scale_factor = _of_inner("loss_scale_factor")
    weight_decay = _of_inner("weight_decay")
    use_ema = _of_inner("use_ema")
    ema_momentum = _of_inner("ema_momentum")
    ema_overwrite_frequency = _of_inner("ema_overwrite_frequency")
    gradient_accumulation_steps = _of_inner("gradient_accumulation_steps")

    def scale_loss(self, loss):
        """Scales the loss as the inner optimizer does."""
        return self.inner_optimizer.scale_loss(loss)

    def apply_gradients(self, grads_and_vars):
        """Applies gradients given as pairs.

        Args:
            grads_and_vars: Iterable of `(gradient, variable)`.

        Returns:
            The inner optimizer's count of steps.
        """
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable as the inner optimizer does, unclipped.

        Args:
            gradient: The gradient.
            variable: The variable.
            learning_rate: The learning rate.
        """
        self.inner_optimizer.update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables):
        self.inner_optimizer._apply_weight_decay(variables)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Excludes variables from the inner optimizer's weight decay.

        Args:
            var_list: List of variables.
            var_names: List of strings, parts of names.
        """
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list):
        """Writes the averages of the inner optimizer, if it keeps any.

        Args:
            var_list: List of the model's variables.
        """
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights):
        """Sets the values of all `variables`.

        Args:
            weights: List of arrays, in the order of `variables`.
        """
        if not self.built or len(weights) != len(self.variables):
            raise ValueError(
                "weights must match the variables of a built optimizer. "
                f"Received: {len(weights)} weights for {len(self.variables)} "
                "variables. Call optimizer.build(trainable_variables) first."
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def load_own_variables(self, store):
        """Loads what was saved; an unbuilt optimizer keeps it until built.

        Args:
            store: Mapping from `"0"`, `"1"`, … to arrays.
        """
        if not self.built and len(store) > 0:
            # Keras' own store has keys, but cannot be iterated over.
            names = store.keys()
            self._unread = {name: store[name][()] for name in names}
            return
        super().load_own_variables(store)

    def _inner(self):
        return self.__dict__.get("inner_optimizer")

    def __getattr__(self, name):
        # Hyperparameters and slots of the inner optimizer, for callbacks that
        # look one level deep. TensorFlow keeps its own books under _self_.
        inner = self.__dict__.get("inner_optimizer")
        if inner is None or name.startswith(("__", "_self_")):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
        return getattr(inner, name)


class _Known:
    """The variables an optimizer was built with, and which are float16."""

    def __init__(self, variables):
        self.variables = variables
        self.float16 = {
            i
            for i, v in enumerate(variables)
            if keras.backend.standardize_dtype(v.dtype) == "float16"
        }


def _no_learning_rate():
    return 0.0
