"""What a sweep asks: axes of values, checked and resolved, and its points by number.

A spec is one grid, or a list of them (`grids`), each the product of its axes, or a list of points (points.py).
Points are numbered from 0: grid after grid, and in a grid as nested loops over subjects, sizes, engines, dtypes, options,
contexts and batches, the last the fastest. A random sample draws such numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, Record, nearest, show
from ..engines import NAMES, module
from ..terms import INT64_MAX
from ..units import dtype_name, parse_count
from .points import read_points
from .subjects import find_source, knows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AXES = ("subjects", "sizes", "engines", "dtypes", "options", "contexts", "batches", "columns", "encoder_context")
KEYS = (*AXES, "grids", "points", "sample", "seed", "pareto")
RANGE = ("from", "to", "step", "times")
# Columns that every sweep has.
OWN = ("subject", "engine", "dtype", "context", "batch", "bytes", "reason")

MAX_POINTS, MAX_VALUES, MAX_GRIDS = 10**12, 10**6, 10**5
# Rows of a chunk at most, and curves that it builds on average, at most and, where they are few, at least: up to some
# seconds of work, and enough chunks for several processes. All are multiples of 4 (rows.py).
CHUNK_ROWS, CHUNK_CURVES, LEAST_CURVES, CHUNKS = 2**21, 8192, 256, 64

Scalar = int | float | str | bool


class Axis:
    """Whole numbers by position: a list, or first, first + step, … so many."""

    def __init__(self, data: Any) -> None:
        self.listed: Any = data if isinstance(data, list) else None
        self.first: int
        self.step: int
        self.count: int
        self.first, self.step, self.count = (0, 0, len(data)) if isinstance(data, list) else data["range"]

    def at(self, positions: Any) -> Any:
        """The values at positions, a slice or an array of them, as an int64 array."""
        import numpy as np

        if self.listed is not None:
            if isinstance(self.listed, list):
                self.listed = np.array(self.listed, np.int64)
            return self.listed[positions]
        if isinstance(positions, slice):
            positions = np.arange(positions.start, positions.stop, dtype=np.int64)
        return self.first + self.step * positions

    def last(self) -> int:
        return int(self.listed[-1]) if self.listed is not None else self.first + self.step * (self.count - 1)


class Line(Record):
    """What one curve is made of."""

    subject: str
    sizes: dict[str, Scalar]
    engine: str
    dtype: str | None
    options: dict[str, Any]
    encoder_context: int | None


class Grid:
    """The product of axes. lines: curves, each over all contexts and batches. first: the number of its first point."""

    def __init__(self, data: Mapping[str, Any], first: int) -> None:
        self.data, self.first = data, first
        self.contexts, self.batches = Axis(data["contexts"]), Axis(data["batches"])
        # Axes of lines in order, each a column: name and values.
        self.axes: list[tuple[str, list[Any]]] = [
            ("subject", data["subjects"]),
            *data["sizes"].items(),
            ("engine", data["engines"]),
            ("dtype", data["dtypes"]),
            *data["options"].items(),
        ]
        self.lines = math.prod(len(values) for _, values in self.axes)
        self.per_line = self.contexts.count * self.batches.count
        self.points = self.lines * self.per_line

    def digits(self, lines: Any) -> dict[str, Any]:
        """Positions in each axis, by its name, of lines by number (an integer, or an array)."""
        found = {}
        for name, values in reversed(self.axes):
            found[name] = lines % len(values)
            lines = lines // len(values)
        return found

    def line(self, number: int) -> Line:
        picked = {name: values[position] for (name, values), position in self._picked(number)}
        return Line(
            subject=picked["subject"],
            sizes={name: picked[name] for name in self.data["sizes"]},
            engine=picked["engine"],
            dtype=picked["dtype"],
            options={name: None if picked[name] == "none" else picked[name] for name in self.data["options"]},
            encoder_context=self.data["encoder_context"],
        )

    def _picked(self, number: int) -> Any:
        digits = self.digits(number)
        return ((axis, digits[axis[0]]) for axis in self.axes)


class Spec:
    """A resolved spec: plain data that says everything its rows depend on."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.grids: list[Grid] = []
        for one in data["grids"]:
            self.grids.append(Grid(one, self.grids[-1].first + self.grids[-1].points if self.grids else 0))
        self.total = self.grids[-1].first + self.grids[-1].points
        self.sample: int | None = data["sample"]
        self.seed: int = data["seed"]
        self.points = self.total if self.sample is None else self.sample
        self.lines = sum(grid.lines for grid in self.grids)
        self.pareto: dict[str, Any] | None = data["pareto"]
        # Rows of every chunk but the last.
        self.chunk_rows: int = data["chunk_rows"]

    @property
    def chunks(self) -> int:
        return -(-self.points // self.chunk_rows)

    def rows(self, chunk: int) -> int:
        """How many a chunk has."""
        return min(self.chunk_rows, self.points - chunk * self.chunk_rows)

    def columns(self) -> list[str]:
        """Names of the columns, as they stand in the rows."""
        found = ["subject", *self._union("sizes"), "engine", "dtype", *self._union("options"), *self._union("columns")]
        return [*found, "context", "batch", "bytes", "reason"]

    def _union(self, kind: str) -> list[str]:
        return list(dict.fromkeys(name for grid in self.data["grids"] for name in grid[kind]))

    @cached_property
    def digest(self) -> str:
        from .. import __version__

        text = json.dumps([__version__, self.data], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_spec(path: str) -> dict[str, Any]:
    """A spec as its TOML file has it. BadConfig for what is no TOML."""
    import tomllib

    from ..model import MAX_FILE

    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or error}; expected a sweep in TOML") from None
    if len(data) > MAX_FILE:
        raise BadConfig(f"{path}: larger than {MAX_FILE:,} bytes; expected a sweep in TOML")
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:  # of TOML, of UTF-8, and of integers with thousands of digits
        raise BadConfig(f"{path}: {str(error)[:120]}; expected a sweep in TOML") from None
    except RecursionError:
        raise BadConfig(f"{path}: nested too deeply; expected a sweep in TOML") from None


def resolve(given: Mapping[str, Any]) -> Spec:
    """The spec that a dict means: axes filled in and checked, subjects found. BadConfig names the key and what was expected."""
    check_keys(given, KEYS, "")
    shared = {key: value for key, value in given.items() if key in AXES}
    sources: dict[str, Any] = {}
    found = [resolve_grid(merged(shared, grid, where), where, sources) for where, grid in grids_of(given)]
    data: dict[str, Any] = {
        "grids": found,
        "sources": sources,
        "sample": None,
        "seed": 0,
        "pareto": None,
        "chunk_rows": 4,
    }
    if given.get("sample") is not None:
        data["sample"] = count("sample", given["sample"], 1, MAX_POINTS)
        data["seed"] = count("seed", given.get("seed", 0), 0, 2**63)
    elif "seed" in given:
        raise BadConfig(f"seed: {show(given['seed'])}; expected sample beside it, which says how many points are drawn")
    spec = Spec(data)
    if spec.points > MAX_POINTS or spec.total > INT64_MAX:
        raise BadConfig(
            f"points: {spec.total:,}; expected at most {MAX_POINTS:,}: shorter axes, or sample = N for some of them"
        )
    each = max(1, spec.points // spec.lines)
    curves = min(CHUNK_CURVES, max(LEAST_CURVES, min(spec.lines, spec.points) // CHUNKS // 4 * 4))
    data["chunk_rows"] = spec.chunk_rows = min(CHUNK_ROWS, curves * each)
    data["pareto"] = spec.pareto = resolve_pareto(given.get("pareto"), spec)
    check_columns(spec)
    return spec


def grids_of(given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The grids of a spec as they stand there, and of each how errors name it."""
    if "points" in given:
        if "grids" in given:
            raise BadConfig("points: beside grids; expected one of both")
        return read_points(given["points"], MAX_GRIDS)
    grids = given.get("grids", [{}])
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise BadConfig(f"grids: {show(grids)}; expected a list of tables, [[grids]] in TOML")
    if len(grids) > MAX_GRIDS:
        raise BadConfig(f"grids: {len(grids):,}; expected at most {MAX_GRIDS:,}")
    named = [(f"grids[{number}]." if "grids" in given else "", grid) for number, grid in enumerate(grids)]
    for where, grid in named:
        check_keys(grid, AXES, where)
    return named


def check_keys(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            hint = nearest(str(key), list(known), 1)
            raise BadConfig(
                f"{where}{show(key)[1:-1]}: unknown; expected one of {', '.join(known)}"
                + (f" (nearest: {hint})" if hint else "")
            )


def merged(shared: Mapping[str, Any], grid: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A grid with the axes that all share; of sizes, options and columns each of its own."""
    found = {**shared, **grid}
    for key in ("sizes", "options", "columns"):
        for table in (shared.get(key, {}), grid.get(key, {})):
            if not isinstance(table, dict):
                raise BadConfig(f"{where}{key}: {show(table)}; expected a table of names and values")
        found[key] = {**shared.get(key, {}), **grid.get(key, {})}
    return found


def resolve_grid(given: dict[str, Any], where: str, sources: dict[str, Any]) -> dict[str, Any]:
    for key in ("subjects", "contexts"):
        if key not in given:
            raise BadConfig(f"{where}{key}: missing; expected a list of at least one")
    subjects = words(f"{where}subjects", given["subjects"])
    engines = words(f"{where}engines", given.get("engines", "logical"))
    engines = list(NAMES) if engines == ["all"] else engines
    for engine in engines:
        module(engine)
    dtypes = words(f"{where}dtypes", given["dtypes"]) if "dtypes" in given else [None]
    sizes = {name: scalars(f"{where}sizes.{name}", values) for name, values in given["sizes"].items()}
    for text in subjects:
        if text not in sources:
            sources[text] = find_source(text)
    for name in sizes:
        hints: list[str] = []
        if not any(knows(sources[text], name, hints) for text in subjects):
            hint = nearest(name, hints, 1)
            raise BadConfig(
                f"{where}sizes.{show(name)[1:-1]}: of no subject here; expected a key of its config, a size of patterns, or a "
                "{name} in a pattern" + (f" (nearest: {hint})" if hint else "")
            )
    for text in subjects:
        for name in re.findall(r"{(\w*)}", text) if "pattern" in sources[text] else ():
            if name not in sizes:
                raise BadConfig(f"{where}subjects: {show(text)}; expected sizes.{name}, which says what stands there")
    options = {name: scalars(f"{where}options.{name}", values) for name, values in given["options"].items()}
    known = {name: None for engine in engines for name in module(engine).OPTIONS}
    for name in options:
        if name not in known:
            hint = nearest(name, list(known), 1)
            raise BadConfig(
                f"{where}options.{show(name)[1:-1]}: not an option of {', '.join(engines)}"
                + (f" (nearest: {hint})" if hint else "")
            )
    encoder = given.get("encoder_context")
    return {
        "subjects": subjects,
        "sizes": sizes,
        "engines": engines,
        "dtypes": [name and dtype_name(name, f"{where}dtypes") for name in dtypes],
        "options": options,
        "columns": {
            name: column(f"{where}columns.{name}", value, subjects) for name, value in given["columns"].items()
        },
        "contexts": axis(f"{where}contexts", given["contexts"]),
        "batches": axis(f"{where}batches", given.get("batches", 1)),
        "encoder_context": None if encoder is None else count(f"{where}encoder_context", encoder, 0, 2**40),
    }


def listed(key: str, value: Any) -> list[Any]:
    """One value or several, as a list of at least one."""
    found = [value] if isinstance(value, (str, int, float)) else value
    if hasattr(found, "tolist"):
        found = found.tolist()
    if not isinstance(found, (list, tuple)) or not found:
        raise BadConfig(f"{key}: {show(value)}; expected a value, or a list of at least one")
    if len(found) > MAX_VALUES:
        raise BadConfig(f"{key}: {len(found):,} values; expected at most {MAX_VALUES:,}")
    return list(found)


def words(key: str, value: Any) -> list[str]:
    found = listed(key, value)
    for word in found:
        if not isinstance(word, str) or not word:
            raise BadConfig(f"{key}: {show(word)}; expected a text")
    return found


def scalars(key: str, value: Any) -> list[Scalar]:
    found = listed(key, value)
    for one in found:
        check_scalar(key, one)
    return found


def check_scalar(key: str, value: Any) -> Scalar:
    if isinstance(value, bool) or (isinstance(value, str) and len(value) <= 1000):
        return value
    if isinstance(value, int) and abs(value) <= INT64_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise BadConfig(f"{key}: {show(value)}; expected a number, a text, or true or false")


def column(key: str, value: Any, subjects: Sequence[str]) -> Any:
    """A column of the user's: one value, or a table of values by subject."""
    if not isinstance(value, dict):
        return check_scalar(key, value)
    for name, one in value.items():
        if name not in subjects:
            hint = nearest(name, list(subjects), 1)
            raise BadConfig(f"{key}: {show(name)}; expected a subject" + (f" (nearest: {hint})" if hint else ""))
        check_scalar(f"{key}.{name}", one)
    return value


def count(key: str, value: Any, least: int = 0, most: int = INT64_MAX) -> int:
    """A whole number, or a text such as "128k"."""
    if isinstance(value, str):
        value = parse_count(value, key)
    elif hasattr(value, "__index__") and not isinstance(value, bool):
        value = value.__index__()
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadConfig(f"{key}: {show(value)}; expected an integer from {least} to {most:,}")
    return value


def axis(key: str, value: Any) -> list[int] | dict[str, Any]:
    """Contexts or batches: one, a list, or {from, to, step} (of times instead of step each is so many times the one before)."""
    if isinstance(value, range) and len(value):
        value = {"from": value[0], "to": value[-1], "step": abs(value.step)} if value.step > 0 else list(value)
    if not isinstance(value, dict):
        return [count(key, one) for one in listed(key, value)]
    check_keys(value, RANGE, f"{key}.")
    first, last = count(f"{key}.from", value.get("from")), count(f"{key}.to", value.get("to"))
    if last < first:
        raise BadConfig(f"{key}.to: {last:,}; expected at least from = {first:,}")
    if "times" not in value:
        step = count(f"{key}.step", value.get("step", 1), 1)
        return {"range": [first, step, (last - first) // step + 1]}
    times = value["times"]
    if "step" in value or isinstance(times, bool) or not isinstance(times, (int, float)) or not 1 < times < 2**63:
        raise BadConfig(f"{key}.times: {show(times)}; expected a number above 1, and no step beside it")
    if first == 0:
        raise BadConfig(f"{key}.from: 0; expected 1 or more where times says the next")
    if math.log(last / first) / math.log(times) > MAX_VALUES:
        raise BadConfig(f"{key}.times: {times}; expected at most {MAX_VALUES:,} values between {first:,} and {last:,}")
    found, size = [first], float(first)
    while True:
        following = found[-1] * times if isinstance(times, int) else round(size := size * times)
        if following > last:
            return found
        if following > found[-1]:
            found.append(following)


def resolve_pareto(given: Any, spec: Spec) -> dict[str, Any] | None:
    """Which column the front weighs bytes against, whether less or more of it is better, at which context and batch."""
    if given is None:
        return None
    data = {"column": given} if isinstance(given, str) else given
    if not isinstance(data, dict):
        raise BadConfig(
            f"pareto: {show(given)}; expected the name of a column, or a table with column, best, context, batch"
        )
    check_keys(data, ("column", "best", "context", "batch"), "pareto.")
    name, best = data.get("column"), data.get("best", "least")
    own = [*spec._union("sizes"), *spec._union("options"), *spec._union("columns")]
    if name not in own:
        hint = nearest(str(name), own, 1)
        raise BadConfig(
            f"pareto.column: {show(name)}; expected one of {', '.join(own) or 'your own, as columns gives them'}"
            + (f" (nearest: {hint})" if hint else "")
        )
    if not any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values_of(spec, name)):
        raise BadConfig(f"pareto.column: {show(name)}; expected a column of numbers")
    if best not in ("least", "most"):
        raise BadConfig(f"pareto.best: {show(best)}; expected least or most")
    return {
        "column": name,
        "best": best,
        "context": count("pareto.context", data.get("context", spec.grids[0].contexts.last())),
        "batch": count("pareto.batch", data.get("batch", spec.grids[0].batches.last())),
    }


def values_of(spec: Spec, name: str) -> list[Any]:
    """All values of a column of lines, each once, in the order of the spec."""
    found: dict[tuple[type, Any], Any] = {}
    for grid in spec.grids:
        for kind in ("sizes", "options", "columns"):
            values = grid.data[kind].get(name, [])
            values = (
                list(values.values()) if isinstance(values, dict) else values if isinstance(values, list) else [values]
            )
            found.update({(type(value), value): value for value in values})
    return list(found.values())


def check_columns(spec: Spec) -> None:
    names = spec.columns()
    for name in names:
        if names.count(name) > 1 or not name or len(name) > 200:
            kind = (
                "a name of its own" if name not in OWN else f"another name than those of every sweep: {', '.join(OWN)}"
            )
            raise BadConfig(f"column {show(name)}: expected {kind}")
