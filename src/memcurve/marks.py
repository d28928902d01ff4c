"""Marks of crossings in a figure: a ring where the cheaper of two curves becomes the other one, and words beside it.

Up to FEW places are labelled with their contexts, up to MANY with numbers that a table below the figure explains;
beyond that the rings stay alone, and a line says how to have the list.
"""

from __future__ import annotations

from .crossed import find_crossings, find_places, rings, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    from .crossed import Place
    from .export import Subject

FEW, MANY = 12, 24
SIZE = 7  # of the labels, in points
NEAR = 40  # points apart, about a label's width: labels stand on the sides where no other crossing is
AWAY = (5, 12, 20, 30, 42, 56, 72, 90)  # points from the crossing; beyond the first with a line to it
SIDES = ((1, 0), (-1, 0), (1, -1), (-1, 1), (1, 1), (-1, -1), (0, -1), (0, 1))  # right and up, by preference


def mark_crossings(
    figure: Figure, axes: Axes, subjects: Sequence[Subject], batch: int, low: int, high: int, scale: int
) -> None:
    """Draws the marks and their words, after everything else stands."""
    places = find_places(find_crossings(subjects, batch, low, high), batch)
    if not places:
        return
    few = len(places) <= MANY
    for context, value in rings(places, batch):
        axes.plot(
            [context], [value / scale], "o", markersize=4 if few else 2.5, color="black" if few else "#555555",
            markeredgewidth=1.0 if few else 0.5, fillstyle="none", zorder=5,
        )  # fmt: skip
    if len(places) > MANY:
        add_lines(figure, [f"{len(places)} places where curves cross; memcurve cross lists them"])
        return
    if len(places) > FEW:
        add_lines(figure, [line for number, place in enumerate(places, 1) for line in words(number, place)])
    layout = figure.get_layout_engine()
    if layout is not None:
        # Labels are placed by the final layout, which is not computed again.
        layout.execute(figure)
        figure.set_layout_engine("none")
    spots = Spots(figure, axes)
    if len(places) <= FEW:
        at = [spots.at(place.context, place.value / scale) for place in places]
        for place, own in zip(places, at, strict=True):
            text = span(place.runs[0])
            if not spots.label(text, place.context, place.value / scale, free_sides(own, at)):
                spots.label(text, place.context, place.value / scale, SIDES[2:], AWAY[1:])
        return
    # Marks within a label's height of each other share it: 2–5.
    at = [spots.at(place.context, place.value / scale) for place in places]
    first = 0
    for number in range(1, len(places) + 1):
        if number < len(places) and max(abs(at[number] - at[first])) < SIZE + 2:
            continue
        text = f"{first + 1}" if number == first + 1 else f"{first + 1}–{number}"
        spots.label(text, places[first].context, places[first].value / scale)
        first = number


def words(number: int, place: Place) -> list[str]:
    """Lines of the table: the place's number, contexts, and who is below whom from there on."""
    lines = []
    for index, run in enumerate(place.runs):
        last = run[-1]
        lead = f"{number:>2}" if index == 0 else "  "
        lines.append(f"{lead}  {span(run)}:  {last.cheaper.name}  below  {last.dearer.name}")
    return lines[:3] + ([f"    and {len(lines) - 3} more pairs"] if len(lines) > 3 else [])


def add_lines(figure: Figure, lines: Sequence[str]) -> None:
    """Lines below everything else, for which the figure grows."""
    width, height = figure.get_size_inches()
    room = len(lines) * 0.097 + 0.08
    figure.set_size_inches(width, height + room)
    share = room / (height + room)
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.set(rect=(0, share, 1, 1 - share))  # type: ignore[call-arg]
    most = int(width / 0.044)
    cut = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    figure.text(0.01, share, "\n".join(cut), va="top", fontsize=6, linespacing=1.15, in_layout=False, parse_math=False)


def free_sides(own: Any, points: Sequence[Any]) -> list[tuple[int, int]]:
    """The sides of a point where none of the other points is near, so that a label there is read as its own."""
    apart = [point - own for point in points if 0 < max(abs(point - own)) < NEAR]
    right, left = (any(sign * there[0] >= 0 for there in apart) for sign in (1, -1))
    return [(x, y) for x, y in SIDES if not (x > 0 and right) and not (x < 0 and left)]


class Spots:
    """The free spots for labels, in pixels: within the axes, off the legend, off other labels, and off the lines if it can be."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        import numpy as np

        self.axes, self.dots = axes, figure.dpi / 72
        self.inside = axes.get_window_extent()
        legend = axes.get_legend()
        self.taken: list[Bbox] = [] if legend is None else [legend.get_window_extent()]
        # Points along every line, a few pixels apart.
        points = []
        for line in axes.lines:
            path = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            steps = np.abs(np.diff(path, axis=0)).max(axis=1, initial=0)
            for start, end, length in zip(path, path[1:], steps, strict=False):
                points.append(np.linspace(start, end, max(2, int(length / 4))))
            points.append(path)
        self.points = np.concatenate(points)

    def at(self, x: float, y: float) -> Any:
        """A point of the data, in points of the figure."""
        return self.axes.transData.transform((x, y)) / self.dots

    def label(
        self, text: str, x: float, y: float, sides: Sequence[tuple[int, int]] = SIDES, aways: Sequence[int] = AWAY
    ) -> bool:
        """Writes a text as near to its point as it can stand, with a line to it unless it is right beside; whether it can."""
        from matplotlib.transforms import Bbox

        at = self.at(x, y)
        width, height = 0.58 * SIZE * len(text) + 3, SIZE + 2
        best, cost = None, float("inf")
        for away in aways:
            for right, up in sides:
                left = right * away + (right - 1) * width / 2
                low = up * away + (up - 1) * height / 2
                box = Bbox.from_bounds(at[0] + left, at[1] + low, width, height)
                spot = Bbox(box.get_points() * self.dots)
                if not (self.inside.x0 <= spot.x0 and spot.x1 <= self.inside.x1):
                    continue
                if not (self.inside.y0 <= spot.y0 and spot.y1 <= self.inside.y1):
                    continue
                if any(spot.overlaps(other) for other in self.taken):
                    continue
                here = self.points
                over = (
                    (here[:, 0] > spot.x0) & (here[:, 0] < spot.x1) & (here[:, 1] > spot.y0) & (here[:, 1] < spot.y1)
                ).sum()
                if (new := away + 3.0 * min(int(over), 40)) < cost:
                    best, cost = (left, low, away, spot), new
        if best is None:
            return False
        left, low, away, spot = best
        self.taken.append(spot)
        self.axes.annotate(
            text, (x, y), textcoords="offset points", xytext=(left + 1, low + 1.5), fontsize=SIZE, zorder=6, va="bottom",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.4},
            arrowprops=None if away == AWAY[0] else {"arrowstyle": "-", "linewidth": 0.5, "color": "#555555", "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip
        return True
