"""A map of bytes over context and batch: what fits where, with the engine's own bounds. Numbers are exact at each cell's own
context and batch; the edge of what fits is exact for every context shown.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise

from .base import BadConfig, Refused, clean, whole
from .curve import MemoryCurve
from .export import check_range
from .fits import most_batch
from .terms import SCHEMA
from .units import SHORT, show_bytes, show_tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 6  # of round sizes


def scale(low: int, high: int, per_octave: int = 1) -> list[int]:
    """Whole numbers from low to high, so many from each to its double, and both ends; 0 counts as 1."""
    low = max(low, 1)
    steps = range(math.ceil(math.log2(low) * per_octave), math.floor(math.log2(high) * per_octave) + 1)
    return sorted({low, high, *(n for step in steps if low <= (n := round(2 ** (step / per_octave))) <= high)})


def bytes_at(curve: MemoryCurve, context: int, batch: int) -> int | None:
    """None where the engine refuses."""
    try:
        return curve.bytes(context, batch)
    except Refused:
        return None


def bounds(curve: MemoryCurve) -> dict[str, tuple[str, int]]:
    """The engine's own bounds: of "context" and "batch" the setting's name and the most it allows."""
    if curve.allocator is not None:
        return curve.allocator.bounds()
    if curve.limits is None:
        return {}
    limits = curve.limits
    batch = min((limits.most_batch, "n_seq_max"), (limits.step_tokens, "n_batch"))
    found = {"batch": (batch[1], batch[0])}
    if isinstance(limits.zero_context, int) and limits.zero_context:
        found["context"] = ("trained context", limits.zero_context)
    return found


def map_data(
    curve: MemoryCurve, contexts: Sequence[int], batches: Sequence[int], memory: int | None = None
) -> dict[str, object]:
    """The map as plain data, schema 1: a row of bytes for each batch, null where the engine refuses."""
    found: dict[str, object] = {
        "schema": SCHEMA,
        "name": curve.name,
        "engine": curve.engine,
        "dtype": curve.dtype,
        "contexts": list(contexts),
        "batches": list(batches),
        "bytes": [[bytes_at(curve, context, batch) for context in contexts] for batch in batches],
        "bounds": {axis: {"name": name, "most": most} for axis, (name, most) in bounds(curve).items()},
    }
    if memory is not None:
        most = [most_batch(curve, memory, context) for context in contexts]
        found["memory"] = memory
        found["max_batch"] = [number for number, _ in most]
        found["bound_by"] = [why for _, why in most]
    return found


def map_json(curve: MemoryCurve, contexts: Sequence[int], batches: Sequence[int], memory: int | None = None) -> str:
    return json.dumps(map_data(curve, contexts, batches, memory)) + "\n"


def map_csv(curve: MemoryCurve, contexts: Sequence[int], batches: Sequence[int]) -> str:
    """A header of "batch" and the contexts, then a row of bytes for each batch; empty where the engine refuses."""
    rows = [["batch", *map(str, contexts)]]
    for batch in batches:
        sizes = (bytes_at(curve, context, batch) for context in contexts)
        rows.append([str(batch), *("" if size is None else str(size) for size in sizes)])
    return "".join(",".join(row) + "\n" for row in rows)


def heatmap(
    curve: MemoryCurve,
    *,
    memory: int | None = None,
    min_ctx: int = 128,
    max_ctx: int = 131072,
    max_batch: int = 256,
    title: str | None = None,
) -> Figure:
    """A Matplotlib Figure: bytes over context and batch as colours, both axes logarithmic.

    memory: bytes; the edge of what fits is drawn, and what does not is hatched. Without it lines stand at round sizes.
    MissingExtraError without Matplotlib.
    """
    if not isinstance(curve, MemoryCurve):
        raise BadConfig("heatmap: expected one curve, as Model.curve gives it")
    check_range(min_ctx, max_ctx)
    most = whole("max_batch", max_batch, 1)
    contexts, batches = scale(min_ctx, max_ctx, 24), scale(1, most, 24)
    from .figures import new_figure

    figure = new_figure(7.5, 4.9)
    figure.set_layout_engine("constrained")
    import numpy as np
    from matplotlib.colors import LogNorm

    sizes = [[bytes_at(curve, context, batch) for context in contexts] for batch in batches]
    values = np.array([[math.nan if size is None else size for size in row] for row in sizes], dtype=float)
    if not (values > 0).any():
        raise BadConfig(f"heatmap: {curve.name} keeps nothing there that can be shown; expected larger contexts")
    shown = np.ma.masked_invalid(np.where(values > 0, values, math.nan))
    axes = figure.subplots()
    axes.set_facecolor("#d9d9d9")
    # cividis is even to the eye, for colour-blind readers too.
    mesh = axes.pcolormesh(
        edges(contexts), edges(batches), shown, cmap="cividis", norm=LogNorm(shown.min(), max(shown.max(), shown.min() * 2)),
        rasterized=True,
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(edges(contexts)[0], edges(contexts)[-1])
    axes.set_ylim(edges(batches)[0], edges(batches)[-1])
    low, high = int(shown.min()), int(shown.max())
    if memory is not None:
        draw_edge(axes, curve, contexts, most, whole("memory", memory))
    else:
        for size in round_sizes(low, high):
            draw_line(axes, curve, contexts, most, size)
    draw_bounds(axes, curve)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: show_tokens(int(value)) if value == int(value) else "")
    axes.set_xlabel(f"Context (tokens{', shared out among the sequences' if curve.limits else ''}; k = 1024)")
    axes.set_ylabel("Batch (sequences)")
    dtype = SHORT.get(curve.dtype, curve.dtype)
    name = clean(curve.name).replace("$", r"\$")  # no formula; parse_math does not reach a title that wraps
    axes.set_title(title if title is not None else f"{name} · engine {curve.engine} · {dtype}", fontsize=10, wrap=True)
    ticks = round_sizes(low, high, 9)
    bar = figure.colorbar(mesh, ax=axes, label="Sequence state", ticks=ticks or [low])
    bar.ax.set_yticklabels([show_size(size) for size in ticks or [low]])
    bar.ax.minorticks_off()
    return figure


def edges(centres: Sequence[int]) -> list[float]:
    """The borders of cells on a logarithmic axis, halfway between whole numbers next to each other."""
    inner = [math.sqrt(a * b) for a, b in pairwise(centres)]
    first = centres[0] ** 2 / inner[0] if inner else centres[0] / 1.4
    last = centres[-1] ** 2 / inner[-1] if inner else centres[-1] * 1.4
    return [first, *inner, last]


def round_sizes(low: int, high: int, most: int = MOST_LINES) -> list[int]:
    """Powers of two between two sizes, as many as may be at even steps."""
    first, last = max(low - 1, 0).bit_length(), high.bit_length() - 1
    step = next(step for step in range(1, 70) if (last - first) // step < most)
    start = -(-first // step) * step
    return [2**power for power in range(start, last + 1, step)]


def show_size(size: int) -> str:
    """A round size: 4 GiB."""
    number, _, unit = show_bytes(size).partition(" ")
    return f"{float(number):g} {unit}"


def border(most: int, numbers: Sequence[int | None]) -> list[float]:
    """For each context the border above the last batch that fits; outside the map where all or none of it do."""
    return [
        most * 4.0 if number is None or number >= most else math.sqrt(number * (number + 1)) if number else 0.1
        for number in numbers
    ]


def draw_edge(axes: Axes, curve: MemoryCurve, contexts: Sequence[int], most: int, memory: int) -> None:
    """The edge of what fits, in the engine's own way where it makes a pool, with what else than memory binds; hatched beyond."""
    found = [most_batch(curve, memory, context) for context in contexts]
    top = border(most, [number for number, _ in found])
    xs, steps = edges(contexts), [*top, top[-1]]
    axes.fill_between(xs, steps, most * 4, step="post", facecolor="white", alpha=0.35, linewidth=0)
    axes.fill_between(xs, steps, most * 4, step="post", facecolor="none", edgecolor="#555555", hatch="///", linewidth=0)
    size = show_size(memory) if memory % 2**20 == 0 else show_bytes(memory)
    axes.step(
        xs,
        steps,
        where="post",
        color="#D55E00",
        linewidth=2.2,
        label=f"the edge of what fits {size}, and of what the engine takes",
    )
    axes.legend(loc="lower left", fontsize=8, framealpha=0.9)
    reasons = [why for _, why in found]
    for why in dict.fromkeys(reasons):
        inside = [(x, y) for x, y, reason in zip(contexts, top, reasons, strict=True) if reason == why and 1 < y < most]
        if inside and why not in ("memory", "blocks", "tokens") and len(why) < 30:
            axes.annotate(
                f"by {why}", inside[len(inside) // 2], xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
                fontsize=7, bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip


def draw_line(axes: Axes, curve: MemoryCurve, contexts: Sequence[int], most: int, size: int) -> None:
    """A line at a round size, named where it stands in the map. Only bytes count here, not what a pool's settings bound."""
    bare = curve.replace(allocator=None)
    top = border(most, [most_batch(bare, size, context)[0] for context in contexts])
    inside = [(x, y) for x, y in zip(contexts, top, strict=True) if 1.2 < y < most * 0.9]
    axes.step(edges(contexts), [*top, top[-1]], where="post", color="white", linewidth=1.2)
    if inside:
        x, y = inside[len(inside) // 2]
        axes.text(
            x, y, show_size(size), color="white", fontsize=7.5, ha="center", va="center",
            bbox={"facecolor": "#333333", "alpha": 0.8, "edgecolor": "none", "pad": 1.2},
        )  # fmt: skip


def draw_bounds(axes: Axes, curve: MemoryCurve) -> None:
    """The engine's own bounds, where they lie in the map."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="black", alpha=0.6)]
    for axis, (name, most) in bounds(curve).items():
        low, high = axes.get_xlim() if axis == "context" else axes.get_ylim()
        if not low < most <= high:
            continue
        text = f"{name} {most:,}"
        if axis == "context":
            axes.axvline(most, color="white", linestyle="--", linewidth=1.2, path_effects=halo)
            axes.annotate(
                text, (most, 1), xycoords=("data", "axes fraction"), xytext=(-3, -3), textcoords="offset points", rotation=90,
                ha="right", va="top", fontsize=7, color="white", path_effects=halo,
            )  # fmt: skip
        else:
            axes.axhline(most, color="white", linestyle="--", linewidth=1.2, path_effects=halo)
            axes.annotate(
                text, (0, most), xycoords=("axes fraction", "data"), xytext=(3, -3), textcoords="offset points",
                ha="left", va="top", fontsize=7, color="white", path_effects=halo,
            )  # fmt: skip
