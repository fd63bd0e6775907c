"""An optimizer that clips the true gradient and survives the bad one."""

import keras
from keras import ops

from stablekeras.optimizers import backends
from stablekeras.optimizers.gradients import Gradients, multiplied
from stablekeras.optimizers.inner import (
    Accumulation,
    check_inner,
    squares_gradients,
)
from stablekeras.optimizers.norms import dtype_of_norms, range_of
from stablekeras.optimizers.rule import check_count
from stablekeras.optimizers.rules import build_rules, collect_rules
from stablekeras.optimizers.tally import Tally
from stablekeras.optimizers.true_gradients import true_gradients
from stablekeras.optimizers.wrapper import OptimizerWrapper

__all__ = ["ClippedOptimizer"]


@keras.saving.register_keras_serializable(package="stablekeras")
class ClippedOptimizer(OptimizerWrapper):
    """Wraps an optimizer: clips the true gradient, skips the bad step.

    The true gradient is what the inner optimizer would apply: summed over the
    replicas, over duplicate rows and over the micro-batches of gradient
    accumulation, and unscaled. If it is finite, it is clipped and applied. If
    not, nothing changes, bit for bit: no weight, slot, iteration, learning
    rate schedule, weight decay, moving average or accumulator. The rules'
    statistics never see such a step.

    A step also counts as not finite if its norm is beyond the dtype of the
    norms (float32, float64 with float64 variables), or, for inner optimizers
    that square the gradient, if a square would be infinite after clipping:
    such a slot would turn the weight NaN, or freeze it, one step later.

    With `gradient_accumulation_steps` in the inner optimizer, the clipped
    gradient is the mean of the window. A bad micro-batch alone is left out,
    as if it had not been in the data: the window waits for the next good one.

    Mixed precision: `compile` puts a `LossScaleOptimizer` around this one by
    itself, which then sees unscaled gradients.

    Args:
        inner_optimizer: A `keras.optimizers.Optimizer` without clipping of
            its own. Attributes that only it has are read from it.
        clip: A `ClippingRule` or a list of them, applied in order. `None`
            for no clipping, only the skipping of bad steps.
        global_clipnorm: Float. Short for `clip=GlobalNorm(global_clipnorm)`.
        clipnorm: Float. Short for `clip=Norm(clipnorm)`.
        clipvalue: Float. Short for `clip=Value(clipvalue)`.
        nonfinite: `"skip"`, or `"raise"` to stop with `NonFiniteError`. In
            eager execution it is raised from `apply`. A compiled step cannot
            raise: it changes nothing from the bad step on, and `check`
            raises, which `LogClipping` and `NaNWatch` call after each batch
            and `fit` at its end.
        max_consecutive_skips: Int or `None`. More skipped steps in a row than
            this raise `TooManySkipsError` in the same way.
        name: String. The name of the optimizer.

    Raises:
        TypeError: If `inner_optimizer` is not an optimizer, or `clip` not
            made of rules.
        ValueError: If the inner optimizer clips or is a wrapper itself, more
            than one way to clip is given, or an argument is out of range.

    Example:
    >>> import keras, stablekeras
    >>> optimizer = stablekeras.optimizers.ClippedOptimizer(
    ...     keras.optimizers.SGD(1.0), global_clipnorm=1.0
    ... )
    >>> v = keras.Variable([0.0, 0.0])
    >>> optimizer.apply([keras.ops.array([30.0, 40.0])], [v])
    >>> v.numpy().round(4).tolist()
    [-0.6..., -0.8...]
    >>> optimizer.apply([keras.ops.array([float("nan"), 0.0])], [v])
    >>> optimizer.report()["skipped"], optimizer.report()["grad_norm"]
    (1, 50.0)

    Reference: Pascanu, Mikolov and Bengio (2013), "On the difficulty of
    training recurrent neural networks"; each rule names its own.
    """

    def __init__(
        self,
        inner_optimizer,
        clip=None,
        *,
        global_clipnorm=None,
        clipnorm=None,
        clipvalue=None,
        nonfinite="skip",
        max_consecutive_skips=None,
        name=None,
    ):
        rules = collect_rules(clip, global_clipnorm, clipnorm, clipvalue)
        inner_optimizer = keras.optimizers.get(inner_optimizer)
        settings = _settings(clip, global_clipnorm, clipnorm, clipvalue)
        check_inner(inner_optimizer, settings)
        if nonfinite not in ("skip", "raise"):
            raise ValueError(
                'nonfinite must be "skip" or "raise". '
                f'Received: nonfinite={nonfinite!r}. Pass "skip" to leave '
                'bad steps out, "raise" to stop at the first.'
            )
        if max_consecutive_skips is not None:
            max_consecutive_skips = check_count(
                "max_consecutive_skips",
                max_consecutive_skips,
                "Pass None for no limit.",
            )
        super().__init__(
            inner_optimizer,
            name=name,
            global_clipnorm=global_clipnorm,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
        )
        self.clip = clip
        self.nonfinite = nonfinite
        self.max_consecutive_skips = max_consecutive_skips
        self._rules = rules
        self._settings = settings
        self._loss = None

    def build(self, variables):
        """Creates the variables of the inner optimizer, the rules and ours.

        Args:
            variables: List of the trainable variables.
        """
        if self.built:
            return
        variables = list(variables)
        self._remember(variables)
        self._dtype_of_norms = dtype_of_norms(variables)

        def add_variable(shape, dtype=None, initializer="zeros", name=None):
            return self.add_variable(
                shape,
                initializer=initializer,
                dtype=dtype or self._dtype_of_norms,
                aggregation="only_first_replica",
                name=name,
            )

        self.inner_optimizer.build(variables)
        # A MultiOptimizer may choose its members only now.
        check_inner(self.inner_optimizer, self._settings)
        self._squares = squares_gradients(self.inner_optimizer)
        self._accumulation = Accumulation.of(self.inner_optimizer, variables)
        accumulation = self._accumulation
        self._tally = Tally(
            variables,
            add_variable,
            steps=accumulation.iteration if accumulation else self.iterations,
            steps_per_update=accumulation.steps if accumulation else 1,
            stops_at_once=self.nonfinite == "raise",
            max_consecutive_skips=self.max_consecutive_skips,
        )
        self._rules = build_rules(self._rules, variables, add_variable)
        super().build(variables)

    def apply(self, grads, trainable_variables=None):
        """Clips and applies the gradients, or leaves everything as it is.

        Args:
            grads: List of gradients: tensors, `tf.IndexedSlices` or `None`.
            trainable_variables: List of the variables, in the same order; by
                default those the optimizer was built with.

        Raises:
            NonFiniteError: In eager execution with `nonfinite="raise"`, if a
                gradient is not finite.
            TooManySkipsError: In eager execution, after more than
                `max_consecutive_skips` skipped steps in a row.
        """
        self.apply_if(None, grads, trainable_variables)

    @backends.do_not_convert
    def apply_if(self, condition, grads, trainable_variables=None):
        """Does what `apply` does, if a condition holds as well.

        For those who have a reason of their own to skip a step, such as a
        loss that is not finite: one decision, made in one place.

        Args:
            condition: Bool scalar; `None` means `True`. Must be the same on
                all replicas.
            grads: As in `apply`.
            trainable_variables: As in `apply`.

        Returns:
            Bool scalar: whether the step was committed.

        Raises:
            NonFiniteError: As `apply`.
            TooManySkipsError: As `apply`.
        """
        loss = self.take_loss()
        grads = list(grads)
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "trainable_variables must be given to an optimizer that "
                    "is not built. Received: trainable_variables=None. "
                    "Call optimizer.build(trainable_variables) first."
                )
            variables = list(self._known_variables)
        else:
            variables = list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(
                "There must be one gradient for each variable. Received: "
                f"{len(grads)} gradients for {len(variables)} variables. "
                "Pass None for a variable without a gradient."
            )
        if not self.built and variables:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        if all(g is None for g in grads):
            # Nothing to clip; Keras has its own words for that.
            self.inner_optimizer.apply(grads, variables)
            return ops.ones((), "bool")
        if loss is not None and not backends.usable_here(loss):
            loss = None
        accepted, arguments = self._plan(condition, grads, variables, loss)
        backends.transact(accepted, self._commit, self._skip, arguments)
        if self._tally.can_fail and backends.may_raise_here():
            self.check()
        return accepted

    def _plan(self, condition, grads, variables, loss):
        """Decides on the step; reads variables, changes none.

        Returns:
            `(accepted, arguments)`: a bool scalar, and what `_commit` and
            `_skip` need, all of it as arguments: under a strategy each
            replica must get its own.
        """
        places = self._places(variables)
        grads, overwriting, loss, sound = true_gradients(
            grads, variables, loss, self.inner_optimizer.loss_scale_factor
        )
        tensors = [None] * len(self._known_variables)
        for place, gradient in zip(places, grads, strict=True):
            tensors[place] = gradient

        is_update, micro = None, tensors
        if self._accumulation is not None:
            is_update = self._accumulation.is_last()
            tensors = self._accumulation.mean(micro)
        arriving = self._measure(tensors)
        gradients, memory = arriving, []
        for rule in self._rules:
            if rule.clips:
                gradients, remembered = rule.clip(gradients)
                memory += remembered
        if is_update is not None:
            memory = [(v, ops.where(is_update, x, v.value)) for v, x in memory]
        smallest, largest = range_of(self._dtype_of_norms, self._squares)
        survives = gradients.norm <= largest
        for fits in self._squares_that_may_overflow(gradients):
            survives = ops.logical_and(survives, fits)
        if self._rules:
            # A product with so small a factor that nothing is left is not a
            # clipped gradient.
            left = gradients.norm >= ops.minimum(arriving.norm, smallest)
            survives = ops.logical_and(survives, left)
        if sound is not None:
            survives = ops.logical_and(survives, sound)
        accepted = survives
        if any(rule.vetoes for rule in self._rules):
            norm = (
                arriving.norm if micro is tensors else self._measure(micro).norm
            )
            for rule in self._rules:
                if rule.vetoes:
                    verdict, remembered = rule.accept(norm, loss)
                    accepted = ops.logical_and(accepted, verdict)
                    memory += remembered
        if condition is not None:
            accepted = ops.logical_and(accepted, condition)
        if self._tally.can_fail:
            accepted = ops.logical_and(
                accepted, ops.logical_not(self._tally.has_failed())
            )

        pending = gradients.pending
        if self._accumulation is not None:
            pending = (
                self._accumulation.hand_in(is_update, micro, gradients.tensors)
                if self._rules
                else micro,
                None,
            )
        return accepted, (
            variables,
            overwriting,
            pending,
            memory,
            self._tally.figures(arriving, gradients),
            is_update,
            survives,
        )

    def _squares_that_may_overflow(self, gradients):
        """Yields for each float16 gradient whether its squares are finite.

        Their dtype ends at 65504, long before the norms do.
        """
        if not self._squares or self._known.float16.isdisjoint(
            i for i, there in enumerate(gradients.present) if there
        ):
            return
        for place, x in enumerate(gradients.tensors):
            if x is not None and place in self._known.float16:
                yield ops.max(ops.abs(backends.values_of(x))) < 255.9

    def _commit(
        self, variables, overwriting, pending, memory, figures, is_update, _
    ):
        """Applies the step; called in a replica context."""
        tensors = backends.share_of_replica(multiplied(*pending))
        grads = [
            tensors[place] if value is None else value
            for place, value in zip(
                self._places(variables), overwriting, strict=True
            )
        ]
        scale = self.inner_optimizer.loss_scale_factor
        if scale is not None:
            # The inner optimizer divides by it.
            grads = [
                g if g is None or value is not None else g * scale
                for g, value in zip(grads, overwriting, strict=True)
            ]
        for variable, value in memory:
            variable.assign(value)
        self._tally.write_commit(figures, is_update)
        if is_update is not None and self._rules:
            self._accumulation.empty(is_update)
        with backends.frugal(self.inner_optimizer):
            self.inner_optimizer.apply(grads, trainable_variables=variables)

    def _skip(self, _, __, ___, ____, figures, _____, survives):
        """Counts the step; called in a replica context."""
        self._tally.write_skip(figures, survives)

    def _measure(self, tensors):
        return Gradients(
            tensors,
            self._known_variables,
            self._dtype_of_norms,
            every_tensor=any(rule.every_tensor for rule in self._rules),
        )

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        """Does what `apply` does without changing a variable, as JAX needs.

        Args:
            optimizer_variables: List of values of `variables`.
            grads: As in `apply`.
            trainable_variables: List of values of the trainable variables.

        Returns:
            `(trainable_variables, optimizer_variables)`: lists of new values.

        Raises:
            ValueError: If the optimizer is not built, or on TensorFlow.
        """
        if keras.backend.backend() == "tensorflow" or not self.built:
            return super().stateless_apply(
                optimizer_variables, grads, trainable_variables
            )
        known = self._known_variables
        own = self.variables
        mapping = [
            *zip(known, trainable_variables, strict=True),
            *zip(own, optimizer_variables, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping):
            accepted, arguments = self._plan(None, list(grads), known, None)

        def run(function):
            with keras.StatelessScope(state_mapping=mapping) as scope:
                function(*arguments)
            return (
                [scope.get_current_value(v) for v in known],
                [scope.get_current_value(v) for v in own],
            )

        return ops.cond(
            accepted, lambda: run(self._commit), lambda: run(self._skip)
        )

    def report(self):
        """Returns what was measured, clipped and skipped, as Python numbers.

        Returns:
            Dictionary: `grad_norm` and `update_norm`, the norm of the last
            committed gradient before and after clipping; `clip_rate`, the
            share of updates whose gradient was changed; `skipped` and
            `consecutive_skips`; `worst_variable`, the path of the variable
            with the largest share of `grad_norm`, `None` before any update.
        """
        if not self.built:
            return Tally.blank_report()
        return self._tally.report()

    def check(self):
        """Raises the error of a compiled step that could not raise it itself.

        The error is raised once; after that the optimizer goes on.

        Raises:
            NonFiniteError: If a gradient was not finite, with
                `nonfinite="raise"`.
            TooManySkipsError: If more than `max_consecutive_skips` steps in a
                row were skipped.
        """
        if self.built and self._tally.can_fail:
            self._tally.check()

    def scale_loss(self, loss):
        """Scales the loss as the inner optimizer does, and looks at it."""
        self.see_loss(loss)
        return super().scale_loss(loss)

    def see_loss(self, loss):
        """Shows a loss to the rules that judge it, as `scale_loss` does.

        Args:
            loss: Scalar, the loss that the next gradients are those of.
        """
        if any(rule.vetoes for rule in self._rules):
            self._loss = loss

    def take_loss(self):
        """Returns the loss last shown, and forgets it."""
        loss, self._loss = self._loss, None
        return loss

    def finalize_variable_values(self, var_list):
        """Ends a training: raises what is to be raised, writes averages.

        Args:
            var_list: List of the model's variables.
        """
        self.check()
        super().finalize_variable_values(var_list)

    def get_config(self):
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "clip": serialize(self.clip),
            "global_clipnorm": self.global_clipnorm,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "nonfinite": self.nonfinite,
            "max_consecutive_skips": self.max_consecutive_skips,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Creates an optimizer from what `get_config` returned.

        Args:
            config: Dictionary.
            custom_objects: Dictionary from names to classes of your own.
        """
        config = dict(config)
        for name in ("inner_optimizer", "clip"):
            config[name] = keras.saving.deserialize_keras_object(
                config.get(name), custom_objects=custom_objects
            )
        return cls(**config)


def _settings(clip, global_clipnorm, clipnorm, clipvalue):
    """Returns how the wrapper clips, in words for an error."""
    given = {
        "clip": clip,
        "global_clipnorm": global_clipnorm,
        "clipnorm": clipnorm,
        "clipvalue": clipvalue,
    }
    named = [f"{name}={x!r}" for name, x in given.items() if x is not None]
    return ", ".join(named) or "no clipping"
