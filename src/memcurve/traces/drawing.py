"""The figure of a replay: bytes over time with the capacity, what runs and waits, and what arrives.

One model is drawn as a band from the least to the most of each bin; several as the most of each, with their peak, 99th percentile
and mean beside the axis, which names them.
"""

from __future__ import annotations

from ..base import BadConfig
from ..figures import COLOURS, UNITS, new_figure
from .compiled import np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .replaying import Replay
    from .run import Run

    Floats = NDArray[np.float64]

# Bins of a line in a figure of so many inches: more can't be told apart.
ONE, SEVERAL = 360, 200
MOST_MODELS = 8
# Dates before this are a trace's own zero.
DATED = 10**17
SECOND, MINUTE, HOUR, DAY = 10**9, 60 * 10**9, 3600 * 10**9, 86400 * 10**9
GREY, RED = "#555555", "#B00020"
SMALL = 7.5
# Heights of a label beside the axes, as a share of theirs.
LABEL = 0.115
# Inches beside the axes, for four digits and two lines of words.
LEFT = 0.78
# Behind words on lines.
PAPER = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.0}


def draw(replay: Replay, title: str | None = None) -> Figure:
    """A Matplotlib Figure. MissingExtraError without Matplotlib."""
    runs = replay.runs
    if len(runs) > MOST_MODELS:
        raise BadConfig(f"models: {len(runs)}; a figure shows at most {MOST_MODELS}")
    several = len(runs) > 1
    # Room beside the axes for names and numbers, in inches.
    side = max(2.05, 0.35 + 0.075 * max(len(short(run)) for run in runs)) if several else 0.25
    width = LEFT + 6.54 + side
    figure = new_figure(width, 5.0)
    grid = figure.add_gridspec(
        3,
        1,
        height_ratios=(5, 1.2, 1.2),
        hspace=0.16,
        left=LEFT / width,
        right=1 - side / width,
        top=0.915,
        bottom=0.125,
    )
    top = figure.add_subplot(grid[0])
    middle, bottom = (figure.add_subplot(grid[row], sharex=top) for row in (1, 2))
    most = max(
        max(run.peak_bytes for run in runs), *(run.capacity_bytes or 0 for run in runs if capacity_shown(run)), 1
    )
    unit, scale = next(pair for pair in reversed(UNITS) if most >= pair[1])
    for axes in (top, middle, bottom):
        plain(axes)
    if several:
        overlay(top, runs, scale, unit)
    else:
        band(top, runs[0], scale, unit)
    capacities(top, runs, scale, unit)
    running(middle, runs)
    arriving(bottom, runs[0])
    time_axis(bottom, replay)
    for axes in (top, middle):
        axes.tick_params(labelbottom=False)
    top.set_ylim(0, 1.06 * most / scale)
    if several:
        labels(top, runs, scale, unit)
    per = "each GPU" if any(run.gpus > 1 for run in runs) else "the GPU" if runs[0].gpus else ""
    top.set_ylabel(f"State on {per} ({unit})" if per else f"Sequence state ({unit})")
    left = LEFT / width
    heading = title if title is not None else headline(replay)
    # Bold letters are about 0.66 of their size wide.
    letters = min(10.5, (width - 0.8) * 72 / (0.66 * max(len(heading), 1)))
    figure.text(left, 0.972, heading, fontsize=letters, ha="left", va="center", weight="bold")
    below = assumption(replay)
    # Plain ones about 0.6 of theirs.
    small = min(6.5, (width - 0.8) * 72 / (0.6 * len(below)))
    figure.text(left, 0.018, below, fontsize=small, color=GREY, ha="left")
    figure.align_ylabels([top, middle, bottom])
    return figure


def headline(replay: Replay) -> str:
    run = replay.runs[0]
    where = f" on {run.gpus} × {run.gpu}" if run.gpus else ""
    names = run.name if len(replay.runs) == 1 else f"{len(replay.runs)} models"
    trace = replay.trace.rpartition("/")[2]
    queue = "" if not run.capped else ", with its queue"
    engines = ", ".join(dict.fromkeys(one.engine for one in replay.runs))
    return f"{names} · {engines}{where} · {trace}{queue}"


def assumption(replay: Replay) -> str:
    return (
        f"{replay.counts['requests']:,} requests, {replay.prompt_tokens:,} prompt and {replay.output_tokens:,} output tokens. "
        f"Time is assumed: {replay.service.rates}."
    )


def plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(True, axis="y", linewidth=0.4, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.yaxis.label.set_fontsize(8.5)


def joined(values: NDArray[Any], most: int, how: str) -> Floats:
    """At most so many bins, each of as many rows (the last of what is left)."""
    each = max(1, -(-len(values) // most))
    first = np.arange(0, len(values), each)
    if how == "mean":
        return np.asarray(np.add.reduceat(values.astype(float), first) / np.diff(np.append(first, len(values))))
    return np.asarray(
        (np.maximum if how == "max" else np.minimum if how == "min" else np.add).reduceat(values, first), float
    )


def edges(run: Run, most: int) -> Floats:
    """Of joined bins, in nanoseconds: one more than there are bins."""
    each = max(1, -(-len(run.series) // most))
    return np.append(run.series.time_ns[::each], run.duration_ns).astype(float)


def stairs(axes: Axes, run: Run, most: int, values: Floats, **look: Any) -> Any:
    return axes.stairs(values, edges(run, most), **look)


def band(axes: Axes, run: Run, scale: int, unit: str) -> None:
    columns, colour = run.series.columns, COLOURS[0]
    high = joined(columns["bytes_max"], ONE, "max") / scale
    mean = joined(columns["bytes_mean"], ONE, "mean") / scale
    stairs(axes, run, ONE, high, fill=True, color=colour, alpha=0.22, linewidth=0)
    stairs(axes, run, ONE, mean, color=colour, linewidth=1.0)
    if "filled_mean" in columns:
        filled = joined(columns["filled_mean"], ONE, "mean") / scale
        stairs(axes, run, ONE, filled, fill=True, color=colour, alpha=0.55, linewidth=0)
    told = f"pale: the most in each bin · line: its mean, over all {run.mean_bytes / scale:,.2f} {unit}"
    if run.filled is not None:
        told += f" · dark: filled, {run.filled:.1%} of it"
    axes.set_title(told, fontsize=SMALL, color=GREY, loc="left", pad=4)
    x, y = run.peak_ns, run.peak_bytes / scale
    axes.plot([x], [y], "o", markersize=4, color=colour, clip_on=False, zorder=5)
    right = x > 0.7 * run.duration_ns
    if run.capped and run.peak_bytes > 0.93 * (run.capacity_bytes or 0):
        return  # the capacity's own label says it
    axes.annotate(
        f"peak {y:,.2f} {unit}", (x, y), textcoords="offset points", xytext=(-7 if right else 7, -2), fontsize=8.5, color=colour,
        ha="right" if right else "left", va="center", weight="bold", bbox=PAPER, zorder=21,
    )  # fmt: skip


def short(run: Run) -> str:
    """The name without its owner."""
    return run.name.rpartition("/")[2]


def overlay(axes: Axes, runs: Sequence[Run], scale: int, unit: str) -> None:
    """Lines of the most in each bin, the largest behind."""
    for depth, index in enumerate(sorted(range(len(runs)), key=lambda index: -runs[index].peak_bytes)):
        run, colour = runs[index], COLOURS[index % len(COLOURS)]
        high = joined(run.series.columns["bytes_max"], SEVERAL, "max") / scale
        stairs(axes, run, SEVERAL, high, fill=True, color=colour, alpha=0.10, linewidth=0, zorder=2 + depth)
        stairs(axes, run, SEVERAL, high, color=colour, linewidth=1.1, zorder=12 + depth)
    axes.set_title("the most in each bin", fontsize=SMALL, color=GREY, loc="left", pad=4)


def labels(axes: Axes, runs: Sequence[Run], scale: int, unit: str) -> None:
    """Beside the axes each model's name and numbers, at the height of its peak where there is room."""
    low, high = axes.get_ylim()
    place = axes.get_yaxis_transform()
    order = sorted(range(len(runs)), key=lambda index: -runs[index].peak_bytes)
    heights = spread([runs[index].peak_bytes / scale / high for index in order], LABEL, 1 - LABEL / 3)
    for index, height in zip(order, heights, strict=True):
        run, colour = runs[index], COLOURS[index % len(COLOURS)]
        peak, p99, mean = run.peak_bytes / scale, run.percentiles["p99"] / scale, run.mean_bytes / scale
        axes.plot([1.002, 1.022], [peak, height * high], transform=place, color=colour, linewidth=0.8, clip_on=False)
        axes.text(
            1.027, height, short(run), transform=axes.transAxes, fontsize=8.2, color=colour, weight="bold", va="bottom"
        )
        numbers = (
            f"peak {peak:,.3g} · p99 {p99:,.3g} · mean {mean:,.3g}"
            if max(peak, 1) < 1000
            else f"peak {peak:,.0f} · mean {mean:,.0f}"
        )
        axes.text(1.027, height - 0.004, numbers, transform=axes.transAxes, fontsize=6.8, color=GREY, va="top")
    axes.text(1.027, 1.03, f"in {unit}", transform=axes.transAxes, fontsize=6.8, color=GREY, va="bottom")
    axes.set_ylim(low, high)


def spread(values: Sequence[float], gap: float, most: float) -> list[float]:
    """Heights of labels in falling order, at least a gap apart, between half a gap and the most: pushed up from the lowest, then down
    from the highest."""
    found: list[float] = []
    least = gap / 2
    for value in reversed(values):
        found.append(max(value, least))
        least = found[-1] + gap
    for index in reversed(range(len(found))):
        found[index] = min(found[index], most)
        most = found[index] - gap
    return found[::-1]


def capacity_shown(run: Run) -> bool:
    """Whether the capacity stands in the figure: not where demand is lost beneath it."""
    return run.capacity_bytes is not None and run.capacity_bytes <= 2.5 * run.peak_bytes


def capacities(axes: Axes, runs: Sequence[Run], scale: int, unit: str) -> None:
    """A line for each; its words are those of one where all are within a hundredth."""
    sizes = [run.capacity_bytes for run in runs if run.capacity_bytes is not None]
    alike = bool(sizes) and max(sizes) <= 1.01 * min(sizes)
    said = False
    for index, run in enumerate(runs):
        if run.capacity_bytes is None:
            continue
        colour = RED if alike else COLOURS[index % len(COLOURS)]
        size = run.capacity_bytes / scale
        text = f"capacity {size:,.2f} {unit}"
        shown = capacity_shown(run)
        if shown:
            axes.axhline(size, color=colour, linewidth=1.1, linestyle=(0, (6, 2)), zorder=20)
        if alike and said:
            continue
        said = said or shown
        if shown:
            words(axes, size, text, axes.get_yaxis_transform(), colour, 3)
        elif len(runs) == 1:
            words(axes, 0.93, f"{text}, above the figure", axes.transAxes, colour, 0)


def words(axes: Axes, height: float, text: str, place: Any, colour: str, above: int) -> None:
    """At the right end, so many points above a height."""
    axes.annotate(
        text, (0.995, height), xycoords=place, textcoords="offset points", xytext=(0, above), ha="right", va="bottom", fontsize=8,
        color=colour, bbox=PAPER, zorder=21,
    )  # fmt: skip


def running(axes: Axes, runs: Sequence[Run]) -> None:
    run = runs[0]
    bins = ONE if len(runs) == 1 else SEVERAL
    high = joined(run.series.columns["running_max"], bins, "max")
    if len(runs) == 1 or not run.capped:
        stairs(axes, run, bins, high, fill=True, color="#8A8A8A", alpha=0.55, linewidth=0)
    if run.capped:
        for index, one in enumerate(runs):
            waits = joined(one.series.columns["waiting_max"], bins, "max")
            stairs(
                axes, one, bins, waits, color=RED if len(runs) == 1 else COLOURS[index % len(COLOURS)], linewidth=0.9
            )
        axes.set_ylabel("Waiting" if len(runs) > 1 else "Requests")
        if len(runs) == 1:
            axes.set_title("running, and in red waiting", fontsize=SMALL, color=GREY, loc="left", pad=2)
    else:
        axes.set_ylabel("Running")
    axes.set_ylim(bottom=0)


def arriving(axes: Axes, run: Run) -> None:
    bins = SEVERAL
    tokens = joined(run.series.columns["arrived_tokens"], bins, "sum")
    seconds = np.diff(edges(run, bins)) / SECOND
    stairs(
        axes, run, bins, tokens / np.maximum(seconds, 1e-9) / 1e3, fill=True, color="#8A8A8A", alpha=0.55, linewidth=0
    )
    axes.set_ylabel("k tokens/s\narriving", fontsize=8)
    axes.set_ylim(bottom=0)


def time_axis(axes: Axes, replay: Replay) -> None:
    """Clock time where the trace has dates, else time since the first arrival."""
    span = max(run.duration_ns for run in replay.runs)
    dated = abs(replay.first_time_ns) >= DATED
    start = replay.first_time_ns if dated else 0
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
    step = next((one for one in steps if span / (one * SECOND) <= 9), None)
    axes.set_xlim(0, span)
    if step is None:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / DAY:,.0f}")
        axes.set_xlabel("Days", fontsize=8.5)
        return
    width = step * SECOND
    ticks = [tick - start for tick in range(-(-start // width) * width, start + span + 1, width)]
    axes.set_xticks(ticks, [clock(start + tick, step, dated) for tick in ticks])
    day = np.datetime64(start, "ns").astype("datetime64[D]")
    axes.set_xlabel(
        f"Time of day (UTC), from {day}"
        if dated
        else f"Time since the first arrival ({'h:mm' if step >= 60 else 'h:mm:ss'})",
        fontsize=8.5,
    )


def clock(time: int, step: int, dated: bool) -> str:
    seconds = time // SECOND
    if dated:
        moment = np.datetime64(seconds, "s").item()
        return f"{moment:%d %b}" if step >= 86400 else f"{moment:%H:%M:%S}" if step < 60 else f"{moment:%H:%M}"
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}" if step >= 60 else f"{hours}:{rest // 60:02}:{rest % 60:02}"
