"""The rows of a chunk: curves are built once each and evaluated over arrays of contexts and batches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..arrays import evaluate
from ..base import MemcurveError
from ..schema import encoder_of
from .front import Front, frontier
from .spec import values_of
from .subjects import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..curve import MemoryCurve
    from ..model import Model
    from .spec import Grid, Line, Spec

    Array = NDArray[Any]

WORDS = pa.dictionary(pa.int32(), pa.string())
# Models and curves that are held to be used again.
HELD = 4096
REASONS = 20


class Words:
    """Texts by number, in the order in which they came up."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))

    def column(self, codes: Array) -> Any:
        return coded(codes, pa.array(list(self.numbers), pa.string()))


def coded(codes: Array, texts: Any) -> Any:
    """A dictionary-encoded column; a code below 0 is none."""
    missing = codes < 0
    indices = pa.array(np.maximum(codes, 0), mask=missing) if missing.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, texts)


class LineColumn:
    """A column whose value a curve's settings say: its type, and the codes of every grid's axis of that name."""

    def __init__(self, spec: Spec, name: str) -> None:
        self.name = name
        values = spec.data["sources"] if name == "subject" else values_of(spec, name)
        if name == "engine":
            values = dict.fromkeys(engine for grid in spec.grids for engine in grid.data["engines"])
        values = list(values)
        kinds = {type(value) for value in values}
        self.type = {
            frozenset({int}): pa.int64(), frozenset({bool}): pa.bool_(), frozenset({float}): pa.float64(),
            frozenset({int, float}): pa.float64(),
        }.get(frozenset(kinds), WORDS)  # fmt: skip
        self.values = [float(value) if self.type == pa.float64() else value for value in values]
        self.codes = {(type(value), value): code for code, value in enumerate(values)}
        if self.type == WORDS:
            texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
            self.values = list(dict.fromkeys(texts))
            self.codes = {
                (type(value), value): self.values.index(text) for value, text in zip(values, texts, strict=True)
            } if len(kinds) > 1 else self.codes  # fmt: skip
            self.dictionary = pa.array(self.values, pa.string())
        else:
            self.array = pa.array([*self.values, None], self.type)

    def of(self, grid: Grid, digits: dict[str, Any]) -> Array:
        """Codes of lines; -1 where a grid has no such setting."""
        axis = dict(grid.axes).get(self.name)
        if axis is not None:
            codes = np.array([self.codes[type(value), value] for value in axis], np.int32)
            return np.asarray(codes[digits[self.name]])
        value = grid.data["columns"].get(self.name)
        if isinstance(value, dict):
            by_subject = [value.get(subject) for subject in grid.data["subjects"]]
            codes = np.array([-1 if one is None else self.codes[type(one), one] for one in by_subject], np.int32)
            return np.asarray(codes[digits["subject"]])
        code = -1 if value is None else self.codes[type(value), value]
        return np.full(len(digits["subject"]), code, np.int32)

    def column(self, codes: Array) -> Any:
        if self.type == WORDS:
            return coded(codes, self.dictionary)
        return self.array.take(pa.array(np.where(codes < 0, len(self.values), codes)))


class Rows:
    """Makes the rows of a spec, chunk by chunk."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        own = ("dtype", "context", "batch", "bytes", "reason")
        self.columns = {name: LineColumn(spec, name) for name in spec.columns() if name not in own}
        self.firsts = np.array([grid.first for grid in spec.grids], np.int64)
        # By what they are made of, as text: True is not 1.
        self.models: dict[str, Model | str] = {}
        self.curves: dict[str, tuple[MemoryCurve | str, str | None, int]] = {}

    def chunk(self, number: int) -> tuple[Any, dict[str, Any]]:
        """The rows as a table, and what a summary needs of them as plain data."""
        start = number * self.spec.chunk_rows
        size = self.spec.rows(number)
        stop = start + size
        contexts, batches, found = (np.empty(size, np.int64) for _ in range(3))
        reasons = np.full(size, -1, np.int32)
        why, dtypes, front = Words(), Words(), Front(self.spec, self.columns)
        lines: list[tuple[int, int, int, Any]] = []  # grid, line, code of the dtype, rows
        for at, line, rows, held, many in self.pieces(start, stop):
            curve, dtype, encoder = self.curve(at, line)
            shape = np.broadcast_shapes(held.shape, many.shape)
            contexts[rows] = np.broadcast_to(held, shape).reshape(-1)
            batches[rows] = np.broadcast_to(many, shape).reshape(-1)
            if isinstance(curve, str):
                found[rows], refused = 0, [(np.broadcast_to(True, shape), curve)]
            else:
                values, refused = evaluate(curve, held, many, encoder)
                found[rows] = values.reshape(-1)
            for where, text in reversed(refused):  # the first counts
                if where.any():
                    codes = reasons[rows]
                    codes[where.reshape(-1)] = why.number(text)
                    reasons[rows] = codes
            lines.append((at, line, -1 if dtype is None else dtypes.number(dtype), rows))
            front.add(self.spec.grids[at], line, dtype, contexts[rows], batches[rows], found[rows], reasons[rows])
        arrays = self.line_arrays(lines, size, dtypes)
        invalid = reasons >= 0
        some = bool(invalid.any())
        arrays |= {
            "context": pa.array(contexts),
            "batch": pa.array(batches),
            "bytes": pa.array(found, mask=invalid) if some else pa.array(found),
            "reason": why.column(reasons),
        }
        counts = np.bincount(reasons[invalid], minlength=len(why.numbers)).tolist()
        by_count = sorted(zip(why.numbers, counts, strict=True), key=lambda one: (-one[1], one[0]))
        valid = found[~invalid] if some else found
        note = {
            "rows": size,
            "invalid": int(invalid.sum()),
            "reasons": dict(by_count[:REASONS]),
            "least": int(valid.min()) if valid.size else None,
            "most": int(valid.max()) if valid.size else None,
            "front": frontier(front.found, self.spec),
        }
        names = self.spec.columns()
        return pa.table([arrays[name] for name in names], names=names), note

    def line_arrays(self, lines: list[tuple[int, int, int, Any]], size: int, dtypes: Words) -> dict[str, Any]:
        """The columns that follow from a row's curve."""
        which = np.empty(size, np.int32)
        for position, (_, _, _, rows) in enumerate(lines):
            which[rows] = position
        ats = np.array([at for at, *_ in lines], np.int64)
        numbers = np.array([line for _, line, *_ in lines], np.int64)
        found = {"dtype": dtypes.column(np.array([code for _, _, code, _ in lines], np.int32)[which])}
        for name, column in self.columns.items():
            codes = np.empty(len(lines), np.int32)
            for at in np.unique(ats):
                mine = ats == at
                grid = self.spec.grids[at]
                codes[mine] = column.of(grid, grid.digits(numbers[mine]))
            found[name] = column.column(codes[which])
        return found

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, Any, Array, Array]]:
        """Parts of the rows from start to stop that one curve gives: grid, line, the rows in the chunk, and contexts and
        batches, of which a column and a row broadcast to the rows in order.
        """
        if self.spec.sample is not None:
            yield from self.drawn(start, stop)
            return
        at = int(np.searchsorted(self.firsts, start, "right")) - 1
        point = start
        while point < stop:
            grid = self.spec.grids[at]
            end = min(stop, grid.first + grid.points)
            while point < end:
                line, inside = divmod(point - grid.first, grid.per_line)
                last = min(inside + end - point, grid.per_line)
                for first, until in rectangles(inside, last, grid.batches.count):
                    many = grid.batches.count
                    rows = slice(point - start, point - start + until - first)
                    held = grid.contexts.at(slice(first // many, (until - 1) // many + 1))[:, None]
                    whole = first % many == 0 and until % many == 0
                    among = slice(0, many) if whole else slice(first % many, (until - 1) % many + 1)
                    yield at, line, rows, held, grid.batches.at(among)[None, :]
                    point += until - first
            at += 1

    def drawn(self, start: int, stop: int) -> Iterator[tuple[int, int, Any, Array, Array]]:
        """Of a random sample: points that one curve gives, wherever they stand in the chunk.

        Point i is number i of Philox's stream for the seed, modulo the points of all grids: below 2^40 of them, each is
        as likely as any other to within 2^-24.
        """
        stream = np.random.Philox(key=self.spec.seed, counter=start // 4)
        points = (stream.random_raw(stop - start) % np.uint64(self.spec.total)).astype(np.int64)
        ats = np.searchsorted(self.firsts, points, "right") - 1
        for at in np.unique(ats):
            grid = self.spec.grids[at]
            (mine,) = np.nonzero(ats == at)
            lines, inside = np.divmod(points[mine] - grid.first, grid.per_line)
            order = np.argsort(lines, kind="stable")
            ordered = lines[order]
            edges = [0, *(np.nonzero(np.diff(ordered))[0] + 1).tolist(), len(ordered)]
            for first, until in pairwise(edges):
                which = order[first:until]
                row, column = np.divmod(inside[which], grid.batches.count)
                yield int(at), int(ordered[first]), mine[which], grid.contexts.at(row), grid.batches.at(column)

    def curve(self, at: int, line: int) -> tuple[MemoryCurve | str, str | None, int]:
        """The curve of a line, or why there is none; its dtype, and the encoder's context."""
        one = self.spec.grids[at].line(line)
        key = repr(one)
        if key not in self.curves:
            if len(self.curves) >= HELD:
                self.curves.clear()
            self.curves[key] = self.build(one)
        return self.curves[key]

    def build(self, one: Line) -> tuple[MemoryCurve | str, str | None, int]:
        key = repr((one.subject, one.sizes))
        if key not in self.models:
            if len(self.models) >= HELD:
                self.models.clear()
            try:
                self.models[key] = make_model(self.spec.data["sources"][one.subject], one.sizes)
            except MemcurveError as error:
                self.models[key] = str(error)
        model = self.models[key]
        if isinstance(model, str):
            return model, one.dtype, 0
        try:
            encoder = encoder_of(model, one.encoder_context)
            curve = model.curve(one.engine, one.dtype, **one.options)
        except MemcurveError as error:
            return str(error), one.dtype, 0
        return curve, curve.dtype, encoder


def rectangles(first: int, last: int, width: int) -> Iterator[tuple[int, int]]:
    """Positions from first to last of a table, row after row, as parts of one row or of whole rows."""
    while first < last:
        row_end = (first // width + 1) * width
        if first % width or last < row_end:
            until = min(last, row_end)
        else:
            until = last // width * width
        yield first, until
        first = until
