"""Runs a sweep, or goes on with one, and says what it came to."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, MissingExtraError, Record, show, whole
from ..units import show_bytes
from .files import Place, Stopped, begin, finish, locked
from .spec import read_spec, resolve
from .workers import alone, on_dask, together

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .spec import Spec


class Sweep(Record):
    """A sweep that is complete.

    output: the file, or the folder of files. columns: their names. points: rows; invalid: those without bytes, and of reasons
    the most frequent with how often. curves: how many there were to build. least, most: bytes of any row. front: of
    each engine the points that no other beats in bytes and in the column asked for.
    """

    output: str
    files: int
    columns: tuple[str, ...]
    points: int
    curves: int
    invalid: int
    reasons: dict[str, int]
    least: int | None
    most: int | None
    pareto: dict[str, Any] | None
    front: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": 1, **self.as_dict(), "columns": list(self.columns), "front": list(self.front)}

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The summary for people."""
        where = self.output if self.files == 1 else f"{self.output}: {self.files:,} files"
        yield f"{self.points:,} points of {self.curves:,} curve{'s' * (self.curves != 1)} in {where}"
        if self.least is not None and self.most is not None:
            yield f"from {self.least:,} B ({show_bytes(self.least)}) to {self.most:,} B ({show_bytes(self.most)})"
        if self.invalid:
            yield f"without an answer: {self.invalid:,}"
            for text, count in list(self.reasons.items())[:5]:
                yield f"  {count:,}: {text if len(text) <= 160 else f'{text[:159]}…'}"
            if len(self.reasons) > 5:
                yield "  and others (--json lists more)"
        if self.pareto is not None:
            yield from self.front_lines(self.pareto)

    def front_lines(self, pareto: Mapping[str, Any]) -> Iterator[str]:
        name = pareto["column"]
        yield (
            f"no other has fewer bytes and {'less' if pareto['best'] == 'least' else 'more'} {name}, "
            f"at {pareto['context']:,} tokens and batch {pareto['batch']:,}:"
        )
        if not self.front:
            yield "  none: no point there has both"
        several = len({point["engine"] for point in self.front}) > 1
        for point in self.front:
            rest = [
                f"{key} {value}"
                for key, value in point.items()
                if key not in ("subject", "engine", "dtype", "bytes", name)
            ]
            engine = [point["engine"]] if several else []
            words = ", ".join([*engine, *rest])
            size = f"{point['bytes']:,} B ({show_bytes(point['bytes'])})"
            yield f"  {name} {point[name]}: {size} {point['subject']}{words and f' · {words}'}"


def sweep(
    spec: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] = "sweep.parquet",
    *,
    processes: int = 1,
    dask: str | None = None,
    progress: bool | None = None,
    **axes: Any,
) -> Sweep:
    """Writes the exact bytes of every point of a grid to a .parquet, .csv or .arrow file, or goes on where an earlier call stopped.

    spec: the path of a TOML file, or a dict of the same. axes: its keys as keywords instead, or beside it, where they win:
    subjects, contexts, and with defaults engines, dtypes, batches, encoder_context, sizes, options, columns, grids, points (a
    CSV file, or dicts), sample, seed, pareto.
    processes: how many work at once. dask: the address of a scheduler, or "local". progress: a bar on stderr; None for one
    where that is a terminal. Up to 4,194,304 rows the output is one file, else a folder of them.

    A row has subject, sizes, engine, dtype, options, columns of your own, context, batch, bytes (int64) and, where there are
    none, reason. BadConfig for a spec that can't be read, and for an output that something else made.
    """
    for name in ("numpy", "pyarrow"):
        # Not imported here: of several processes this one needs neither.
        if find_spec(name) is None:
            raise MissingExtraError(f"sweeps need {name}: pip install 'memcurve[sweep]'")
    given = {} if spec is None else dict(spec) if isinstance(spec, Mapping) else read_spec(os.fspath(spec))
    resolved = resolve({**given, **axes})
    place = Place(os.fspath(output))
    if not os.path.isdir(os.path.dirname(place.output)):
        raise BadConfig(f"output: {show(place.name)}; expected a folder that exists")
    if whole("processes", processes, 1) > 1024:
        raise BadConfig(f"processes: {processes:,}; expected at most 1,024")
    return run(resolved, place, processes, dask, progress)


def run(spec: Spec, place: Place, processes: int, dask: str | None, progress: bool | None) -> Sweep:
    known = begin(place, spec) if os.path.lexists(place.output) else None
    if known is None:
        try:
            with locked(place):
                known = begin(place, spec) or work(spec, place, processes, dask, progress)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise Stopped(f"{place.name}: {why}; {kept(place, spec)}") from None
        except Stopped as error:
            raise Stopped(f"{place.name}: {error}; {kept(place, spec)}") from None
    known = {name: known[name] for name in Sweep.fields if name in known}
    known["columns"], known["front"] = tuple(known["columns"]), tuple(known["front"])
    return Sweep(output=place.name, pareto=spec.pareto, **known)


def kept(place: Place, spec: Spec) -> str:
    """What a later run goes on from, in words."""
    try:
        done = len(place.done(spec))
    except OSError:
        done = 0
    return f"{done:,} of {spec.chunks:,} parts are kept, and the same command goes on from there"


def work(spec: Spec, place: Place, processes: int, dask: str | None, progress: bool | None) -> dict[str, Any]:
    """Writes the chunks that are missing, and what is made of them all."""
    done = set(place.done(spec))
    left = [number for number in range(spec.chunks) if number not in done]
    if dask is not None:
        going = on_dask(place.parts, left, dask, processes)
    elif processes > 1 and len(left) > 1:
        going = together(place.parts, left, processes)
    else:
        going = alone(place.parts, left)
    try:
        with bar(spec, sum(map(spec.rows, done)), progress) as shown:
            if left:
                for number in going:
                    shown(spec.rows(number))
    except (BadConfig, MissingExtraError):
        if not place.done(spec):
            shutil.rmtree(place.parts, ignore_errors=True)  # no scheduler, say: nothing is worth going on with
        raise
    return finish(place, spec)


class bar:  # noqa: N801
    """Points, their rate and the time left on stderr, where that is wanted and tqdm is there."""

    def __init__(self, spec: Spec, done: int, progress: bool | None) -> None:
        self.shown: Any = None
        if progress or (progress is None and sys.stderr.isatty()):
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.shown = tqdm(
                total=spec.points, initial=done, unit=" points", unit_scale=True, dynamic_ncols=True, smoothing=0.05
            )

    def __enter__(self) -> Any:
        return self.shown.update if self.shown is not None else lambda rows: None

    def __exit__(self, *_: object) -> None:
        if self.shown is not None:
            self.shown.close()
