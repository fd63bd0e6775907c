"""An incident as one self-contained HTML page: no script, no network."""

import dataclasses
import logging
import math
import pathlib

import numpy as np

__all__ = ["Curve", "render"]

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.j2")
_ROWS = 8
_COLUMNS = 10
_LAYERS = 60
_WIDTH, _HEIGHT = 640, 150

_log = logging.getLogger("stablekeras")


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure's course before the incident, laid out for an SVG.

    Args:
        name: `"loss"` or `"grad_norm"`.
        points: `"x,y x,y …"` of the finite values, oldest first.
        low: Smallest finite value.
        high: Largest finite value.
        logarithmic: Whether the vertical axis is logarithmic.
        steps: Number of steps shown.
        last: The last value as text; it may be NaN.
    """

    name: str
    points: str
    low: str
    high: str
    logarithmic: bool
    steps: int
    last: str


def render(incident, *, badness=(), history=None, versions=None):
    """Returns the page's HTML.

    Args:
        incident: An `Incident` with its diagnosis and batch.
        badness: `(layer, phase, bad, size)`: entries that are not finite of
            all entries that the layer's ops gave, in the order of the step.
        history: Figures of the steps before, oldest first: mapping of name to
            list of floats.
        versions: Mapping of package to version.

    Returns:
        `str`, or `None` without jinja2 (the `report` extra).
    """
    try:
        import jinja2
    except ImportError:
        _log.info(
            "report.html needs jinja2. Received: none installed. Run: "
            'pip install "stablekeras[report]"'
        )
        return None
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    curves = [
        curve
        for name, values in (history or {}).items()
        if (curve := _curve(name, values)) is not None
    ]
    return template.render(
        incident=incident,
        d=incident.diagnosis,
        heat=_heat(badness),
        hidden_layers=max(0, len({b[0] for b in badness}) - _LAYERS),
        tables=_tables(incident),
        curves=curves,
        versions=versions or {},
        width=_WIDTH,
        height=_HEIGHT,
    )


def _heat(badness):
    """Rows of the heat map: layer, then a cell for each direction."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for layer, phase, bad, size in badness:
        cells = layers.setdefault(layer or "outside layers", {})
        before = cells.get(phase, (0, 0))
        cells[phase] = (before[0] + bad, before[1] + size)
    return [
        (layer, [_cell(cells.get(p)) for p in ("forward", "backward")])
        for layer, cells in list(layers.items())[:_LAYERS]
    ]


def _cell(counts):
    """Style, text and title of one cell; any badness at all must be seen."""
    if counts is None:
        return ("background: none", "–", "no op here")
    bad, size = counts
    share = bad / size if size else 0.0
    if bad == 0:
        return ("background: #e8f1ea", "0", f"all {size} entries finite")
    # From 25% opacity for one entry of many to full for all.
    alpha = 0.25 + 0.75 * math.sqrt(share)
    text = f"{share:.1%}" if share >= 0.001 else "<0.1%"
    ink = "#fff" if alpha > 0.6 else "inherit"
    return (
        f"background: rgba(178, 24, 43, {alpha:.2f}); color: {ink}",
        text,
        f"{bad} of {size} entries not finite",
    )


def _tables(incident):
    """The failing rows of each array of the batch, and what is extreme."""
    d = incident.diagnosis
    if d is None or not d.samples:
        return []
    tables = []
    for name, array in _arrays("", incident.batch):
        if array.ndim == 0 or array.dtype.kind not in "biufV":
            continue
        rows = [r for r in d.samples if r < array.shape[0]][:_ROWS]
        if not rows:
            continue
        flat = array.reshape(array.shape[0], -1)
        if flat.shape[1] == 0:
            continue
        columns = _worst_columns(flat, rows)
        body = [
            (r, [_entry(flat[r, c], flat[:, c]) for c in columns]) for r in rows
        ]
        tables.append(
            {
                "name": name,
                "shape": " x ".join(map(str, array.shape)),
                "columns": columns,
                "all": flat.shape[1],
                "rows": body,
            }
        )
    return tables


def _arrays(name, structure):
    if structure is None:
        return
    if isinstance(structure, dict):
        for key, value in structure.items():
            yield from _arrays(f"{name}[{key!r}]", value)
    elif isinstance(structure, tuple | list):
        names = ("x", "y", "sample_weight")
        for index, value in enumerate(structure):
            label = (
                names[index]
                if not name and index < len(names)
                else f"{name}[{index}]"
            )
            yield from _arrays(label, value)
    else:
        yield name or "x", np.asarray(structure)


def _worst_columns(flat, rows):
    """The columns where the failing rows stand out most, in order."""
    if flat.shape[1] <= _COLUMNS:
        return list(range(flat.shape[1]))
    values = flat.astype("float64")
    finite = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(all="ignore"):
        middle = np.nan_to_num(np.median(np.nan_to_num(finite), axis=0))
        spread = np.nan_to_num(np.nanstd(finite, axis=0)) + 1e-30
        score = np.abs(values[rows] - middle) / spread
    score = np.nan_to_num(score, nan=np.inf, posinf=np.inf)
    worst = np.argsort(-score.max(axis=0), kind="stable")[:_COLUMNS]
    return sorted(int(c) for c in worst)


def _entry(value, column):
    """Text of one entry, and whether it is not finite or the extreme."""
    value = float(value)
    if not math.isfinite(value):
        return (str(value), "bad")
    others = np.abs(column.astype("float64"))
    extreme = len(column) > 1 and abs(value) >= np.nanmax(others) > 0
    return (f"{value:.5g}", "extreme" if extreme else "")


def _curve(name, values):
    values = np.asarray(values, dtype="float64")
    finite = np.isfinite(values)
    if not finite.any():
        return None
    good = values[finite]
    logarithmic = bool(good.min() > 0 and good.max() > 20 * good.min())
    heights = np.log10(good) if logarithmic else good
    span = heights.max() - heights.min() or 1.0
    x = np.flatnonzero(finite) / max(1, len(values) - 1) * (_WIDTH - 20) + 10
    y = (_HEIGHT - 20) * (1 - (heights - heights.min()) / span) + 10
    return Curve(
        name=name,
        points=" ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)),
        low=f"{good.min():.4g}",
        high=f"{good.max():.4g}",
        logarithmic=logarithmic,
        steps=len(values),
        last=f"{values[-1]:.4g}",
    )
