"""Files that are read at a few places: a local one, and its likes elsewhere that answer `read`."""

from __future__ import annotations

import os
from stat import S_ISREG

from .base import BadFile, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class File(Protocol):
        """path: what errors call it. size: its bytes."""

        path: str
        size: int

        def read(self, offset: int, count: int) -> bytes:
            """At most `count` bytes at `offset`, fewer only at the end. BadFile where they can't be read."""

        def close(self) -> None: ...


class LocalFile:
    """A regular file. BadFile for anything else: a folder, a pipe or a device is never opened, or waited for."""

    def __init__(self, path: str, expected: str) -> None:
        self.path = path
        try:
            regular = S_ISREG(os.stat(path).st_mode)
        except OSError as error:
            raise BadFile(f"{path}: {error.strerror or 'unreadable'}; expected {expected}") from None
        except ValueError:
            raise BadFile(f"{show(path)}: not a path; expected {expected}") from None
        if not regular:
            raise BadFile(f"{path}: no regular file; expected {expected}")
        try:
            self.stream = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise BadFile(f"{path}: {error.strerror or 'unreadable'}; expected {expected}") from None
        self.size = os.fstat(self.stream.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        try:
            self.stream.seek(offset)
            return self.stream.read(count)
        except OSError as error:
            raise BadFile(f"{self.path}: {error.strerror or 'unreadable'}; expected a readable file") from None

    def close(self) -> None:
        self.stream.close()


class MemoryFile:
    """The first part of a file, held in memory; what comes after it counts as not there when it is read."""

    def __init__(self, name: str, data: bytes) -> None:
        self.path, self.data, self.size = name, data, 2**62

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    def close(self) -> None:
        pass
