"""The demo's page: loss and gradient norm of each run, incident marked."""

import pathlib

import numpy as np

__all__ = ["draw"]

_COLOURS = ("#b2182b", "#2166ac", "#1b7837")
_WIDTHS = (5.0, 2.2, 1.4)
_WINDOW = 21


def draw(pages, path):
    """Draws one column a task, loss above gradient norm.

    Args:
        pages: Pairs of a task's name and its runs (`Run`).
        path: The PNG file; its folder is made if it is not there.

    Returns:
        The file's absolute path.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2, len(pages), figsize=(6.4 * len(pages), 7.2), squeeze=False
    )
    for column, (name, runs) in enumerate(pages):
        for row, field in enumerate(("loss", "grad_norm")):
            axis = axes[row][column]
            for run, colour, width in zip(
                runs, _COLOURS, _WIDTHS, strict=False
            ):
                _line(axis, run, field, colour, width)
            axis.set_yscale("log")
            axis.set_xlabel("step")
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][column].set_title(f"{name}, unscaled features")
    axes[0][0].set_ylabel("loss of the step (bold: mean of 21)")
    axes[1][0].set_ylabel("norm of the gradient, before clipping")
    handles, labels = axes[0][0].get_legend_handles_labels()
    for marker, colour in zip("xo", _COLOURS, strict=False):
        handles += axes[0][0].plot(
            [], [], marker, color=colour, markersize=9, markerfacecolor="none"
        )
    labels += ["weights become NaN", "step caught, not applied"]
    figure.legend(handles, labels, loc="lower center", ncol=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path = pathlib.Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _smoothed(values):
    """Running geometric mean over `_WINDOW` steps, fewer at the ends."""
    logs = np.log(values)
    half = _WINDOW // 2
    means = [
        logs[max(0, i - half) : i + half + 1].mean() for i in range(len(logs))
    ]
    return np.exp(means)


def _line(axis, run, field, colour, width):
    values = np.array(getattr(run, field), dtype=float)
    steps = np.arange(len(values))
    finite = np.isfinite(values) & (values > 0)
    # Connected through the gaps: a loss of exactly 0 has no logarithm.
    steps_shown, shown = steps[finite], values[finite]
    axis.plot(steps_shown, shown, color=colour, linewidth=0.6, alpha=0.25)
    axis.plot(
        steps_shown,
        _smoothed(shown),
        color=colour,
        linewidth=width,
        alpha=0.85,
        label=run.title,
    )
    lost = steps[~np.isfinite(values)]
    for mark, where in (("x", lost[:1]), ("o", [run.incident])):
        for step in where:
            if step is None:
                continue
            axis.axvline(step, color=colour, linewidth=1, linestyle=":")
            axis.plot(
                step,
                0.97,
                marker=mark,
                markersize=9,
                markerfacecolor="none",
                markeredgewidth=2,
                color=colour,
                transform=axis.get_xaxis_transform(),
                clip_on=False,
            )
