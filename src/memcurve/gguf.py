"""GGUF files (version 2 and 3, either byte order): the metadata in front of the tensors, and nothing else of them.

A reader of its own, since the `gguf` package (0.19.0) makes arrays of every token: 150,000 tokens and merges take it 7.5 s
and 518 MiB, this one 0.03 s and 18 MiB; of a hostile count (2**33 strings in a sparse file of 100 GB) it is still reading
after 15 s, at 794 MiB and growing, where this one says so at once.
Layout: ggml/src/gguf.cpp of llama.cpp, commit 0c1e57098.
"""

from __future__ import annotations

import os
from stat import S_ISREG
from struct import Struct

from .base import BadConfig, BadFile, show
from .files import LocalFile, MemoryFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NoReturn

    from .files import File

MAX_COUNT = 2**32 - 1
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS

MAGIC = b"GGUF"
# Far above any published file (a vocabulary of 262,144 tokens with its merges takes 20 MB), and low enough that a
# damaged or hostile one is turned down within a second and a few MB.
MAX_HEADER, MAX_KEYS, MAX_KEY, MAX_STRINGS, MAX_TENSORS = 2**28, 2**14, 2**16, 2**22, 2**18
# Longer texts and arrays (templates, vocabularies) are skipped, and no more than so much is kept in all.
MAX_TEXT, MAX_ARRAY, MAX_KEPT = 2**12, 2**12, 2**20
CHUNK = 2**18
MAX_NAME, MAX_DIMS = 63, 4  # GGML_MAX_NAME with its closing zero, GGML_MAX_DIMS
ALIGNMENT = "general.alignment"
STRING, ARRAY, UINT32 = 8, 9, 4
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Metadata:
    """The keys of a GGUF file, read by their names below the architecture: count("block_count") is llama.block_count.

    file: the path of the file, where it is one. tensors: the names of its tensors, where it was read in memory.
    """

    def __init__(self, data: Mapping[str, Any], file: str | None = None, tensors: frozenset[str] | None = None) -> None:
        self.data, self.file, self.tensors = data, file, tensors
        architecture = data.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise BadConfig(f'general.architecture: {show(architecture)}; expected a name, such as "llama"')
        self.architecture = architecture

    def __repr__(self) -> str:
        return f"<Metadata of {self.architecture}, {len(self.data)} keys>"

    def get(self, key: str) -> Any:
        return self.data.get(f"{self.architecture}.{key}")

    def bad(self, key: str, value: object, expected: str) -> NoReturn:
        found = "missing" if value is None else show(value)
        raise BadConfig(f"{self.architecture}.{key}: {found}; expected {expected}")

    def checked(self, key: str, value: object, least: int = 0, most: int = MAX_COUNT) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            self.bad(key, value, f"an integer from {least} to {most}")
        return int(value)

    def count(self, key: str, default: int | None = None, least: int = 0, most: int = MAX_COUNT) -> int:
        """A whole number; `default` where the key is absent, and without one it must be there."""
        value = self.get(key)
        return self.checked(key, default if value is None else value, least, most)

    def counts(self, key: str, length: int, default: list[int]) -> list[int]:
        """One number per layer, or one for all (get_key_or_arr, llama-model-loader.cpp)."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, list):
            return [self.checked(key, value)] * length
        if len(value) != length:
            self.bad(key, f"{len(value)} entries", f"{length}, one per layer")
        return [self.checked(f"{key}[{i}]", one) for i, one in enumerate(value)]

    def items(self, key: str) -> list[int] | None:
        """An array of whole numbers or truth values, None where there is none."""
        value = self.get(key)
        if not isinstance(value, list):
            return None
        if len(value) > MAX_LAYERS:
            self.bad(key, f"{len(value)} entries", f"at most {MAX_LAYERS}")
        return [self.checked(f"{key}[{i}]", one) for i, one in enumerate(value)]

    def has_tensor(self, name: str) -> bool:
        """Whether the file holds a tensor, in any of its parts."""
        parts = self.data.get("split.count", 1)
        if self.tensors is not None:
            if name not in self.tensors and isinstance(parts, int) and parts > 1:
                raise BadFile(f"{show(name)}: may be in another of {parts} parts; expected a file that is not split")
            return name in self.tensors
        if self.file is None:
            return False
        tail = f"-00001-of-{parts:05d}.gguf" if isinstance(parts, int) and 1 < parts < 10**5 else ""
        if not tail or not self.file.endswith(tail):
            return name in tensor_names(self.file)
        stem = self.file.removesuffix(tail)
        return any(name in tensor_names(f"{stem}-{part:05d}-of-{parts:05d}.gguf") for part in range(1, parts + 1))


class Reader:
    """Values one after the other, through a window of CHUNK bytes. What is not as expected raises BadFile.

    file: an open file in place of the one at `path`.
    """

    def __init__(self, path: str, file: File | None = None) -> None:
        self.path, self.file = path, file or LocalFile(path, "a GGUF file")
        self.size = self.file.size
        self.start, self.window, self.at = 0, b"", 0
        self.strings = self.kept = 0
        self.order, self.kind = "<", 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def offset(self) -> int:
        return self.start + self.at

    def bad(self, found: str, expected: str) -> NoReturn:
        raise BadFile(f"{self.path}: byte {self.offset}: {found}; expected {expected}")

    def need(self, count: int) -> None:
        """Sees to it that the window holds the next `count` bytes."""
        if self.at + count <= len(self.window):
            return
        offset = self.offset
        if offset + count > MAX_HEADER:
            self.bad("metadata goes on", f"less than {MAX_HEADER >> 20} MiB of it")
        self.window = self.file.read(offset, max(count, CHUNK))
        self.start, self.at = offset, 0
        if len(self.window) < count:
            self.bad("the file ends", f"{count} more bytes")

    def skip(self, count: int) -> None:
        if self.offset + count > self.size:
            self.bad(f"{count} bytes, and the file ends after {self.size - self.offset}", "what fits in the file")
        self.at += count

    def number(self, form: Struct) -> Any:
        self.need(form.size)
        self.at += form.size
        return form.unpack_from(self.window, self.at - form.size)[0]

    def form(self, code: str, count: int = 1) -> Struct:
        return Struct(f"{self.order}{count}{code}")

    def text(self, most: int) -> str | None:
        """A string, or None for one that is longer than `most` bytes, and skipped."""
        length = self.number(self.long)
        if length > most:
            self.skip(length)
            return None
        self.need(length)
        self.at += length
        return self.window[self.at - length : self.at].decode("utf-8", "replace")

    def header(self) -> tuple[int, int]:
        """Numbers of tensors and of keys, after magic, version and byte order."""
        if self.size < 24:
            self.bad(f"{self.size} bytes", "a GGUF file")
        self.need(24)
        if self.window[:4] != MAGIC:
            self.bad(f"{show(self.window[:4])}", "GGUF")
        self.at = 4
        version = self.number(Struct("<I"))
        if version & 0xFFFF == 0:
            self.order, version = ">", version >> 24 | (version >> 8 & 0xFF00)
        if version not in (2, 3):
            self.at = 4
            self.bad(f"version {version}", "version 2 or 3")
        self.word, self.long = self.form("I"), self.form("Q")
        tensors, keys = self.number(self.long), self.number(self.long)
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            self.bad(f"{tensors} tensors and {keys} keys", f"at most {MAX_TENSORS} and {MAX_KEYS}")
        return tensors, keys

    def value(self) -> Any:
        """A value of any type; None for what is skipped."""
        self.kind = kind = self.number(self.word)
        if kind == STRING:
            found = self.text(MAX_TEXT)
            self.keep(len(found or ""))
            return found
        if kind == ARRAY:
            return self.array()
        if kind not in FORMATS:
            self.at -= 4
            self.bad(f"type {kind}", "one of the types 0 to 12")
        return self.number(self.form(FORMATS[kind]))

    def array(self) -> Any:
        kind, count = self.number(self.word), self.number(self.long)
        if kind == STRING:
            self.skip_strings(count)
            return None
        if kind not in FORMATS:
            self.bad(f"an array of type {kind}", "an array of numbers or strings")
        form = self.form(FORMATS[kind])
        if count > MAX_ARRAY:
            self.skip(count * form.size)
            return None
        self.keep(count)
        all_of = self.form(FORMATS[kind], count)
        self.need(all_of.size)
        self.at += all_of.size
        return list(all_of.unpack_from(self.window, self.at - all_of.size))

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > MAX_KEPT:
            self.bad(f"more than {MAX_KEPT} values", "fewer to keep")

    def metadata(self, keys: int) -> dict[str, Any]:
        """All keys with their values, None for what is skipped."""
        return dict(self.pairs(keys))

    def pairs(self, keys: int) -> Iterator[tuple[str, Any]]:
        """Each key with its value, the place being behind it."""
        seen: set[str] = set()
        for _ in range(keys):
            key = self.text(MAX_KEY)
            if not key or key in seen:
                self.bad("a key that is empty, too long or there already", "a new key")
            seen.add(key)
            self.keep(len(key))
            value = self.value()
            if key == ALIGNMENT and self.kind != UINT32:
                self.bad(f"{ALIGNMENT} of type {self.kind}", f"type {UINT32}, a number of 32 bits")
            self.skip(0)
            yield key, value

    def tensors(self, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Name, dimensions (the fastest first), type and offset in the data of each tensor."""
        for _ in range(count):
            name = self.text(MAX_NAME)
            if name is None:
                self.bad("a long name of a tensor", f"at most {MAX_NAME} bytes")
            dimensions = self.number(self.word)
            if dimensions > MAX_DIMS:
                self.bad(f"{dimensions} dimensions", f"at most {MAX_DIMS}")
            form = self.form("Q", dimensions) if dimensions else None
            sizes: tuple[int, ...] = ()
            if form:
                self.need(form.size)
                sizes = form.unpack_from(self.window, self.at)
                self.at += form.size
            yield name, sizes, self.number(self.word), self.number(self.long)

    def skip_strings(self, count: int) -> None:
        """Over an array of strings without making one: a length, and a jump."""
        self.strings += count
        if self.strings > MAX_STRINGS or count * 8 > self.size - self.offset:
            self.bad(f"an array of {count} strings", f"at most {MAX_STRINGS}, and what fits in the file")
        unpack, window, at = self.long.unpack_from, self.window, self.at
        last = len(window) - 8
        for _ in range(count):
            if at > last:
                self.at = at
                self.need(8)
                window, at, last = self.window, self.at, len(self.window) - 8
            at += 8 + unpack(window, at)[0]
        self.at = at
        self.skip(0)


def read(path: str) -> Metadata:
    """The metadata of a GGUF file, or of the first part of a split one. BadFile for anything else."""
    with Reader(path) as reader:
        _, keys = reader.header()
        data = reader.metadata(keys)
    found = {key: value for key, value in data.items() if value is not None}
    part = found.get("split.no", 0)
    if part != 0 and "general.architecture" not in found:
        raise BadFile(f"{path}: part {show(part)} of a split file; expected the first part, which holds the metadata")
    try:
        return Metadata(found, path)
    except BadConfig as error:
        raise BadFile(f"{path}: {error}") from None


def read_header(data: bytes, name: str) -> Metadata:
    """The metadata of a GGUF file whose first bytes these are, up to the end of its list of tensors at least; `name` in errors."""
    with Reader(name, MemoryFile(name, data)) as reader:
        tensors, keys = reader.header()
        found = {key: value for key, value in reader.metadata(keys).items() if value is not None}
        names = frozenset(name for name, *_ in reader.tensors(tensors))
    try:
        return Metadata(found, tensors=names)
    except BadConfig as error:
        raise BadFile(f"{name}: {error}") from None


def shortened(data: bytes, name: str) -> bytes:
    """The same header without the keys that are skipped (vocabularies, templates): it reads the same."""
    with Reader(name, MemoryFile(name, data)) as reader:
        tensors, keys = reader.header()
        kept, start = [], reader.offset
        for _, value in reader.pairs(keys):
            if value is not None:
                kept.append(data[start : reader.offset])
            start = reader.offset
        for _ in reader.tensors(tensors):
            pass
        count = reader.long.pack(len(kept))
        return b"".join((data[:16], count, *kept, data[start : reader.offset]))


def tensor_names(path: str) -> frozenset[str]:
    """The names of a file's tensors."""
    with Reader(path) as reader:
        tensors, keys = reader.header()
        reader.metadata(keys)
        return frozenset(name for name, *_ in reader.tensors(tensors))


def is_gguf(path: str) -> bool:
    """Whether a file is one by its name, or begins as one does."""
    if path.endswith(".gguf"):
        return True
    try:
        if not S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as stream:
            return stream.read(4) == MAGIC
    except OSError:
        return False
