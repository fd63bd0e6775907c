"""A recorded incident, run again in a new process."""

import contextlib
import dataclasses
import importlib
import re
import warnings

import keras

from stablekeras.errors import ReplayError
from stablekeras.watch import bundle as bundles
from stablekeras.watch import diagnose
from stablekeras.watch.replay import replay_step

__all__ = ["replay"]

# Configurations may name classes of these packages only: naming a module
# imports it, and importing runs code.
_TRUSTED = ("keras", "stablekeras", "builtins")
_OWN = re.compile(r"stablekeras(\.[a-z_]+)*")


def replay(path, *, model=None):
    """Runs the recorded step again and explains it.

    Public as `stablekeras.replay`. Nothing in the folder is executed: the
    model is built from its configuration with Keras' safe mode, and a
    configuration may name only Keras' and stablekeras' classes and those
    registered in this process.

    Args:
        path: The incident's folder.
        model: Where the configuration is not enough (subclassed models,
            functions of your own): a compiled model, a function that returns
            one, or `"module:factory"` naming such a function.

    Returns:
        The `Diagnosis`. Its `location` is that of the recorded incident where
        the same op is found and the user's own code is not part of the
        replay.

    Raises:
        BundleError: If the folder is missing, damaged or unsafe.
        ReplayError: If the model cannot be built or does not fit the record,
            or the incident has no batch, as a divergence.
    """
    bundle = bundles.read(path)
    recorded = bundle.incident.diagnosis
    if bundle.incident.batch is None:
        raise ReplayError(
            "Only an incident with a batch can be run again. Received: "
            f"{bundle.path}, without one"
            + (f" ({recorded.code}: {recorded.cause})" if recorded else "")
            + ". Read its report.html or report.json."
        )
    built = _build(bundle, model)
    _load_state(bundle, built)
    trace = replay_step(built, bundle.incident)
    diagnosis = diagnose.explain(trace)
    if (
        diagnosis.location is None
        and recorded is not None
        and (recorded.code, recorded.op_type, recorded.layer)
        == (diagnosis.code, diagnosis.op_type, diagnosis.layer)
    ):
        diagnosis = dataclasses.replace(diagnosis, location=recorded.location)
    return diagnosis


def _build(bundle, model):
    if isinstance(model, str):
        module, _, name = model.partition(":")
        if not module or not name:
            raise ValueError(
                "model must name a function as module:factory. Received: "
                f"model={model!r}. Pass, say, train:build_model."
            )
        model = getattr(importlib.import_module(module), name)
    if model is not None:
        if not isinstance(model, keras.Model):
            model = model()
        if not isinstance(model, keras.Model) or model.optimizer is None:
            raise ReplayError(
                "model must be a compiled keras.Model, or a function that "
                f"returns one. Received: {type(model).__name__}. Compile it "
                "as in training."
            )
        return model
    if bundle.model is None:
        raise ReplayError(
            "The recorded model has no configuration. Received: "
            f"{bundle.path} ({'; '.join(bundle.notes) or 'no reason noted'}). "
            "Pass model=, or --model module:factory."
        )
    _refuse_untrusted(bundle.model)
    try:
        with warnings.catch_warnings():
            # What it warns of is an error here, below.
            warnings.filterwarnings(
                "ignore", message=".*compile\\(\\)` was not"
            )
            model = keras.saving.deserialize_keras_object(
                bundle.model, safe_mode=True
            )
    except Exception as e:
        # Keras adds the whole configuration; its first sentence says enough.
        reason = str(e).split(" Full object config")[0].split(". ")[0]
        raise ReplayError(
            "The recorded model must be buildable from its configuration. "
            f"Received: {type(e).__name__}: {reason}. Pass model=, or --model "
            "module:factory, naming the function that builds and compiles it."
        ) from e
    kind = type(model)
    if (
        kind.compile is not keras.Model.compile
        and kind.compile_from_config is keras.Model.compile_from_config
    ):
        # It may have compiled itself, with another loss than in training.
        raise ReplayError(
            "Keras must be able to compile the recorded model. Received: "
            f"{kind.__name__}, whose class overrides compile. Pass model=, or "
            "--model module:factory, naming the function that builds and "
            "compiles it."
        )
    return model


def _refuse_untrusted(config):
    """Raises where the configuration names a module that is not trusted.

    Modules of this package are imported: that registers their classes.
    """
    pending = [config]
    registered = keras.saving.get_custom_objects()
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            module = item.get("module")
            if isinstance(module, str) and _OWN.fullmatch(module):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
            known = item.get("registered_name") in registered
            if (
                isinstance(module, str)
                and module.split(".")[0] not in _TRUSTED
                and not known
            ) or item.get("class_name") == "__lambda__":
                raise ReplayError(
                    "A recorded model may name classes of Keras and "
                    "stablekeras, and registered ones. Received: "
                    f"{item.get('class_name')!r} of module {module!r}. Pass "
                    "model=, or --model module:factory."
                )
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item


def _load_state(bundle, model):
    if not bundle.state:
        raise ReplayError(
            "The record must hold the weights before the step. Received: "
            f"{bundle.path} ({'; '.join(bundle.notes)}). Record it again with "
            "a larger max_bytes."
        )
    own = bundle.state[: bundle.model_variables]
    groups = [(model.variables, own)]
    optimizer = model.optimizer
    rest = bundle.state[bundle.model_variables :]
    if rest:
        optimizer.build(model.trainable_variables)
        groups.append((optimizer.variables, rest))
    for variables, recorded in groups:
        shapes = [tuple(v.shape) for v in variables]
        found = [value.shape for _, value in recorded]
        if shapes != found:
            raise ReplayError(
                "The model's variables must have the recorded shapes. "
                f"Received: {len(shapes)} variables, recorded {len(found)}"
                f"{_first_difference(shapes, found)}. Pass the model that was "
                "trained."
            )
        for variable, (_, value) in zip(variables, recorded, strict=True):
            variable.assign(value)


def _first_difference(shapes, found):
    for index, pair in enumerate(zip(shapes, found, strict=False)):
        if pair[0] != pair[1]:
            return f", number {index} is {pair[0]}, recorded {pair[1]}"
    return ""
