"""Points one by one, as a list of tables or a CSV file: each a grid of one value each.

A point has subject, engine, dtype, context, batch, encoder_context, and sizes, options and columns as tables or, as a header of
CSV has them, under names such as sizes.n_layers. What it lacks is as in the axes of the spec.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, nearest, show

if TYPE_CHECKING:
    from collections.abc import Mapping

# A point's names, and those of the axes that they are values of.
AXES = {
    "subject": "subjects", "engine": "engines", "dtype": "dtypes", "context": "contexts", "batch": "batches",
    "encoder_context": "encoder_context",
}  # fmt: skip
TABLES = ("sizes", "options", "columns")
NAMES = (*AXES, *TABLES)
MAX_FILE = 64 * 1024**2


def read_points(given: Any, most: int) -> list[tuple[str, dict[str, Any]]]:
    """Grids, and of each how errors name it. given: tables, or the path of a CSV file with at most so many lines."""
    if isinstance(given, (str, os.PathLike)):
        named = read_csv(os.fspath(given), most)
    elif isinstance(given, (list, tuple)) and given and all(isinstance(point, dict) for point in given):
        named = [(f"points[{number}].", point) for number, point in enumerate(given[: most + 1])]
    else:
        raise BadConfig(f"points: {show(given)}; expected a list of tables, or a CSV file")
    if len(named) > most:
        raise BadConfig(f"points: more than {most:,}; expected fewer, or axes that they are the product of")
    return [(where, as_grid(point, where)) for where, point in named]


def as_grid(point: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in point.items():
        table, _, name = str(key).partition(".")
        if value is None or value != value:  # a NaN, as data frames have it for nothing
            continue
        if key in AXES:
            found[AXES[key]] = single(f"{where}{key}", value)
        elif key in TABLES and isinstance(value, dict):
            for inner, one in value.items():
                found.setdefault(table, {})[inner] = single(f"{where}{table}.{inner}", one)
        elif table in TABLES and name:
            found.setdefault(table, {})[name] = single(f"{where}{key}", value)
        else:
            hint = nearest(str(key), NAMES, 1)
            raise BadConfig(
                f"{where}{show(key)[1:-1]}: unknown; expected one of {', '.join(AXES)}, or a name in sizes, options or columns, "
                f"such as sizes.n_layers" + (f" (nearest: {hint})" if hint else "")
            )
    return found


def single(key: str, value: Any) -> Any:
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return value.__index__()
    if not isinstance(value, (str, bool, float)):
        raise BadConfig(f"{key}: {show(value)}; expected one value; grids take several")
    return value


def read_csv(path: str, most: int) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a CSV file by its header; an empty cell is left out."""
    lines = cells_of(path, most)
    if len(lines) < 2:
        raise BadConfig(f"points: {show(path)}; expected a header and a line for each point")
    (_, header), *rest = lines
    found = []
    for number, cells in rest:
        if len(cells) > len(header) or len(set(header)) < len(header):
            raise BadConfig(
                f"{path}:{number}: {len(cells)} cells; expected at most {len(header)}, each of a name of its own"
            )
        named = zip(header, cells, strict=False)
        found.append((f"{path}:{number}: ", {name.strip(): typed(text) for name, text in named if text.strip()}))
    return found


def cells_of(path: str, most: int) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, by number: the header and at most so many, and one more."""
    why = "expected a CSV file"
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) <= MAX_FILE:
            lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
            return list(itertools.islice(((lines.line_num, cells) for cells in lines if any(cells)), most + 2))
    except OSError as error:
        raise BadConfig(f"points: {show(path)}: {error.strerror or error}; {why}") from None
    except (csv.Error, ValueError) as error:  # of UTF-8 too, and of a name with a NUL
        raise BadConfig(f"points: {show(path)}: {str(error)[:80]}; {why}") from None
    raise BadConfig(f"points: {show(path)}: larger than {MAX_FILE:,} bytes; expected at most {most:,} points")


def typed(text: str) -> Any:
    """A cell as TOML would have it: a number, true or false, or else a text."""
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
