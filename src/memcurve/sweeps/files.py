"""A sweep's files: chunks written whole or not at all, and what becomes of them in the end.

While a sweep of `-o out.parquet` is at work, beside it stands a folder out.parquet.parts:

    job.json    the resolved spec, its digest and memcurve's version
    rows/       a file per complete chunk, renamed from a hidden name once it is on the disk
    notes/      what the summary needs of each, written before

In the end rows/ becomes out.parquet: its chunks as one file where they are few rows, else the folder of them, as Spark and
Dask write it. out.parquet.sweep.json says which spec it was made from and what it came to.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, MemcurveError, show
from .spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
FORMATS = ("parquet", "csv", "arrow")
# Up to so many rows the output is one file.
FILE_ROWS, ROW_GROUP = 2**22, 2**20


class Stopped(MemcurveError):
    """A sweep stopped before its end; what was complete is kept."""

    exit_code = 1


class Place:
    """Where a sweep's files are. output: the path as asked, absolute."""

    def __init__(self, output: str) -> None:
        self.name, self.output = output, os.path.abspath(output)
        self.form = output.rpartition(".")[2].lower()
        if self.form not in FORMATS or "\0" in output:
            raise BadConfig(f"output: {show(output)}; expected a name that ends in one of .{', .'.join(FORMATS)}")
        self.parts = f"{self.output}.parts"
        self.summary = f"{self.output}.sweep.json"

    def part(self, number: int) -> str:
        return os.path.join(self.parts, "rows", f"part-{number:06d}.{self.form}")

    def note(self, number: int) -> str:
        return os.path.join(self.parts, "notes", f"{number:06d}.json")

    def done(self, spec: Spec) -> list[int]:
        """The chunks that are complete."""
        standing = set(os.listdir(os.path.join(self.parts, "rows")))
        return [number for number in range(spec.chunks) if os.path.basename(self.part(number)) in standing]


def begin(place: Place, spec: Spec) -> dict[str, Any] | None:
    """Makes the folder for a new sweep, or goes on in the one that is there; the summary of one that is complete.

    BadConfig where the output, or a folder of parts, is of another spec, another version, or not of a sweep at all.
    """
    if os.path.lexists(place.output):
        known = read_json(place.summary)
        if known.get("digest") != spec.digest:
            raise BadConfig(
                f"output: {place.name} exists and {difference(known)}; expected a name that is free, or the same sweep"
            )
        shutil.rmtree(place.parts, ignore_errors=True)
        return known
    job = os.path.join(place.parts, "job.json")
    if os.path.lexists(place.parts):
        known = read_json(job)
        # Stopped before there was a job.json, it has nothing else.
        others = [name for name in os.listdir(place.parts) if name != "lock" and not name.startswith(".job.json.")]
        if known.get("digest") != spec.digest and (known or others):
            raise BadConfig(
                f"output: {place.name}.parts exists and {difference(known)}; expected another name, or that folder removed"
            )
    os.makedirs(place.parts, exist_ok=True)
    if not os.path.exists(job):
        write_json(job, {**head(spec), "spec": spec.data})
    for folder in ("rows", "notes"):
        os.makedirs(os.path.join(place.parts, folder), exist_ok=True)
    return None


def head(spec: Spec) -> dict[str, Any]:
    from .. import __version__

    return {"schema": SCHEMA, "memcurve": __version__, "digest": spec.digest}


def difference(known: dict[str, Any]) -> str:
    from .. import __version__

    if not known:
        return "was not made by a sweep"
    version = known.get("memcurve")
    return f"is by memcurve {version}" if version != __version__ else "is of another spec"


@contextlib.contextmanager
def locked(place: Place) -> Iterator[None]:
    """Holds a sweep's folder alone; the lock ends with the process, however that ends."""
    os.makedirs(place.parts, exist_ok=True)
    with open(os.path.join(place.parts, "lock"), "wb") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise BadConfig(f"output: another process is at work on {place.name}; expected it to end first") from None
        yield


def read_json(path: str) -> dict[str, Any]:
    """The object in a file; an empty one where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: str, data: Any, folder: str | None = None) -> None:
    with replacing(path, folder) as hidden, open(hidden, "w", encoding="utf-8") as file:
        file.write(f"{json.dumps(data, ensure_ascii=True)}\n")  # dump() to a file takes three times as long


@contextlib.contextmanager
def replacing(path: str, folder: str | None = None) -> Iterator[str]:
    """A hidden name to write to, in the path's folder or another; what stands there in the end is put on the disk and then
    takes the path's place. No other process, on whatever machine, has that name.
    """
    hidden = os.path.join(folder or os.path.dirname(path), f".{os.path.basename(path)}.{os.urandom(8).hex()}")
    try:
        yield hidden
        number = os.open(hidden, os.O_RDWR)
        try:
            os.fsync(number)
        finally:
            os.close(number)
        os.replace(hidden, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        raise


def write_chunk(folder: str, number: int) -> None:
    """Writes one chunk of the sweep whose parts are in a folder. Any process can do it, again and again."""
    global _made
    if _made is None or _made[0] != folder:
        from .rows import Rows

        known = read_json(os.path.join(folder, "job.json"))
        if not known:
            raise BadConfig(f"{folder}: no sweep is there; expected a folder that all workers share")
        _made = (folder, Rows(Spec(known["spec"])))
    place, rows = Place(folder.removesuffix(".parts")), _made[1]
    table, note = rows.chunk(number)
    write_json(place.note(number), note)
    with replacing(place.part(number)) as hidden:
        write_table([table], hidden, place.form)


# What a process made ready for the folder that it works on.
_made: tuple[str, Any] | None = None


def write_table(tables: list[Any], path: str, form: str) -> None:
    """Rows as a file: the same bytes for the same rows."""
    import pyarrow as pa

    schema = tables[0].schema
    if form == "csv":
        from pyarrow import csv

        with csv.CSVWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table)
        return
    if form == "arrow":
        whole = pa.concat_tables(tables).unify_dictionaries()
        with pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(whole, max_chunksize=ROW_GROUP)
        return
    from pyarrow import parquet

    # Sizes follow each other in even steps: as differences they take a twentieth, in less time than compression alone.
    steps = {field.name: "DELTA_BINARY_PACKED" for field in schema if field.type == pa.int64()}
    words = [field.name for field in schema if field.name not in steps]
    with parquet.ParquetWriter(
        path, schema, compression="zstd", compression_level=1, use_dictionary=words, column_encoding=steps
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)


def read_table(path: str, form: str) -> Any:
    """The rows of a part, as they were written; text for csv."""
    import pyarrow as pa

    if form == "arrow":
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    from pyarrow import parquet

    return parquet.read_table(path)


def finish(place: Place, spec: Spec) -> dict[str, Any]:
    """Makes the output of all parts, and the summary beside it."""
    from .front import summed

    missing = spec.chunks - len(place.done(spec))
    if missing:
        raise Stopped(f"{missing:,} parts were written where this process does not see them")
    known = {**head(spec), "format": place.form, "columns": spec.columns()}
    known |= summed([read_json(place.note(number)) for number in range(spec.chunks)], spec)
    known["curves"], known["files"] = spec.lines, 1 if spec.points <= FILE_ROWS else spec.chunks
    write_json(place.summary, {**known, "spec": spec.data}, place.parts)
    rows = os.path.join(place.parts, "rows")
    parts = [place.part(number) for number in range(spec.chunks)]
    if spec.points > FILE_ROWS:
        for name in set(os.listdir(rows)) - {os.path.basename(part) for part in parts}:
            os.unlink(os.path.join(rows, name))
        os.rename(rows, place.output)
    elif len(parts) == 1:
        os.replace(parts[0], place.output)
    else:
        with replacing(place.output, place.parts) as hidden:
            join(parts, hidden, place.form)
    shutil.rmtree(place.parts, ignore_errors=True)
    return known


def join(parts: list[str], path: str, form: str) -> None:
    """One file of several."""
    if form != "csv":
        write_table([read_table(part, form) for part in parts], path, form)
        return
    with open(path, "wb") as file:
        for number, part in enumerate(parts):
            with open(part, "rb") as one:
                line = one.readline()
                file.write(b"" if number else line)
                shutil.copyfileobj(one, file, 2**20)
