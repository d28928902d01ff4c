"""Requests of a trace as arrays, in order of time, a bounded part at a time.

What is no request is counted with the numbers of its lines. Requests may stand out of order by up to WINDOW lines; one that
comes later than that is taken to arrive with the last one given out, and counted.
"""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any, Self

from ..base import BadFile, Record, show
from .compiled import np
from .formats import (
    HASHES,
    MOST_NS,
    MOST_TOKENS,
    ROLES,
    BrokenLine,
    Columns,
    columns_of,
    nanoseconds,
    tokens,
)
from .opening import Stream
from .rows import BLANK, LOOK, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

BLOCK = 2**22
MOST_LINE = 2**24
# A line that goes on for so long is none: what unpacks to it is made to harm.
MOST_SKIPPED = 2**30
WINDOW = 2**16
# An object that begins on the line on which another one ends
TWO = re.compile(rb"\}[ \t\r]*\{")
# Broken or empty lines, after which a file is no trace; and how many are told with their numbers and reasons.
MOST_BROKEN, TOLD = 1_000_000, 5


class Chunk(Record):
    """Requests in order of arrival. time: nanoseconds, as the trace has them; prompt, output: tokens. Where the trace has hashes,
    those of request i are hashes[ends[i - 1]:ends[i]] (from 0 for the first)."""

    time: Ints
    prompt: Ints
    output: Ints
    hashes: Ints | None = None
    ends: Ints | None = None

    def __len__(self) -> int:
        return len(self.time)

    def picked(self, index: Ints) -> Chunk:
        """Some requests, in this order."""
        found = Chunk(time=self.time[index], prompt=self.prompt[index], output=self.output[index])
        if self.hashes is None or self.ends is None:
            return found
        sizes = np.diff(self.ends, prepend=0)[index]
        ends = np.cumsum(sizes)
        first = (self.ends[index] - sizes) - (ends - sizes)
        at = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first, sizes)
        return found.replace(hashes=self.hashes[at], ends=ends)


def joined(chunks: list[Chunk]) -> Chunk:
    def every(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in chunks])

    found = Chunk(time=every("time"), prompt=every("prompt"), output=every("output"))
    if chunks[0].hashes is None:
        return found
    ends, base = [], 0
    for one in chunks:
        assert one.hashes is not None
        assert one.ends is not None
        ends.append(one.ends + base)
        base += len(one.hashes)
    return found.replace(hashes=every("hashes"), ends=np.concatenate(ends))


class Counts:
    """What was read. lines: all, a header among them; broken: how many were no request, told: the first with their reasons.
    backwards: lines earlier than one before, first_backwards: the number of the first; late: those too late to be put in order.
    failed: requests without an output (BurstGPT writes failed ones so)."""

    def __init__(self) -> None:
        self.lines = self.requests = self.broken = self.blank = self.backwards = self.late = self.failed = 0
        self.first_backwards = 0
        self.told: list[tuple[int, str]] = []
        self.first_time = self.last_time = 0
        self.ended = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "lines": self.lines, "requests": self.requests, "broken_lines": self.broken,
            "broken": [{"line": line, "why": why} for line, why in self.told], "backwards": self.backwards,
            "late": self.late, "failed": self.failed, "ended_early": self.ended or None,
        }  # fmt: skip


class Trace:
    """One pass over a trace. strict: BadFile at the first line that is no request, is out of order, or is not whole.

    elapsed: called with arrays of (prompt, output, nanoseconds) where the trace says how long requests took.
    """

    def __init__(
        self, path: str, columns: str | None = None, *, strict: bool = False, elapsed: Callable[..., None] | None = None
    ) -> None:
        self.path, self.strict, self.elapsed = path, strict, elapsed
        self.counts = Counts()
        self.stream = Stream(path)
        self.rest = b""
        try:
            head = self._head()
            self.json = head.lstrip().startswith(b"{")
            self.header = self._names(head)
            self.columns: Columns = columns_of(self.header, columns, path, self.json)
            self.roles = self._roles()
        except BaseException:
            self.stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def _head(self) -> bytes:
        """The first line, which is left to read where it is no header."""
        data = b""
        while b"\n" not in data and len(data) <= MOST_LINE:
            more = self.stream.read(BLOCK)
            if not more:
                break
            data += more
        data = data.removeprefix(b"\xef\xbb\xbf")
        if not data.strip():
            raise BadFile(f"{self.path}: empty{self._cut()}; expected a trace: CSV with a header, or lines of JSON")
        self.rest = data
        return data.partition(b"\n")[0]

    def _cut(self) -> str:
        return f", for {self.stream.ended}" if self.stream.ended else ""

    def _names(self, head: bytes) -> list[str]:
        if self.json:
            try:
                return [str(key) for key in read_json(head)]
            except BrokenLine as error:
                raise BadFile(f"{self.path} line 1: {error}") from None
        try:
            text = head[:65536].decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadFile(f"{self.path}: no text; expected a trace: CSV with a header, or lines of JSON") from None
        self.delimiter = max(",\t;", key=text.count)
        self.counts.lines = 1
        self.rest = self.rest.partition(b"\n")[2]
        return [cell.strip() for cell in next(csv.reader([text], delimiter=self.delimiter), [])]

    def _roles(self) -> Ints:
        roles = np.zeros(len(self.header), np.int64)
        for number, role in enumerate(ROLES, 1):
            name = getattr(self.columns, role)
            if name is not None and (role != "elapsed" or self.elapsed):
                roles[self.header.index(name)] = number
        return roles

    # -- lines --------------------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines, many at a time. One without an end, or too long, is given out as it is or counted."""
        data, skipped = self.rest, 0
        self.rest = b""
        parts: list[bytes] = [data]
        held = len(data)
        more = data
        while more or held:
            cut = more.rfind(b"\n") + 1
            if cut and skipped:
                start = more.index(b"\n") + 1
                self.broken(self.counts.lines + 1, f"longer than {MOST_LINE:,} bytes")
                self.counts.lines += 1
                skipped = 0
                more = more[start:]
                parts, held, cut = [more], len(more), more.rfind(b"\n") + 1
            if cut:
                whole = b"".join([*parts[:-1], more[:cut]])
                parts = [more[cut:]]
                held = len(parts[0])
                yield whole
            elif held > MOST_LINE:
                skipped += held
                parts, held = [], 0
                if skipped > MOST_SKIPPED:
                    raise BadFile(
                        f"{self.path} line {self.counts.lines + 1:,}: longer than {MOST_SKIPPED:,} bytes; expected a trace"
                    )
            more = self.stream.read(BLOCK)
            if not more:
                break
            parts.append(more)
            held += len(more)
        self.counts.ended = self.stream.ended
        last = b"".join(parts)
        if skipped:
            self.broken(self.counts.lines + 1, f"longer than {MOST_LINE:,} bytes")
            self.counts.lines += 1
        elif last and self.stream.ended:
            self.counts.lines += 1  # cut in the middle
            self.broken(self.counts.lines, "cut: the file ends in it")
        elif last:
            yield last + b"\n"
        if self.stream.ended and self.strict:
            raise BadFile(f"{self.path}: {self.stream.ended}, after line {self.counts.lines:,}")

    def broken(self, line: int, why: str) -> None:
        counts = self.counts
        if self.strict:
            raise BadFile(f"{self.path} line {line:,}: {why}")
        counts.broken += 1
        if len(counts.told) < TOLD:
            counts.told.append((line, why))
        if counts.broken + counts.blank > MOST_BROKEN:
            raise BadFile(
                f"{self.path}: more than {MOST_BROKEN:,} lines are no requests, line {counts.told[0][0]:,} for "
                f"{counts.told[0][1]}; expected a trace"
            )

    # -- requests -----------------------------------------------------------------------------------------------------

    def chunks(self) -> Iterator[Chunk]:
        """The requests in order of time."""
        held: Chunk | None = None
        last = None
        try:
            for chunk in map(self._json_rows if self.json else self._csv_rows, self._blocks()):
                if not len(chunk):
                    continue
                self._backwards(chunk.time, None if held is None else int(held.time[-1]))
                every = chunk if held is None else joined([held, chunk])
                every = self._sorted(every)
                cut = max(len(every) - WINDOW, 0)
                held = every.picked(np.arange(cut, len(every))) if cut else every
                if cut:
                    yield self._given(every.picked(np.arange(cut)), last)
                    last = self.counts.last_time
            if held is not None:
                yield self._given(held, last)
        finally:
            self.stream.close()
        if not self.counts.requests:
            told = "".join(f"; line {line:,}: {why}" for line, why in self.counts.told[:1])
            raise BadFile(f"{self.path}: no request in {self.counts.lines:,} lines{told}{self._cut()}")

    def _backwards(self, time: Ints, before: int | None) -> None:
        highest = np.maximum.accumulate(time)
        if before is not None and before > highest[0]:
            highest = np.maximum(highest, before)
        late = time < highest
        if number := int(late.sum()):
            line = int(self.numbers[int(np.argmax(late))])
            if self.strict:
                raise BadFile(f"{self.path} line {line:,}: earlier than a line before; expected the order of time")
            self.counts.first_backwards = self.counts.first_backwards or line
            self.counts.backwards += number

    def _sorted(self, chunk: Chunk) -> Chunk:
        if bool((chunk.time[1:] >= chunk.time[:-1]).all()):
            return chunk
        return chunk.picked(np.argsort(chunk.time, kind="stable"))

    def _given(self, chunk: Chunk, last: int | None) -> Chunk:
        if last is not None and chunk.time[0] < last:
            self.counts.late += int((chunk.time < last).sum())
            chunk = chunk.replace(time=np.maximum(chunk.time, last))
        if last is None:
            self.counts.first_time = int(chunk.time[0])
        if int(chunk.time[-1]) - self.counts.first_time >= MOST_NS:
            raise BadFile(f"{self.path}: its requests are more than 146 years apart; expected one unit of time")
        self.counts.last_time = int(chunk.time[-1])
        self.counts.requests += len(chunk)
        return chunk

    def _kept(self, columns: Ints, numbers: Ints) -> Chunk:
        """Requests of arrays by role, without those that have no output."""
        failed = columns[3] == 0
        if failed.any():
            self.counts.failed += int(failed.sum())
            columns, numbers = columns[:, ~failed], numbers[~failed]
        self.numbers = numbers
        if self.elapsed and self.columns.elapsed and columns.shape[1]:
            self.elapsed(columns[2], columns[3], columns[4])
        return Chunk(time=columns[1], prompt=columns[2], output=columns[3])

    def _csv_rows(self, block: bytes) -> Chunk:
        before = self.counts.lines
        data = np.frombuffer(block + b"\n", np.uint8)
        most = block.count(b"\n")
        found, starts = np.zeros((5, most), np.int64), np.empty(most + 1, np.int64)
        status = np.zeros(most, np.int8)
        count = parse(data, len(block), ord(self.delimiter), self.roles, self.columns.unit, found, starts, status)
        assert count == most
        starts[count] = len(block)
        self.counts.lines += count
        good = status == 0
        for row in np.flatnonzero(status == LOOK).tolist():
            line = block[starts[row] : starts[row + 1]].rstrip(b"\r\n")
            try:
                found[1:, row] = self._careful(line)
                good[row] = True
            except BrokenLine as error:
                self.broken(before + row + 1, str(error))
        if blank := int((status == BLANK).sum()):
            self._blank(blank)
        numbers = np.arange(before + 1, before + count + 1)
        if not good.all():
            found, numbers = found[:, good], numbers[good]
        return self._kept(found, numbers)

    def _blank(self, number: int) -> None:
        self.counts.blank += number
        if self.counts.blank + self.counts.broken > MOST_BROKEN:
            raise BadFile(f"{self.path}: more than {MOST_BROKEN:,} lines are empty or no requests; expected a trace")

    def _careful(self, line: bytes) -> tuple[int, int, int, int]:
        try:
            rows = list(csv.reader([line.decode()], delimiter=self.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BrokenLine(show(str(error))) from None
        cells = rows[0] if rows else []
        if len(cells) != len(self.header):
            raise BrokenLine(f"{len(cells)} columns; the header has {len(self.header)}")
        return self._values(dict(zip(self.header, cells, strict=True)))

    def _values(self, row: dict[str, Any]) -> tuple[int, int, int, int]:
        columns = self.columns
        for role in ("time", "prompt", "output"):
            if getattr(columns, role) not in row:
                raise BrokenLine(f"{role}: no {show(getattr(columns, role))}")
        time = nanoseconds("time", row[columns.time], columns.unit)
        prompt, output = tokens("prompt", row[columns.prompt], 1), tokens("output", row[columns.output], 0)
        elapsed = 0
        if self.elapsed and columns.elapsed:
            text = row.get(columns.elapsed)
            # What did not say how long it took is left out of the fit.
            elapsed = nanoseconds("elapsed", text, 10**9) if text not in (None, "") else 0
        return time, prompt, output, elapsed

    def _json_rows(self, block: bytes) -> Chunk:
        quick = self._plain_json(block)
        if quick is not None:
            return quick
        rows: list[tuple[int, int, int, int]] = []
        numbers: list[int] = []
        hashes: list[int] = []
        ends: list[int] = []
        for line in block[:-1].split(b"\n"):
            self.counts.lines += 1
            if not line.strip():
                self._blank(1)
                continue
            try:
                data = read_json(line)
                values = self._values(data)
                own = self._hashes(data, values[1]) if self.columns.hashes else ()
            except BrokenLine as error:
                self.broken(self.counts.lines, str(error))
                continue
            if values[2] == 0:
                self.counts.failed += 1
                continue
            rows.append(values)
            numbers.append(self.counts.lines)
            hashes.extend(own)
            ends.append(len(hashes))
        table = np.zeros((5, len(rows)), np.int64)
        if rows:
            table[1:] = np.array(rows, np.int64).T
        chunk = self._kept(table, np.array(numbers, np.int64))
        if not self.columns.hashes:
            return chunk
        return chunk.replace(hashes=np.array(hashes, np.int64), ends=np.array(ends, np.int64))

    def _plain_json(self, block: bytes) -> Chunk | None:
        """The same where every line is an object with whole numbers in range; None where each line has to be looked at."""
        columns, lines = self.columns, block.count(b"\n")
        roles = [columns.time, columns.prompt, columns.output]
        names = roles + [HASHES] * bool(columns.hashes)
        # Arrow crashes where two fields of a schema have the same name.
        if self.elapsed or len(set(names)) < len(names) or not block.isascii():
            return None
        # A line without an object; two of them on one; what is no JSON, but read by Arrow
        if not block.startswith(b"{") or block.count(b"\n{") != lines - 1 or TWO.search(block):
            return None
        if b"NaN" in block or b"Inf" in block:
            return None
        import pyarrow as pa
        from pyarrow import json as arrow

        fields = [(name, pa.int64()) for name in roles] + [(HASHES, pa.list_(pa.int64()))] * bool(columns.hashes)
        try:
            table = arrow.read_json(
                pa.BufferReader(block),
                arrow.ReadOptions(use_threads=False, block_size=len(block) + 1),
                arrow.ParseOptions(pa.schema(fields), unexpected_field_behavior="ignore"),
            ).combine_chunks()
        except pa.ArrowInvalid:
            return None
        if len(table) != lines or any(one.null_count for one in table.columns):
            return None
        found = np.zeros((5, lines), np.int64)
        for row, name in enumerate(roles, 1):
            found[row] = table[name].to_numpy()
        time, prompt, output = found[1:4]
        if (
            max(-int(time.min()), int(time.max())) >= MOST_NS // columns.unit
            or prompt.min() < 1
            or output.min() < 0
            or found[2:4].max() > MOST_TOKENS
        ):
            return None
        found[1] *= columns.unit
        own: Ints = np.zeros(0, np.int64)
        counts = np.zeros(lines, np.int64)
        if columns.hashes:
            lists = pa.concat_arrays(table[HASHES].chunks)
            if lists.values.null_count:
                return None
            own, counts = lists.flatten().to_numpy(), np.diff(lists.offsets.to_numpy())
            if (len(own) and own.min() < 0) or (counts > -(-prompt // columns.hashes)).any():
                return None
        numbers = np.arange(self.counts.lines + 1, self.counts.lines + lines + 1)
        self.counts.lines += lines
        chunk = self._kept(found, numbers)
        if not columns.hashes:
            return chunk
        own = own[np.repeat(output > 0, counts)]
        return chunk.replace(hashes=own, ends=np.cumsum(counts[output > 0]))

    def _hashes(self, row: dict[str, Any], prompt: int) -> list[int]:
        found = row.get(HASHES, [])
        most = -(-prompt // self.columns.hashes)
        if not isinstance(found, list) or len(found) > most:
            raise BrokenLine(
                f"{HASHES}: expected a list of at most {most:,}, one for each {self.columns.hashes} tokens of the prompt"
            )
        if not all(type(one) is int and 0 <= one < 2**63 for one in found):
            raise BrokenLine(f"{HASHES}: expected integers of 0 or more")
        return found


def read_json(line: bytes) -> dict[str, Any]:
    """One object. BrokenLine for anything else."""
    from decimal import Decimal

    def refuse(word: str) -> Any:
        raise BrokenLine(f"{word}; expected a number")

    try:
        data = json.loads(line, parse_float=Decimal, parse_constant=refuse)
    except (ValueError, RecursionError, ArithmeticError) as error:
        if isinstance(error, BrokenLine):
            raise
        raise BrokenLine(f"no JSON: {show(str(error))}") from None
    if not isinstance(data, dict):
        raise BrokenLine(f"{show(data)}; expected an object")
    return data
