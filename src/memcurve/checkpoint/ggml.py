"""Tensors of GGUF files: ggml's types, and where the data of each tensor lie.

The rules are those of gguf_init_from_reader (ggml/src/gguf.cpp) and of llama_model_loader (src/llama-model-loader.cpp) at
llama.cpp 0c1e57098.
"""

from __future__ import annotations

import os

from ..base import BadFile, show
from ..gguf import ALIGNMENT, Reader
from . import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..files import File
    from .sources import Place

# ggml's types by number (enum ggml_type, ggml.h): name, elements per block and bytes per block (type_traits, ggml.c).
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
MAX_SIZE = 2**63 - 1
MAX_PARTS = 2**10


def part(file: File) -> tuple[dict[str, Any], list[Tensor]]:
    """The metadata and the tensors of one file, each checked to lie where it must, and within the file."""
    path = file.path
    with Reader(path, file) as reader:
        count, keys = reader.header()
        data = reader.metadata(keys)
        alignment = data.get(ALIGNMENT, 32)
        if not alignment or alignment & (alignment - 1):
            raise BadFile(f"{path}: {ALIGNMENT}: {alignment}; expected a power of two")
        found: dict[str, Tensor] = {}
        at, ends = 0, [0]
        for name, dims, kind, offset in reader.tensors(count):
            if name in found:
                reader.bad(f"tensor {show(name)} again", "each once")
            tensor = checked(reader, name, dims, kind)
            if offset != at:
                reader.bad(f"{show(name)}: offset {offset}", f"{at}, where the data before end, aligned to {alignment}")
            ends.append(at + tensor.bytes)
            at += -(-tensor.bytes // alignment) * alignment
            found[name] = tensor
        start = -(-reader.offset // alignment) * alignment if count else reader.offset
        if start + max(ends) > reader.size:
            raise BadFile(f"{path}: {reader.size} bytes; expected {start + max(ends)}, where the data end")
    return data, list(found.values())


def checked(reader: Reader, name: str, dims: tuple[int, ...], kind: int) -> Tensor:
    """A tensor with its bytes: rows of whole blocks, and all products within 63 bits."""
    if kind not in TYPES:
        reader.bad(f"{show(name)}: type {kind}", f"a type of ggml, up to {max(TYPES)}")
    word, block, size = TYPES[kind]
    count = 1
    for one in dims:
        count *= one
        if one > MAX_SIZE or count > MAX_SIZE:
            reader.bad(f"{show(name)}: dimensions {show(str(list(dims)))}", "a product within 63 bits")
    row = dims[0] if dims else 1
    if row % block:
        reader.bad(f"{show(name)}: rows of {row} in {word}", f"a multiple of {block}")
    taken = count // block * size
    if taken > MAX_SIZE:
        reader.bad(f"{show(name)}: {taken} bytes", "what 63 bits hold")
    return Tensor(name=name, dtype=word, shape=dims[::-1], bytes=taken)


def tensors(place: Place, name: str) -> list[Tensor]:
    """The tensors of a GGUF file, and of all parts of a split one, given by its first."""
    data, found = part(place.open(name))
    count, number = data.get("split.count", 0), data.get("split.no", 0)
    if type(count) is not int or type(number) is not int:
        raise BadFile(f"{name}: split.count {show(count)}, split.no {show(number)}; expected numbers")
    if count <= 1:
        return found
    tail = f"-00001-of-{count:05d}.gguf"
    if number or count > MAX_PARTS or not name.endswith(tail):
        raise BadFile(
            f"{name}: part {number + 1} of {count}; expected the first of at most {MAX_PARTS}, named …-00001-of-{count:05d}.gguf"
        )
    names = {tensor.name for tensor in found}
    for index in range(1, count):
        other = f"{name.removesuffix(tail)}-{index + 1:05d}-of-{count:05d}.gguf"
        own, more = part(place.open(other))
        if own.get("split.no") != index or own.get("split.count", count) != count:
            raise BadFile(
                f"{other}: split.no {show(own.get('split.no'))} of {show(own.get('split.count'))}; expected {index} of {count}"
            )
        for tensor in more:
            if tensor.name in names:
                raise BadFile(f"{other}: {show(tensor.name)} is in a part before; expected each tensor once")
            names.add(tensor.name)
        found += more
    told = data.get("split.tensors.count")
    if told != len(found):
        raise BadFile(f"{name}: split.tensors.count {show(told)}; expected {len(found)}, as the parts hold")
    return found


def split_of(path: str) -> tuple[str, int, int] | None:
    """Stem, number and count of a name such as model-00001-of-00003.gguf; None for any other."""
    stem, ending = os.path.splitext(path)
    words = stem.rsplit("-", 3)
    if len(words) != 4 or words[2] != "of" or not all(len(w) == 5 and w.isascii() and w.isdigit() for w in words[1::2]):
        return None
    return words[0] + "-" + ending, int(words[1]), int(words[3])
