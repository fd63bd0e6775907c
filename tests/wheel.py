"""Builds the wheel and imports it alone, outside the checkout.

Run by `make wheel`. The wheel goes into an environment of its own that sees
the dependencies of this one but not the editable install.
"""

import pathlib
import subprocess
import sys
import sysconfig
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROBE = """
import pathlib, sys
import stablekeras
home = pathlib.Path(stablekeras.__file__).resolve()
assert str(home).startswith(sys.argv[1]), home
assert (home.parent / "py.typed").exists()
from stablekeras import NaNWatch, activations, losses, ops, optimizers
print("wheel", stablekeras.__version__, "imports alone;", float(
    losses.binary_crossentropy([[1.0]], [[1e-10]])[0]))
"""


def main():
    with tempfile.TemporaryDirectory() as scratch:
        run = lambda *words: subprocess.run(words, check=True, cwd=scratch)  # noqa: E731
        run(sys.executable, "-m", "build", "--outdir", scratch, str(ROOT))
        (wheel,) = pathlib.Path(scratch).glob("*.whl")
        target = pathlib.Path(scratch, "site").resolve()
        run(
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps"),
            *("--target", str(target), str(wheel)),
        )
        # -S hides the editable install; the dependencies come back by path.
        code = (
            "import sys; sys.path[:0] = "
            f"[{str(target)!r}, {sysconfig.get_paths()['purelib']!r}]\n"
        )
        run(sys.executable, "-S", "-c", code + PROBE, str(target))


if __name__ == "__main__":
    main()
