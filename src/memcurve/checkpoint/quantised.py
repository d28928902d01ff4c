"""Weights as a checkpoint stores them when its config says that they are quantised: fp8 in blocks, and MXFP4.

fp8: each linear layer's weight in F8_E4M3 and one F32 scale per block (Transformers 5.23.0, integrations/finegrained_fp8.py; the
DeepSeek-V3 report, arXiv:2412.19437, 3.3). mxfp4: experts in blocks of 32 numbers of 4 bits with a scale of 8 (OCP
Microscaling Formats 1.0; integrations/mxfp4.py). Embeddings, heads, norms, routers, convolutions and biases stay as they are.
"""

from __future__ import annotations

import re
from math import prod

from ..base import BadConfig, NotDescribed, show
from ..config import Config
from . import Tensor, Weights
from .parts import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..model import Model

LINEAR = ("attention", "state", "mlp", "experts", "shared")
MX_BLOCK = 32
# Keys that say of some layers that they are stored otherwise than quant_method says of all.
MIXED = ("quant_algo", "moe_quant_algo", "config_groups", "quantized_layers")
# Types whose experts may be stored in another dtype than quant_method says: the key, and the value with which they are not.
APART = {"deepseek_v4": ("expert_dtype", "fp8")}


def quantisation(model: Model) -> Mapping[str, Any] | None:
    """The quantization_config of a model's config, outside or in its decoder's section; None without one."""
    config = model.config
    if not isinstance(config, Config):
        return None
    if (apart := APART.get(model.model_type)) is not None and config.get(apart[0]) != apart[1]:
        raise NotDescribed(
            f"{apart[0]}: {show(config.get(apart[0]))}; experts stored so are not reckoned, expected {apart[1]}: give the checkpoint: --weights F"
        )
    levels = (config.root.get("quantization_config"), config.data.get("quantization_config"))
    return next((level for level in levels if isinstance(level, dict)), None)


def block_of(config: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Rows and columns of a weight that share a scale (weight_block_size); None without such blocks."""
    value = None if config is None else config.get("weight_block_size")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(one, int) and one > 0 for one in value):
        raise BadConfig(f"quantization_config.weight_block_size: {show(value)}; expected two positive integers")
    return value[0], value[1]


def stored(weights: Weights, config: Mapping[str, Any] | None) -> Weights:
    """The same weights as this `quantization_config` stores them. NotDescribed for a method whose sizes are not reckoned here."""
    if config is None:
        return weights
    method, block = config.get("quant_method"), block_of(config)
    mixed = next((key for key in MIXED if key in config), None)
    if mixed is not None and method in ("fp8", "mxfp4"):
        method = f"{method} with {mixed}"
    left = skipped(config.get("modules_to_not_convert"))
    found: list[Tensor] = []
    for tensor, part in zip(weights.tensors, parts(tensor.name for tensor in weights.tensors), strict=True):
        if method == "mxfp4":
            whole = part != "experts" or "bias" in tensor.name or len(tensor.shape) < 2
            found += [tensor] if whole else four_bits(tensor)
        elif method == "fp8" and block is not None:
            whole = part not in LINEAR or not is_linear(tensor, part) or left(tensor.name)
            found += [tensor] if whole else eight_bits(tensor, block)
        else:
            raise NotDescribed(
                f"quantization_config.quant_method: {show(method)}; what it stores is not reckoned from a config, expected fp8 in blocks "
                "or mxfp4: give the checkpoint (--weights)"
            )
    note = f"stored as {method} as its quantization_config says: embedding, head, norms, routers and biases as they are"
    return weights.replace(tensors=tuple(found), notes=(*weights.notes, note))


def is_linear(tensor: Tensor, part: str) -> bool:
    """A matrix of a linear layer, or of all experts one after the other; no norm, bias or convolution."""
    if "bias" in tensor.name or "norm" in tensor.name:
        return False
    return len(tensor.shape) == 2 or (part == "experts" and len(tensor.shape) == 3)


def skipped(modules: object) -> Callable[[str], bool]:
    """Whether a name lies in one of modules_to_not_convert: whole words of it, * for any."""
    if not isinstance(modules, list) or not modules:
        return lambda name: False
    forms = "|".join(re.escape(str(one)).replace(r"\*", r"[^.]+") for one in modules)
    pattern = re.compile(rf"(?:^|\.)(?:{forms})(?:\.|$)")
    return lambda name: pattern.search(name) is not None


def eight_bits(tensor: Tensor, block: tuple[int, int]) -> Iterator[Tensor]:
    rows, columns = tensor.shape[-2:]
    scales = (*tensor.shape[:-2], -(-rows // block[0]), -(-columns // block[1]))
    yield tensor.replace(dtype="F8_E4M3", bytes=tensor.elements)
    yield Tensor(name=f"{tensor.name}_scale_inv", dtype="F32", shape=scales, bytes=4 * prod(scales))


def four_bits(tensor: Tensor) -> Iterator[Tensor]:
    count = tensor.elements
    yield tensor.replace(name=f"{tensor.name}_blocks", dtype="F4", bytes=count // 2)
    yield tensor.replace(name=f"{tensor.name}_scales", dtype="U8", shape=(count // MX_BLOCK,), bytes=count // MX_BLOCK)
