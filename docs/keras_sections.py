"""Shows Keras' "Example" section, which griffe does not know, as code."""

import re
import textwrap

import griffe

__all__ = ["KerasSections"]

_EXAMPLE = re.compile(r"^Examples?:\n((?:[^\n]+\n?)+)", re.M)


def _as_code(match):
    block = textwrap.dedent(match[1]).rstrip("\n")
    return f"**Example**\n\n```pycon\n{block}\n```\n"


class KerasSections(griffe.Extension):
    """Rewrites the section in each docstring before it is parsed."""

    def on_instance(self, *, obj, **kwargs):
        """Called once for each module, class, function and attribute."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = _EXAMPLE.sub(_as_code, text)
