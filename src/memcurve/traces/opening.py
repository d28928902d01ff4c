"""Files of traces as streams of bytes: plain, gzip or Zstandard, told by their first bytes."""

from __future__ import annotations

import sys
import zlib

from ..base import BadFile, MissingExtraError
from ..files import LocalFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# Bytes that are looked at to tell what it is.
FIRST = 2**16
EXPECTED = "a trace: CSV or lines of JSON, plain, .gz or .zst"
# A Zstandard frame may ask for so much memory, and no more.
MOST_WINDOW = 2**27


class Stream:
    """Bytes of a trace in order. size: of the file, 0 where it is not known; taken: how much of it was read. ended: why it stopped
    early, where its compressed data are damaged or cut: all before that has been given out."""

    def __init__(self, path: str) -> None:
        self.path, self.taken, self.size, self.ended = path, 0, 0, ""
        self.file: Any
        if path == "-":
            self.file = sys.stdin.buffer
        else:
            own = LocalFile(path, EXPECTED)
            self.file, self.size = own.stream, own.size
        self.first = self._raw(FIRST)
        self.unpack: Any = None
        self.done = False
        if self.first.startswith(GZIP):
            self.unpack = Gzip()
        elif self.first.startswith(ZSTD):
            self.unpack = Zstd()

    def _raw(self, count: int) -> bytes:
        try:
            data: bytes = self.file.read(count)
        except OSError as error:
            raise BadFile(f"{self.path}: {error.strerror or 'unreadable'}; expected {EXPECTED}") from None
        self.taken += len(data)
        return data

    def read(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        if self.unpack is None:
            data, self.first = self.first, b""
            return data or self._raw(count)
        while not self.done:
            try:
                if self.unpack.hungry:
                    data, self.first = self.first or self._raw(count), b""
                    if not data:
                        self.done = True
                        if not self.unpack.whole:
                            self.ended = "its compressed data end in the middle"
                        return b""
                    self.unpack.feed(data)
                if found := self.unpack.take(count):
                    return bytes(found)
            except Damaged as error:
                self.done, self.ended = True, f"its compressed data are damaged ({error})"
        return b""

    def close(self) -> None:
        if self.path != "-":
            self.file.close()


class Damaged(Exception):
    """Compressed data that are none."""


class Gzip:
    """gzip, of one member or several."""

    def __init__(self) -> None:
        self.state = zlib.decompressobj(31)
        self.rest = b""
        self.hungry, self.whole = True, False

    def feed(self, data: bytes) -> None:
        self.rest, self.hungry = data, False

    def take(self, count: int) -> bytes:
        if self.state.eof:
            self.rest = self.rest.lstrip(b"\0")
            if not self.rest:
                self.hungry = True
                return b""
            self.state, self.whole = zlib.decompressobj(31), False
        try:
            found = self.state.decompress(self.rest, count)
        except zlib.error as error:
            raise Damaged(str(error)) from None
        self.rest = self.state.unused_data if self.state.eof else self.state.unconsumed_tail
        self.whole = self.state.eof
        self.hungry = not self.rest and len(found) < count
        return found


class Zstd:
    """Zstandard, by Python's own module from 3.14 on, else by the package zstandard. Frames may follow each other."""

    def __init__(self) -> None:
        self.rest = b""
        self.hungry, self.whole = True, False
        self.own = sys.version_info >= (3, 14)
        self.error: Any
        if self.own:
            from compression import zstd

            self.make: Any = lambda: zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: MOST_WINDOW.bit_length() - 1}
            )
            self.error = zstd.ZstdError
        else:
            try:
                import zstandard
            except ImportError:
                raise MissingExtraError("a .zst trace needs zstandard: pip install 'memcurve[replay]'") from None
            self.make = lambda: zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj()
            self.error = zstandard.ZstdError
        self.state = self.make()

    def feed(self, data: bytes) -> None:
        self.rest, self.hungry = data, False

    def take(self, count: int) -> bytes:
        if self.state.eof:
            if not self.rest:
                self.hungry = True
                return b""
            self.state, self.whole = self.make(), False
        # The package has no bound on what one call gives: a little input at a time, which at most makes 128 KiB a block of it.
        some, later = (self.rest, b"") if self.own else (self.rest[:1024], self.rest[1024:])
        try:
            found: bytes = self.state.decompress(some, count) if self.own else self.state.decompress(some)
        except self.error as error:
            raise Damaged(str(error)) from None
        self.rest = (self.state.unused_data + later) if self.state.eof else later
        self.whole = self.state.eof
        waiting = self.own and not self.state.needs_input and not self.state.eof
        self.hungry = not self.rest and not waiting
        return found
