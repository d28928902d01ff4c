"""Safetensors files by their headers: eight bytes of length, a JSON object of tensors, and data without holes.

The rules are those of the safetensors package 0.8.0 (`deserialize`, `Metadata::validate` of its tensor.rs). Beyond
them: a name stands once, a tensor is an object and its dtype a string, at most MAX_TENSORS tensors, and no
tensor's text over 8 KiB.
"""

from __future__ import annotations

import re

from ..base import BadFile, show
from . import Tensor
from .scan import SPACE, Scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ..files import File

# 100 MB is the package's own limit. DeepSeek-V3 has 91,991 tensors over 163 files; more than so many in one is damage.
MAX_HEADER, MAX_TENSORS, MAX_NUMBER = 100_000_000, 2**18, 2**64 - 1

# dtypes and their bits, tensor.rs
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

NUMBER = rb"(?:0|[1-9][0-9]{0,19}+)(?![0-9.eE])"
# What every writer makes of a tensor: its three keys, in the order of the package.
usual = re.compile(
    SPACE.join(
        (
            rb"\{", rb'"dtype"', rb":", rb'"([A-Z0-9_]{1,16})"', rb",", rb'"shape"', rb":", rb"\[",
            rb"((?:" + NUMBER + rb"(?:" + SPACE + rb"," + SPACE + NUMBER + rb")*+)?)", rb"\]", rb",", rb'"data_offsets"', rb":", rb"\[",
            rb"(" + NUMBER + rb")", rb",", rb"(" + NUMBER + rb")", rb"\]", rb"\}",
        )
    )
).match  # fmt: skip


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
    scanner = Scanner(file.path, header, 8)
    found: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
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
        dtype, shape, begin, end = record(scanner, name)
        size = data_size(scanner, name, dtype, shape)
        if end - begin != size:
            scanner.bad(
                f"{show(name)}: data_offsets [{begin}, {end}]",
                f"a span of {size} bytes, for {dtype} of {show(str(list(shape)))}",
            )
        found[name] = Tensor(name=name, dtype=dtype, shape=shape, bytes=size)
        spans.append((begin, end))
    scanner.end()
    check_spans(file, spans, 8 + length)
    return list(found.values())


def record(scanner: Scanner, name: str) -> tuple[str, tuple[int, ...], int, int]:
    """One tensor: dtype, shape, and where its data begin and end."""
    found = usual(scanner.text, scanner.at)
    if found:
        scanner.at = found.end()
        shape: Any = [int(size) for size in found[2].split(b",")] if found[2] else []
        dtype, offsets = found[1].decode(), [int(found[3]), int(found[4])]
    else:
        dtype, shape, offsets = unusual(scanner, name)
    if not isinstance(dtype, str) or dtype not in BITS:
        scanner.bad(f"{show(name)}: dtype {show(dtype)}", f"one of {', '.join(BITS)}")
    for key, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(one) is int and 0 <= one <= MAX_NUMBER for one in value):
            scanner.bad(f"{show(name)}: {key} {show(value)}", "a list of integers of 64 bits, 0 or more")
    if len(offsets) != 2:
        scanner.bad(f"{show(name)}: {len(offsets)} data_offsets", "two")
    return dtype, tuple(shape), offsets[0], offsets[1]


def unusual(scanner: Scanner, name: str) -> tuple[Any, Any, Any]:
    """A tensor that is written otherwise: keys in another order, escaped, or with others between them, which don't matter."""
    if not scanner.text.startswith(b"{", scanner.at):
        scanner.bad(f"{show(name)}: {scanner.here()}", "an object: {")
    pairs = scanner.value()
    keys = [key for key, _ in pairs]
    for key in ("dtype", "shape", "data_offsets"):
        if keys.count(key) != 1:
            scanner.bad(f"{show(name)}: {key} {keys.count(key)} times", "it once")
    found = dict(pairs)
    return found["dtype"], found["shape"], found["data_offsets"]


def data_size(scanner: Scanner, name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of the data: the elements in whole bytes, all products within 64 bits."""

    def overflow() -> NoReturn:
        scanner.bad(f"{show(name)}: shape {show(str(list(shape)))}", "a product within 64 bits")

    count = 1
    for size in shape:
        count *= size
        if count > MAX_NUMBER:
            overflow()
    bits = count * BITS[dtype]
    if bits > MAX_NUMBER:
        overflow()
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
