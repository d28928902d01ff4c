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
    file = opened(path)
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
        if regular(file):
            os.ftruncate(file, kept)
        raise kept_of(path, error, rows) from None
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
    """Parquet, which is of no use without its end: where the disk fills, as many rows from the first on as fit with one."""
    try:
        import pyarrow as pa
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
    about = {"trace": replay.trace, "service": replay.assumption, "first_time_ns": str(replay.first_time_ns)}
    table = pa.concat_tables(parts).replace_schema_metadata(about)
    file = opened(path)
    try:
        put(file, packed(table))
    except OSError as error:
        rows = fewer(file, table)
        if not rows and regular(file):
            os.unlink(path)
        raise kept_of(path, error, rows) from None
    finally:
        os.close(file)
    return int(table.num_rows)


def packed(table: Any) -> bytes:
    """A whole file of some thousand rows."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def fewer(file: int, table: Any) -> int:
    """Writes as many of the first rows as the disk takes, by eighths less each time; how many."""
    rows = int(table.num_rows)
    while rows > 8 and regular(file):
        rows = rows * 7 // 8
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        try:
            put(file, packed(table.slice(0, rows)))
        except OSError:
            continue
        return rows
    return 0


def opened(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise unwritable(path, error) from None


def regular(file: int) -> bool:
    return stat.S_ISREG(os.fstat(file).st_mode)


def kept_of(path: str, error: OSError, rows: int) -> BadConfig:
    return BadConfig(f"{path}: {error.strerror or error}; {rows:,} whole rows of the series were kept")


def unwritable(path: str, error: OSError) -> BadConfig:
    return BadConfig(f"{path}: {error.strerror or error}; expected a place that can be written")
