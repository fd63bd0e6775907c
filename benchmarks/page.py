"""Put what a benchmark measured into the docs, where a page asks for it.

    <!-- measured: clipping.cost -->
    the table, and a line that says how it was measured
    <!-- /measured -->

The word before the dot is the script's name. A benchmark prints its tables
either way; with `--write` it also replaces the block of that name, in
whichever page of `docs/` it stands.
"""

import datetime
import os
import pathlib
import platform
import re
import shlex
import sys
from importlib import metadata

__all__ = ["Table", "blocks", "setting", "write"]

DOCS = pathlib.Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(
    r"^<!-- measured: (?P<name>[\w.]+) -->\n(?P<text>.*?)^<!-- /measured -->$",
    re.M | re.S,
)


class Table:
    """A table of Markdown that is printed while it grows.

    Args:
        *columns: The heads.
    """

    def __init__(self, *columns):
        self.lines = []
        self.row(*columns)
        self._add("|" + "---|" * len(columns))

    def row(self, *cells):
        """Adds a row and prints it."""
        self._add("| " + " | ".join(map(str, cells)) + " |")

    def _add(self, line):
        print(line, flush=True)
        self.lines.append(line)

    def __str__(self):
        return "\n".join(self.lines)


def setting(*notes, packages=("keras", "tensorflow")):
    """Returns a line with command, machine, versions, date and `notes`."""
    words = [w for w in sys.argv[1:] if w != "--write"]
    script = pathlib.Path(sys.argv[0]).name
    command = shlex.join(["python", f"benchmarks/{script}", *words])
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS")
    machine = f"{os.cpu_count()} cores of {_processor()}"
    if threads:
        machine += f", {threads} thread" + "s" * (threads != "1")
    versions = [f"Python {platform.python_version()}"]
    versions += [
        f"{name} {metadata.version(name)}"
        for name in (*packages, "stablekeras")
    ]
    day = datetime.date.today().isoformat()
    facts = [*notes, machine, ", ".join(versions), day]
    return f"`{command}`: " + "; ".join(facts) + "."


def _processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"model name\s*:\s*(.+)", text)[1]
    except (OSError, TypeError):
        name = platform.processor() or platform.machine()
    return re.sub(r"\((R|TM)\)", "", name)


def blocks(page):
    """Returns the measured blocks of a page: name to text."""
    text = page.read_text(encoding="utf-8")
    return {b["name"]: b["text"].strip() for b in _BLOCK.finditer(text)}


def write(name, *parts, docs=DOCS):
    """Replaces the text of a measured block.

    Args:
        name: The block's name, such as `clipping.cost`.
        *parts: Its new paragraphs, tables among them.
        docs: Folder of the pages.

    Raises:
        ValueError: If the block does not stand in exactly one page.
    """
    found = [p for p in sorted(docs.rglob("*.md")) if name in blocks(p)]
    if len(found) != 1:
        raise ValueError(
            "A measured block must stand in one page. Received: "
            f"{name!r}, which stands in {[p.name for p in found]}. Add the "
            f"lines '<!-- measured: {name} -->' and '<!-- /measured -->'."
        )
    (page,) = found
    body = "\n\n".join(str(part).strip() for part in parts)

    def renewed(block):
        if block["name"] != name:
            return block[0]
        return f"<!-- measured: {name} -->\n\n{body}\n\n<!-- /measured -->"

    text = _BLOCK.sub(renewed, page.read_text(encoding="utf-8"))
    # Whole or not at all: a reader of the page never sees half a table.
    partial = page.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, page)
