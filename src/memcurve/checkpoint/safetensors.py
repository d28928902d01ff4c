"""Safetensors files by their headers: eight bytes of length, a JSON object of tensors, and data without holes.

The rules are those of the safetensors package 0.8.0 (`deserialize`, `Metadata::validate` of its tensor.rs). Beyond
them: a name stands once, a tensor is an object and its dtype a string; at most MAX_HEADER bytes of header,
MAX_TENSORS tensors of MAX_DIMS sizes, and what no writer makes (other keys, escapes) in 8 KiB a tensor, 4 MiB in all.
"""

from __future__ import annotations

import re
from sys import intern

from ..base import BadFile, show
from . import Tensor
from .scan import SPACE, Scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..files import File

# DeepSeek-V3 has 91,991 tensors in all its 163 files. So many in one file, at 128 bytes of header each, are read in
# about a second and 200 MiB; the package's own limit is 100 MB of header, which it never meets.
MAX_HEADER, MAX_TENSORS, MAX_NUMBER = 2**25, 2**18, 2**64 - 1
DTYPE_KEY = b'"dtype"'
MAX_DIMS = 64  # of numpy and of torch

# dtypes and their bits, tensor.rs
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

NUMBER = rb"(?:0|[1-9][0-9]{0,19}+)(?![0-9.eE])"
MORE = SPACE.join((b"", b",", NUMBER))
LIST = SPACE.join((rb"\[", rb"((?:%b(?:%b){0,63}+)?)" % (NUMBER, MORE), rb"\]"))
DTYPE, SHAPE, OFFSETS = (
    SPACE.join((b'"%b"' % key, b":", value))
    for key, value in ((b"dtype", rb'"([A-Z0-9_]{1,16})"'), (b"shape", LIST), (b"data_offsets", LIST))
)
# A tensor as every writer makes it: these three keys, in this order or in another.
usual = re.compile(SPACE.join((rb"\{", DTYPE, b",", SHAPE, b",", OFFSETS, rb"\}"))).match
FIELD = rb"(?:%b|%b|%b)" % (DTYPE, SHAPE, OFFSETS)
fields = re.compile(FIELD).finditer
reordered = re.compile(SPACE.join((rb"\{", FIELD, b",", FIELD, b",", FIELD, rb"\}"))).match


def tensors(file: File) -> list[Tensor]:
    """The tensors of a file, in the order of its header. BadFile for what the package would not read."""
    if file.size < 8:
        raise BadFile(f"{file.path}: {file.size} bytes; expected a safetensors file")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > MAX_HEADER or length + 8 > file.size:
        raise BadFile(
            f"{file.path}: byte 0: a header of {length} bytes; expected at most {min(MAX_HEADER, file.size - 8)} of a safetensors file"
        )
    header = file.read(8, length)
    if len(header) < length:
        raise BadFile(f"{file.path}: the file ends after {8 + len(header)} bytes; expected {8 + length}")
    if header.count(DTYPE_KEY) > MAX_TENSORS:
        raise BadFile(f"{file.path}: {header.count(DTYPE_KEY)} tensors; expected at most {MAX_TENSORS} in one file")
    scanner = Scanner(file.path, header, 8)
    found: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    described = False
    for name in scanner.members():
        if name == "__metadata__":
            if described:
                scanner.bad("__metadata__ again", "it once")
            described = True
            scanner.skip_strings()
            continue
        if name in found or len(found) == MAX_TENSORS:
            scanner.bad(f"{show(name)} again, or more than {MAX_TENSORS} tensors", "fewer, and each once")
        dtype, shape, (begin, end) = record(scanner, name)
        size = data_size(scanner, name, dtype, shape)
        if end - begin != size:
            scanner.bad(
                f"{show(name)}: data_offsets [{begin}, {end}]",
                f"a span of {size} bytes, for {dtype} of {show(str(shape))}",
            )
        own = tuple(shape)
        found[name] = Tensor(name=name, dtype=intern(dtype), shape=shapes.setdefault(own, own), bytes=size)
        spans.append((begin, end))
    scanner.end()
    check_spans(file, spans, 8 + length)
    return list(found.values())


def record(scanner: Scanner, name: str) -> tuple[str, list[int], list[int]]:
    """One tensor: dtype, shape and data_offsets, begin and end."""
    match = usual(scanner.text, scanner.at)
    found = match.groups() if match else ()
    if not match and (match := reordered(scanner.text, scanner.at)):
        values = {one.lastindex or 0: one[one.lastindex or 0] for one in fields(scanner.text, scanner.at, match.end())}
        found = tuple(values[key] for key in sorted(values))
    if match and len(found) == 3:
        scanner.at = match.end()
        dtype, shape, offsets = found[0].decode(), numbers(found[1]), numbers(found[2])
    else:
        dtype, shape, offsets = unusual(scanner, name)
    if dtype not in BITS:
        scanner.bad(f"{show(name)}: dtype {show(dtype)}", f"one of {', '.join(BITS)}")
    if len(offsets) != 2 or len(shape) > MAX_DIMS:
        scanner.bad(f"{show(name)}: {len(shape)} sizes and {len(offsets)} data_offsets", f"at most {MAX_DIMS}, and two")
    return dtype, shape, offsets


def numbers(text: bytes) -> list[int]:
    return [int(word) for word in text.split(b",")] if text else []


def unusual(scanner: Scanner, name: str) -> tuple[str, list[int], list[int]]:
    """A tensor that is written otherwise: escaped, or with other keys, which don't matter."""
    if not scanner.text.startswith(b"{", scanner.at):
        scanner.bad(f"{show(name)}: {scanner.here()}", "an object: {")
    pairs = scanner.value()
    keys = [key for key, _ in pairs]
    for key in ("dtype", "shape", "data_offsets"):
        if keys.count(key) != 1:
            scanner.bad(f"{show(name)}: {key} {keys.count(key)} times", "it once")
    found = dict(pairs)
    if not isinstance(found["dtype"], str):
        scanner.bad(f"{show(name)}: dtype {show(found['dtype'])}", f"one of {', '.join(BITS)}")
    for key in ("shape", "data_offsets"):
        value = found[key]
        if not isinstance(value, list) or not all(type(one) is int and 0 <= one <= MAX_NUMBER for one in value):
            scanner.bad(f"{show(name)}: {key} {show(value)}", "a list of integers of 64 bits, 0 or more")
    return found["dtype"], found["shape"], found["data_offsets"]


def data_size(scanner: Scanner, name: str, dtype: str, shape: list[int]) -> int:
    """Bytes of the data: the elements in whole bytes, all products within 64 bits."""
    count, most = 1, 0
    for size in shape:
        count *= size
        most = max(most, count, size)
    bits = count * BITS[dtype]
    if max(most, bits) > MAX_NUMBER:
        scanner.bad(f"{show(name)}: shape {show(str(shape))}", "a product within 64 bits")
    if bits % 8:
        scanner.bad(f"{show(name)}: {count} elements of {BITS[dtype]} bits", "whole bytes")
    return bits // 8


def check_spans(file: File, spans: list[tuple[int, int]], start: int) -> None:
    """Data without holes or overlaps, to the file's end."""
    spans.sort()
    at = 0
    for begin, end in spans:
        if begin != at:
            raise BadFile(
                f"{file.path}: byte {start + at}: data that begin at {start + begin}; expected {'no hole' if begin > at else 'no overlap'}"
            )
        at = end
    if start + at != file.size:
        raise BadFile(f"{file.path}: {file.size} bytes; expected {start + at}, where the data end")
