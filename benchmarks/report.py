"""The picture of an incident's page that `docs/how-to/read-a-report.md` shows.

    python benchmarks/report.py [--output report.png] [--write]

Runs the first program of that page in an empty folder and takes a picture of
the top of the `report.html` that it leaves, with Chromium or Chrome. Where
neither is installed, it says so, and the picture stays as it was. `--write`
replaces the picture of the docs.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from PIL import Image

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = DOCS / "how-to/read-a-report.md"
PICTURE = DOCS / "assets/report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1000, 1460


def incident(folder):
    """Runs the page's program in `folder`; returns the report it writes."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1]
    program = pathlib.Path(folder, "train.py")
    program.write_text(code)
    subprocess.run([sys.executable, program], cwd=folder, check=True)
    (report,) = pathlib.Path(folder, "incidents").glob("*/report.html")
    return report


def photograph(browser, report, picture):
    # A browser in a sandbox of its own may write to its folder only.
    taken = report.with_name("report.png")
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={taken}",
            report.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(taken) as image:  # A third of the bytes.
        image.quantize(64).save(picture, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default="report.png")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"No browser: one of {', '.join(BROWSERS)} takes the picture.")
        return
    picture = PICTURE if args.write else args.output
    with tempfile.TemporaryDirectory() as folder:
        photograph(browser, incident(folder), picture)
    print(picture)


if __name__ == "__main__":
    main()
