"""The paper's count: what a perfect implementation keeps.

min(T, W) tokens for a window W, K - 1 columns for a convolution of kernel K, recurrent matrices in fp32 (option
`state_dtype`), everything else in the model's dtype. No padding, no pages; tokens that wait for a compressed entry to
fill are not counted, as in the published figures.
"""

from __future__ import annotations

from ..base import assert_never
from ..curve import Term, collect_terms
from ..layers import (
    RGLRU,
    RWKV,
    RWKV4,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    MatrixLSTM,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
    SparseIndexer,
    parts,
)  # fmt: skip
from ..units import dtype_bytes, dtype_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..curve import Expr
    from ..layers import Layer

    Kept = tuple[tuple[tuple[str, int], ...], Expr]

OPTIONS = ("state_dtype",)


def terms(layers: Sequence[Layer], dtype: str, state_dtype: str = "float32") -> tuple[Term, ...]:
    e, s = dtype_bytes(dtype), dtype_bytes(dtype_name(state_dtype, "state_dtype"))
    return collect_terms((part.kind, *kept) for layer in layers for part in parts(layer) for kept in keeps(part, e, s))


def keeps(layer: Layer, e: int, s: int) -> Iterator[Kept]:
    """What one layer keeps: tensors of (name, bytes per slot), and the slots. e, s: bytes of the model's and of a state's element."""
    match layer:
        case FullAttention():
            yield kv(layer, e), "context"
        case SlidingAttention():
            yield kv(layer, e), ("min", "context", layer.window)
        case ChunkedAttention():
            yield kv(layer, e), ("min", "context", layer.chunk)
        case CrossAttention():
            yield kv(layer, e), "encoder"
        case LatentAttention():
            yield latent(layer, e), "context" if layer.window is None else ("min", "context", layer.window)
        case SparseIndexer():
            yield (("index_key", layer.head_dim * e),), "context"
        case CompressedAttention():
            yield (("window_kv", layer.head_dim * e),), ("min", "context", layer.window)
            entry = [("compressed_kv", layer.head_dim * e)]
            if layer.index_head_dim:
                entry.append(("index_key", layer.index_head_dim * e))
            yield tuple(entry), ("floor", "context", layer.ratio)
        case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2():
            if layer.conv_kernel is not None:
                yield (("conv_state", layer.conv_channels * (layer.conv_kernel - 1) * e),), 1
            yield (("recurrent_state", layer.recurrent_elements * s),), 1
        case LightningAttention():
            yield (("recurrent_state", layer.recurrent_elements * s),), 1
        case ShortConv():
            columns = layer.conv_kernel - 1 if layer.columns is None else layer.columns
            yield (
                (
                    (
                        "conv_state",
                        layer.channels * columns * (e if layer.dtype == "model" else dtype_bytes(layer.dtype)),
                    ),
                ),
                1,
            )
        case RWKV():
            yield (("token_shift", 2 * layer.hidden * e), ("recurrent_state", layer.recurrent_elements * s)), 1
        case RWKV4():
            yield (("token_shift", 2 * layer.hidden * e), ("recurrent_state", 3 * layer.attention_hidden * s)), 1
        case RGLRU():
            yield (("conv_state", layer.width * (layer.conv_kernel - 1) * e), ("recurrent_state", layer.width * s)), 1
        case MatrixLSTM():
            matrix, normaliser = layer.heads * layer.qk_dim * layer.v_dim, layer.heads * layer.qk_dim
            yield (("matrix", matrix * s), ("normaliser", normaliser * s), ("maximum", layer.heads * s)), 1
        case NoState():
            pass
        case Parallel():
            for part in layer.parts:
                yield from keeps(part, e, s)
        case _:
            assert_never(layer)


def kv(
    layer: FullAttention | SlidingAttention | ChunkedAttention | CrossAttention, e: int
) -> tuple[tuple[str, int], ...]:
    """key and value of one token in one layer."""
    return ("key", layer.kv_heads * layer.head_dim * e), ("value", layer.kv_heads * layer.v_head_dim * e)


def latent(layer: LatentAttention, e: int) -> tuple[tuple[str, int], ...]:
    """latent and rope_key of one token in one layer; no rope_key without rotary dimensions."""
    both = ("latent", layer.kv_lora_rank * e), ("rope_key", layer.rope_head_dim * e)
    return both if layer.rope_head_dim else both[:1]
