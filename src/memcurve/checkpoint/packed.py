"""Weights as MLX packs them: words of 32 bits, with scales per group of numbers beside them, and biases where the mode has them.

MLX 0.32.4 (mlx.core.quantize): a row of n numbers becomes n · bits / 32 words of uint32, and n / group scales; in mode affine as
many biases, both in the weights' dtype; in mxfp4, mxfp8 and nvfp4 scales of uint8 alone. Which bits and group: the `quantization`
of the config.json beside them, for all or by a layer's name; where it names none, what the shapes leave open
(mlx_lm 0.32.2, utils.py: load_model, infer_quant_config).
"""

from __future__ import annotations

from ..base import BadConfig, BadFile
from . import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from .sources import Place

# Groups and bits of each mode: affine's scales are floats, those of the others bytes, which their words per scale tell apart.
AFFINE = tuple((bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128))
BYTES = ((4, 16), (4, 32), (8, 32))
WORD = 32
MAX_CONFIG = 2**24


def unpacked(tensors: Sequence[Tensor], place: Place) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """The same tensors, those of packed weights with the numbers that they stand for; and a note where that can't be told."""
    found = {tensor.name: tensor for tensor in tensors}
    packed = {name: triple for name in found if (triple := parts_of(name, found)) is not None}
    if not packed:
        return tuple(tensors), ()
    said = quantization(place)
    unknown = 0
    for layer, (words, scales, biases) in packed.items():
        group = group_of(layer.removesuffix(".weight"), words, scales, said)
        if group is None:
            unknown += 1
            continue
        found[words.name] = words.replace(numbers=scales.elements * group)
        for beside in (scales, *biases):
            found[beside.name] = beside.replace(numbers=0)
    if not unknown:
        return tuple(found.values()), ()
    note = (
        f"{unknown:,} packed weights count as stored words: their shapes leave bits and group open, and no config.json beside "
        "them says its quantization"
    )
    return tuple(found.values()), (note,)


def parts_of(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]] | None:
    """The words, scales and biases of a packed weight; None for any other tensor."""
    words = tensors[name]
    if words.dtype != "U32" or not name.endswith("weight") or len(words.shape) < 2:
        return None
    stem = name.removesuffix("weight")
    scales, biases = tensors.get(f"{stem}scales"), tensors.get(f"{stem}biases")
    if scales is None or scales.shape[:-1] != words.shape[:-1] or not scales.elements:
        return None
    if (biases is None) != (scales.dtype == "U8") or (biases is not None and biases.shape != scales.shape):
        return None
    return words, scales, () if biases is None else (biases,)


def group_of(layer: str, words: Tensor, scales: Tensor, said: Mapping[str, Any]) -> int | None:
    """Numbers per scale: as the config says of this layer or of all, if the shapes agree; else the only one that they allow."""
    per_scale = words.shape[-1], scales.shape[-1]
    allowed = [
        (bits, group)
        for bits, group in (BYTES if scales.dtype == "U8" else AFFINE)
        if WORD * per_scale[0] == bits * group * per_scale[1]
    ]
    for level in (said.get(layer), said):
        if isinstance(level, dict) and (level.get("bits"), level.get("group_size")) in allowed:
            return int(level["group_size"])
    groups = {group for _, group in allowed}
    return groups.pop() if len(groups) == 1 else None


def quantization(place: Place) -> Mapping[str, Any]:
    """`quantization` of the config.json beside the weights; empty without one. BadFile for a config that can't be read."""
    for data in config_beside(place):
        for key in ("quantization", "quantization_config"):
            if isinstance(data.get(key), dict):
                found: Mapping[str, Any] = data[key]
                return found
    return {}


def config_beside(place: Place) -> Iterator[Mapping[str, Any]]:
    """The config.json of a place, and its text section; nothing where it has none."""
    if not place.has("config.json"):
        return
    file = place.open("config.json")
    try:
        text = file.read(0, min(file.size, MAX_CONFIG))
    finally:
        file.close()
    from ..config import parse

    try:
        data = parse(text.decode("utf-8-sig"), file.path)
    except (UnicodeDecodeError, BadConfig) as error:
        raise BadFile(str(error)) from None
    yield data
    if isinstance(data.get("text_config"), dict):
        yield data["text_config"]
