"""The package's source, read once for the architecture tests."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "stablekeras"
MODULES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def module_name(path):
    """`stablekeras.ops.norm` for the file of that module."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imported(path, tree):
    """The full names that a module imports anywhere in its body."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                head = package[: len(package) - node.level + 1]
                base = ".".join([*head, base] if base else head)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def room(name):
    """The room of a module: `ops` for `stablekeras.ops.norm`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""
