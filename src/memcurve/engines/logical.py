"""The paper's count: what a perfect implementation keeps.

min(T, W) tokens for a window W, K - 1 columns for a convolution of kernel K, recurrent matrices in fp32 (option
`state_dtype`), everything else in the model's dtype. No padding, no pages; tokens that wait for a compressed entry to
fill are not counted, as in the published figures.
"""

from __future__ import annotations

from ..base import assert_never, whole
from ..layers import (
    RGLRU,
    RWKV,
    RWKV4,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaNet,
    HiddenStates,
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
from ..terms import Kept, collect_terms
from ..units import dtype_bytes, dtype_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..layers import Layer
    from ..terms import Expr

    Held = tuple[tuple[tuple[str, int], ...], Expr]

OPTIONS = ("state_dtype", "prompt")
CACHE_DTYPES = ({"dtype": "bfloat16"}, {"dtype": "float8_e4m3fn"})


def keep(layers: Sequence[Layer], dtype: str, state_dtype: str = "float32", prompt: int | None = None) -> Kept:
    """prompt: tokens of the context that were the prompt (all of them, if None); only few models ask."""
    e, s = dtype_bytes(dtype), dtype_bytes(dtype_name(state_dtype, "state_dtype"))
    prompt = None if prompt is None else whole("prompt", prompt)
    return collected(layers, lambda part: keeps(part, e, s, prompt))


def collected(layers: Sequence[Layer], keeps: Callable[[Layer], Iterator[Held]]) -> Kept:
    """The terms of all that the layers' parts keep, each part asked on its own."""
    held = ((part.kind, *kept) for layer in layers for part in parts(layer) for kept in keeps(part))
    return Kept(terms=collect_terms(held))


def keeps(layer: Layer, e: int, s: int, prompt: int | None = None) -> Iterator[Held]:
    """What one layer keeps: tensors of (name, bytes per slot), and the slots. e, s: bytes of the model's and of a state's element."""
    match layer:
        case FullAttention():
            yield kv(layer, e), "context" if layer.extra == 0 else ("add", "context", layer.extra)
        case SlidingAttention():
            yield kv(layer, e), slid(layer, layer.window, prompt)
        case HiddenStates():
            size = (("hidden_state", layer.width * e),)
            yield size, "context" if layer.window is None else ("min", "context", layer.window)
        case ChunkedAttention():
            yield kv(layer, e), ("min", "context", layer.chunk)
        case CrossAttention():
            yield kv(layer, e), "encoder"
        case LatentAttention():
            yield latent(layer, e), "context" if layer.window is None else ("min", "context", layer.window)
        case SparseIndexer():
            yield (("index_key", layer.head_dim * bytes_of(layer.dtype, e)),), "context"
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
                        layer.channels * columns * bytes_of(layer.dtype, e),
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
                yield from keeps(part, e, s, prompt)
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


def slid(layer: SlidingAttention, held: int, prompt: int | None) -> Expr:
    """Tokens in a layer whose window holds `held`: on top of the prompt where that stays, which is the whole context if unsaid."""
    if not layer.keeps_prompt:
        return ("min", "context", held)
    return "context" if prompt is None else ("min", "context", prompt + held)


def bytes_of(dtype: str, e: int) -> int:
    """Bytes of an element in the model's dtype, or in one of the layer's own."""
    return e if dtype == "model" else dtype_bytes(dtype)
