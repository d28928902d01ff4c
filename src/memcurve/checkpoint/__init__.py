"""Weights: what the parameters of a model take, tensor by tensor, as stored."""

from __future__ import annotations

from functools import cached_property

from ..base import Record


class Tensor(Record):
    """One stored tensor: its name, the dtype's stored name (BF16, Q4_K), its shape, slowest axis first, and its data bytes.

    numbers: those of the model that it stands for, where its elements are packed words, or scales of them (packed.py).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    numbers: int | None = None

    @property
    def elements(self) -> int:
        """Numbers in it: the product of the shape; 1 for a scalar."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class Weights(Record):
    """All tensors of a checkpoint, or of the model that a config describes.

    source: the file, folder or hub id, or the model's name. estimated: reckoned from a config instead of read from files.
    """

    source: str
    tensors: tuple[Tensor, ...]
    estimated: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def bytes(self) -> int:
        """Data bytes as stored; headers and padding between tensors are not counted."""
        return sum(tensor.bytes for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Numbers of the model: the elements of all tensors, what MLX packed counted as the numbers that it stands for."""
        return sum(tensor.elements if tensor.numbers is None else tensor.numbers for tensor in self.tensors)

    @cached_property
    def by_dtype(self) -> dict[str, int]:
        """Bytes per stored dtype, the most first."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.bytes
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def by_part(self) -> dict[str, int]:
        """Bytes per part of the model, in the order of PARTS: embedding, attention, state, mlp and so on."""
        from .parts import PARTS, parts

        found = dict.fromkeys(PARTS, 0)
        for tensor, part in zip(self.tensors, parts(tensor.name for tensor in self.tensors), strict=True):
            found[part] += tensor.bytes
        return {part: size for part, size in found.items() if size}
