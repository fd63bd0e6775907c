"""Break trainings at random places, and count what a watch makes of it.

    python benchmarks/faults.py [--seed 2026] [--count 1000] [--settings 42]
        [--mirrored 4] [--kinds mlp cnn ...] [--jobs 2] [--unguarded]
        [--markdown FILE] [--write]

Each fault is one training with one value that is not finite, or huge, at a
random place, step and rows; beside it runs the same training in health. What
is true of a fault is decided by Keras without this package: see
`tests/faults/oracle.py`. `--unguarded` takes the watch out, to show what the
counters count. `--markdown` writes the tables after every setting, of what is
done so far. Ends with an error if a fault harmed: went unnoticed, reached a
weight, left another state than it should; not if a step or row was named wrong.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

import page
import tensorflow as tf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tests.faults.campaign import of_setting
from tests.faults.draw import settings
from tests.faults.kinds import KINDS

COLUMNS = {
    "detected": "detected",
    "step": "step right",
    "rows": "rows right",
    "poisoned": "poisoned",
    "equal": "state bit-equal",
    "as_keras": "as plain Keras",
    "finished": "finished",
    "alarm": "alarm at no harm",
    "false_alarms": "false alarms in health",
}


def share(outcomes, name):
    """Returns "how many of how many" of the outcomes a figure counts for."""
    found = [getattr(o, name) for o in outcomes]
    found = [bool(value) for value in found if value is not None]
    return f"{sum(found)}/{len(found)}" if found else "–"


def table(outcomes, head, group):
    """Returns the table of the outcomes, one row a group and one for all."""
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        groups[group(outcome.fault)].append(outcome)
    lines = [
        [head, "faults", "harmful", *COLUMNS.values()],
        ["---"] * (3 + len(COLUMNS)),
    ]
    for name, members in [*sorted(groups.items()), ("**all**", outcomes)]:
        harmful = sum(o.harmful for o in members)
        shares = [share(members, column) for column in COLUMNS]
        lines.append([name, len(members), harmful, *shares])
    return "\n".join("| " + " | ".join(map(str, x)) + " |" for x in lines)


def report(outcomes, args):
    """Returns the paragraphs for the docs."""
    return [
        table(outcomes, "model", lambda fault: fault.setting.kind),
        table(outcomes, "place", lambda fault: fault.place),
        table(outcomes, "value", _value),
        table(outcomes, "training", _training),
        table(outcomes, "action", lambda fault: fault.action),
        page.setting(f"seed {args.seed}, {len(outcomes)} faults"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--settings", type=int, default=42)
    parser.add_argument("--mirrored", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--unguarded", action="store_true")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    # The command that the docs name: how and where to is no part of it.
    sys.argv[1:] = ["--seed", str(args.seed), "--count", str(args.count)]
    start = time.perf_counter()
    found = settings(args.settings, args.seed, args.kinds, args.mirrored)
    guarded = not args.unguarded
    outcomes, died = [], False
    with concurrent.futures.ProcessPoolExecutor(
        args.jobs,
        multiprocessing.get_context("spawn"),
        _two_devices,
        # TensorFlow gives the second MirroredStrategy of a process the
        # collectives of the first.
        max_tasks_per_child=1,
    ) as pool:
        runs = [
            pool.submit(of_setting, i, found, args.seed, args.count, guarded)
            for i in range(len(found))
        ]
        for run, setting in zip(runs, found, strict=True):
            try:
                outcomes += run.result()
            except Exception as error:
                print(f"{setting} did not end: {error!r}", flush=True)
                died = True
                continue
            print(f"{len(outcomes)} of {args.count}: {setting}", flush=True)
            _tell(o for o in run.result() if o.failures)
            if args.markdown:
                text = "\n\n".join(report(outcomes, args))
                args.markdown.write_text(text + "\n", encoding="utf-8")
    minutes = (time.perf_counter() - start) / 60
    wrong = [o for o in outcomes if o.failures]
    print("", *report(outcomes, args), sep="\n\n")
    print(f"\n{len(wrong)} of {len(outcomes)} not as they must be")
    print(f"{minutes:.0f} minutes")
    if args.write:
        page.write("faults.campaign", *report(outcomes, args))
    harmed = any(set(o.failures) - {"step", "rows"} for o in wrong)
    if died or (harmed and not args.unguarded):
        sys.exit(1)


def _value(fault):
    return fault.value if isinstance(fault.value, str) else "finite, huge"


def _training(fault):
    setting = fault.setting
    if setting.replicas > 1:
        return "2 replicas"
    return setting.precision + (", XLA" if setting.jit else "")


def _tell(outcomes):
    for outcome in outcomes:
        names = ", ".join(outcome.failures)
        print(f"{names}: {outcome.fault}: {outcome.note}", flush=True)


def _two_devices():
    """Makes the devices that `MirroredStrategy` needs, in each process."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


if __name__ == "__main__":
    main()
