"""What a watch does about a step of the validation: it only tells."""

import dataclasses

from stablekeras.watch import incident as incidents

__all__ = ["Validation"]


class Validation:
    """Listens to the test function; reports the steps that are not finite.

    Args:
        watch: The `NaNWatch`.
    """

    def __init__(self, watch):
        self._watch = watch
        self._logs = None

    def before(self, function, iterator):
        """Told that a call begins."""

    def committed(self, steps, logs, overflows, gradient_norm=None):
        """Told of steps that were finite."""
        self._logs = logs
        self._watch._good_test_steps += steps

    def fallback(self):
        """Returns the logs of a call in which no step was finite."""
        return self._logs or self._watch.model.get_metrics_result()

    def trip(self, trip):
        """Told of a step that was not; validation goes on."""
        watch = self._watch
        incident = incidents.record(
            dataclasses.replace(trip, tripped=("validation",)),
            epoch=watch._epoch,
            step=watch._test_begin + trip.offset,
            action="report",
        )
        watch._bad_test_steps += 1
        step = watch.model.test_step
        incidents.add(watch.incidents, watch._explain(incident, step))
        return "go on"
