"""A replay's series as files: Parquet, or CSV. Columns are those of Series, behind the model's name."""

from __future__ import annotations

import os
import stat

from ..base import BadConfig, MissingExtraError
from .compiled import np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .replaying import Replay
    from .run import Run

ENDINGS = (".parquet", ".csv")
ROWS = 64
# In this order; each run has those of its kind.
COLUMNS = (
    "time_ns", "bytes_min", "bytes_mean", "bytes_max", "filled_mean", "running_mean", "running_max", "waiting_max", "preemptions",
    "finished", "arrived", "arrived_tokens",
)  # fmt: skip


def write(replay: Replay, path: str) -> int:
    """Writes all runs; how many rows. BadConfig where not all could be written, which says what was kept."""
    return parquet(replay, path) if path.lower().endswith(".parquet") else text(replay, path)


def named(replay: Replay) -> list[tuple[str, Run]]:
    """Runs by names that differ."""
    names = [run.name for run in replay.runs]
    return [
        (name if names.count(name) == 1 else f"{name} · {run.engine} · {run.dtype} ({index + 1})", run)
        for index, (name, run) in enumerate(zip(names, replay.runs, strict=True))
    ]


def text(replay: Replay, path: str) -> int:
    """CSV, rows at a time: where the disk fills, the rows that are whole stay."""
    kept = rows = 0
    columns = [name for name in COLUMNS if any(name in run.series.columns for run in replay.runs)]
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        kept = put(file, (",".join(("model", *columns)) + "\n").encode())
        for name, run in named(replay):
            label = '"' + name.replace('"', '""') + '"'
            table = [run.series.columns.get(column) for column in columns]
            for first in range(0, len(run.series), ROWS):
                lines = [
                    ",".join((label, *("" if one is None else cell(one[row]) for one in table))) + "\n"
                    for row in range(first, min(first + ROWS, len(run.series)))
                ]
                kept += put(file, "".join(lines).encode())
                rows += len(lines)
    except OSError as error:
        if stat.S_ISREG(os.fstat(file).st_mode):
            os.ftruncate(file, kept)
        raise BadConfig(f"{path}: {error.strerror or error}; {rows:,} whole rows of the series were kept") from None
    finally:
        os.close(file)
    return rows


def put(file: int, data: bytes) -> int:
    """All of it; how much."""
    done = 0
    while done < len(data):
        done += os.write(file, data[done:])
    return done


def cell(value: Any) -> str:
    return f"{float(value):.6g}" if isinstance(value, np.floating) else str(int(value))


def parquet(replay: Replay, path: str) -> int:
    """Parquet, which is of no use without its end: where the disk fills, no file is left."""
    try:
        import pyarrow as pa
        from pyarrow import parquet as pq
    except ImportError:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'memcurve[replay]'") from None
    columns = [name for name in COLUMNS if any(name in run.series.columns for run in replay.runs)]
    parts = []
    for name, run in named(replay):
        count, own = len(run.series), run.series.columns
        kinds = {column: pa.float64() if column == "running_mean" else pa.int64() for column in columns}
        arrays = {
            column: pa.array(own[column], kinds[column]) if column in own else pa.nulls(count, kinds[column])
            for column in columns
        }
        parts.append(pa.table({"model": pa.array([name] * count, pa.string()), **arrays}))
    table = pa.concat_tables(parts)
    about = {"trace": replay.trace, "service": replay.assumption, "first_time_ns": str(replay.first_time_ns)}
    try:
        pq.write_table(table.replace_schema_metadata(about), path, compression="zstd")
    except OSError as error:
        if os.path.isfile(path):
            os.unlink(path)
        raise unwritable(path, error) from None
    return int(table.num_rows)


def unwritable(path: str, error: OSError) -> BadConfig:
    return BadConfig(f"{path}: {error.strerror or error}; expected a place that can be written")
