"""Command line: `python -m stablekeras {demo,replay,hazards}`."""

import argparse
import os
import sys

__all__ = ["main"]


def main(argv=None):
    """Runs one command; returns the process's exit code.

    Args:
        argv: Words of the command line; by default those of the process.

    Returns:
        0, or 1 where the command failed with a clear error, which is printed
        to stderr. Bad usage ends the process with 2, as `argparse` does.
    """
    args = _parser().parse_args(argv)
    # TensorFlow's start-up notes would bury what the command has to say.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from stablekeras.errors import StableKerasError

    try:
        return args.run(args) or 0
    except (StableKerasError, ValueError) as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m stablekeras",
        description="Training runs that never die of NaN.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="a NaN on real data: shown, explained and cured"
    )
    demo.add_argument(
        "--output",
        default="demo-output",
        help="folder for the picture and the incidents (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)

    replay = commands.add_parser(
        "replay", help="run a recorded incident again and explain it"
    )
    replay.add_argument("path", help="the incident's folder")
    replay.add_argument(
        "--model",
        metavar="MODULE:FACTORY",
        help="function that returns the compiled model, where the recorded "
        "configuration is not enough; it runs your code",
    )
    replay.add_argument(
        "--json", action="store_true", help="print the diagnosis as JSON"
    )
    replay.set_defaults(run=_replay)

    hazards = commands.add_parser(
        "hazards", help="the catalogue of numerical hazards"
    )
    hazards.add_argument("code", nargs="?", help="one hazard, as SK101")
    hazards.set_defaults(run=_hazards)
    return parser


def _demo(args):
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as e:
        print(
            f"The demo needs scikit-learn and matplotlib. Received: {e}. "
            'Run: pip install "stablekeras[demo]"',
            file=sys.stderr,
        )
        return 1
    from stablekeras.demo.story import tell

    return tell(args.output)


def _replay(args):
    # The user's own module is found from where the command is run.
    sys.path.insert(0, os.getcwd())
    from stablekeras.watch.rerun import replay

    diagnosis = replay(args.path, model=args.model)
    print(diagnosis.to_json() if args.json else diagnosis)
    return 0


def _hazards(args):
    from stablekeras.hazards import catalogue

    print(catalogue.describe(args.code))
    return 0


if __name__ == "__main__":
    sys.exit(main())
