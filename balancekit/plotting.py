"""Pictures of a history: the only room that imports matplotlib (``pip install 'balancekit[plot]'``)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancekit._checks import expect
from balancekit.diagnostics import History

__all__ = ["plot"]

DASHES = ("-", "--", "-.", ":")


def plot(history: History, kind: str = "coefficient", *, ax: Axes | None = None) -> Axes:
    """Draw all series of one kind over the steps, and where an alarm was raised, with its cause.

    Lines differ in their dashes as well as in colour. Call it again with the same `ax` to lay one kind over another.

    Args:
        history: of :func:`~balancekit.diagnostics.watch`.
        kind: what stands before the slash of a series' name, such as "coefficient", "score", "ratio", "cosine",
            "conflict", "update ratio", "gradient energy", "efficacy" or "loss"; or a name of your own.
        ax: where to draw; a new figure if None, ``ax.figure``, which is yours and not pyplot's.

    Raises:
        ValueError: for a kind of which there is no series.

    Example:
        >>> history = History()
        >>> history.log({"coefficient/audio": 0.3, "coefficient/video": 1.0})
        >>> [line.get_label() for line in plot(history).lines]
        ['audio', 'video']
    """
    expect(isinstance(history, History), "history", "a History", history, error=TypeError)
    expect(ax is None or isinstance(ax, Axes), "ax", "Axes of matplotlib", ax, error=TypeError)
    names = [name for name in history if name == kind or name.startswith(f"{kind}/")]
    kinds = sorted({name.split("/")[0] for name in history})
    expect(len(names) > 0, "kind", f"one of {kinds}", kind)
    if ax is None:
        ax = Figure(layout="constrained").subplots()
    for name in names:
        steps, values = history[name]
        drawn = len(ax.get_legend_handles_labels()[1])
        look = {"linestyle": DASHES[drawn % len(DASHES)], "marker": "." if len(steps) < 40 else None}
        ax.plot(steps, values, label=name.removeprefix(f"{kind}/"), **look)
    for step in sorted({alarm.step for alarm in history.alarms}):
        causes = dict.fromkeys(alarm.cause for alarm in history.alarms if alarm.step == step)
        ax.axvline(step, color="0.4", linestyle=":", label="_alarm")
        look = {"rotation": 90, "ha": "right", "va": "center", "transform": ax.get_xaxis_transform()}
        ax.text(step, 0.5, ", ".join(causes), **look)
    ax.set(xlabel="step", ylabel=kind)
    ax.legend()
    return ax
