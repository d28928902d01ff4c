"""Figures of curves with Matplotlib, drawn from exact breakpoints."""

from __future__ import annotations

import math

from .base import BadConfig, MissingExtraError, whole
from .curve import MemoryCurve
from .export import Subject, check_range, corners, default_title, make_subjects, outline
from .marks import mark_crossings
from .units import show_bytes, show_tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from matplotlib.figure import Figure

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart by colour-blind readers; dashes tell the repeats apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.2)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (9, 4)),
    (0, (2, 3)),
    (0, (4, 1, 1, 1, 1, 1, 1, 1)),
)
MEMORY = "#A83C00"
UNITS = (("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40), ("PiB", 2**50))


def hurry() -> None:
    """For a process that draws one figure and ends: a quarter less time to import Matplotlib.

    Matplotlib writes signatures and docstrings of 120 `set` methods as it is imported, and the collector walks its modules
    over and over; here nobody reads the ones, and there is nothing to free for the other.
    """
    import gc

    gc.disable()
    try:
        from matplotlib import artist
    except ImportError:
        return  # new_figure says what is missing
    artist.kwdoc = lambda artist: ""
    if hasattr(artist.Artist, "_update_set_signature_and_docstring"):
        artist.Artist._update_set_signature_and_docstring = classmethod(lambda cls: None)


def new_figure(width: float, height: float) -> Figure:
    """A Figure without pyplot, which costs time to import and holds on to every figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("plots need Matplotlib: pip install 'memcurve[plot]'") from None
    return Figure(figsize=(width, height))


def plot(
    curves: Sequence[MemoryCurve | Subject] | MemoryCurve,
    *,
    min_ctx: int = 128,
    max_ctx: int = 131072,
    batch: int = 1,
    log: str = "",
    title: str | None = None,
    memory: int | Mapping[str, int] | None = None,
) -> Figure:
    """A Matplotlib Figure of bytes over context, one line per curve, crossings marked with their exact context.

    log: "", "x", "y" or "xy", the axes that are logarithmic. memory: bytes at which a line is drawn, or several by name. Lines run through exact breakpoints, so a window's edge is
    where it is, and steps are upright. MissingExtraError without Matplotlib.
    """
    subjects = make_subjects([curves] if isinstance(curves, MemoryCurve) else curves)
    check_range(min_ctx, max_ctx)
    many = len(subjects) > 10
    columns = 1 if len(subjects) <= 26 else 2
    names = max((len(subject.name) for subject in subjects), default=0)
    width = 7.5 + (min(names, 60) * 0.062 + 0.55) * columns if many else 7.5
    figure = new_figure(width, max(4.8, 0.19 * math.ceil(len(subjects) / columns) + 1.2) if many else 4.8)
    from matplotlib.ticker import MultipleLocator

    axes = figure.subplots()
    low = max(min_ctx, 1) if "x" in log else min_ctx
    top = max((max(subject.values([max_ctx], batch)) for subject in subjects), default=0)
    if "y" in log and top == 0:
        raise BadConfig("log: y; every value is 0, which a logarithmic axis can't show")
    unit, scale = next((pair for pair in reversed(UNITS) if top >= pair[1]), UNITS[0])
    for index, subject in enumerate(subjects):
        contexts = corners(subject, low, max_ctx, batch, "x" in log)
        if log and contexts:
            # A straight line bends on a logarithmic axis: enough points between the corners.
            start = contexts[0]
            extra = (round(start * (max_ctx / start) ** (step / 200)) if start else step for step in range(201))
            contexts = sorted({*contexts, *(context for context in extra if start <= context <= max_ctx)})
        xs, ys = outline(contexts, subject.values(contexts, batch))
        axes.plot(
            xs,
            [value / scale for value in ys],
            label=f" {subject.name}" if subject.name[:1] == "_" else subject.name,  # Matplotlib leaves out _names
            color=COLOURS[index % len(COLOURS)],
            linestyle=DASHES[index // len(COLOURS) % len(DASHES)] if many else DASHES[index % len(DASHES)],
            linewidth=1.3 if many else 1.8,
            marker="o" if low >= max_ctx else None,
        )
    lines = {} if memory is None else {"memory": memory} if isinstance(memory, int) else memory
    for index, (name, size) in enumerate(lines.items()):
        ends = [low, max(max_ctx, low + 1)]
        named = f"{name}: {show_bytes(size)}"
        axes.plot(
            ends,
            [whole("memory", size, 1) / scale] * 2,
            label=named,
            color=MEMORY,
            linestyle=DASHES[(index + 5) % 8],
            linewidth=1,
        )
    if "x" in log:
        axes.set_xscale("log", base=2)
    elif low < max_ctx:
        axes.set_xlim(low, max_ctx)
        axes.xaxis.set_major_locator(MultipleLocator(2 ** max(0, round(math.log2(max(max_ctx - low, 1) / 6)))))
    if "y" in log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda value, _: show_tokens(int(value)) if value == int(value) else "")
    axes.set_xlabel("Context (tokens; k = 1024)")
    axes.set_ylabel(f"Sequence state ({unit})")
    axes.set_title(title if title is not None else default_title(subjects, batch), fontsize=10, wrap=True)
    axes.grid(True, which="major", linestyle="--", linewidth=0.5, alpha=0.6)
    legend = None
    if many:
        legend = axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            fontsize=7,
            ncols=columns,
            borderaxespad=0,
            frameon=False,
            handlelength=4,
        )
    elif subjects or lines:
        legend = axes.legend(fontsize=8, handlelength=4)
    for text in legend.get_texts() if legend else ():
        text.set_parse_math(False)  # a $ in a name is no formula
    figure.set_layout_engine("constrained")
    mark_crossings(figure, axes, subjects, batch, low, max_ctx, scale)
    return figure


def plot_seed(subjects: Sequence[Subject], contexts: list[int], batch: int) -> Figure:
    """The seed's figure: same size, labels, legend and grid; GB = 10⁹."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for subject in subjects:
        ends = [contexts[0], contexts[-1]] if len(contexts) > 1 else contexts
        axes.plot(ends, [value / 1e9 for value in subject.values(ends, batch)], label=subject.name)
    axes.set_xlabel("Context length (number of tokens)")
    axes.set_ylabel("KV cache size (GB)")
    axes.grid(True, which="both", linestyle="--", linewidth=0.5, alpha=0.6)
    axes.legend()
    figure.tight_layout()
    return figure
