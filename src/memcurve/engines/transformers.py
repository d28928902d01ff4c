"""Transformers 5.23.0: what DynamicCache and its kin hold (torch 2.13).

Sources: cache_utils.py (DynamicLayer, DynamicSlidingWindowLayer.update, LinearAttentionLayer), and where a model keeps
a cache of its own, its modeling file. A sliding layer holds W - 1 tokens, a convolution K columns, and delta-rule and
Mamba matrices are fp32 whatever the model's dtype.
"""

from __future__ import annotations

from ..base import BadConfig, assert_never, show, whole
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
from ..terms import Kept
from ..units import dtype_bytes
from .logical import bytes_of, collected, kv, latent, slid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..layers import Layer
    from ..terms import Expr
    from .logical import Held

OPTIONS = ("cache", "max_cache_len", "prompt")
# A cache has the dtype that the model runs in.
CACHE_DTYPES = ({"dtype": "bfloat16"},)
ATTENTION = (FullAttention, SlidingAttention, ChunkedAttention, LatentAttention, CompressedAttention)


def keep(
    layers: Sequence[Layer],
    dtype: str,
    cache: str = "dynamic",
    max_cache_len: int | None = None,
    prompt: int | None = None,
) -> Kept:
    """cache="static" reserves max_cache_len tokens from the start (StaticCache); "dynamic" grows with the context."""
    if cache not in ("dynamic", "static"):
        raise BadConfig(f'cache: {show(cache)}; expected "dynamic" or "static"')
    if (cache == "static") != (max_cache_len is not None):
        raise BadConfig(
            f'max_cache_len: {show(max_cache_len)}; expected a number of tokens with cache="static", and only then'
        )
    if max_cache_len is not None:
        max_cache_len = whole("max_cache_len", max_cache_len, least=1)
    prompt = None if prompt is None else whole("prompt", prompt)
    e = dtype_bytes(dtype)
    if max_cache_len is not None and not any(isinstance(part, ATTENTION) for layer in layers for part in parts(layer)):
        # Models without attention take a cache under another name (cache_params): the StaticCache passed stays empty.
        return Kept(terms=())
    return collected(layers, lambda part: keeps(part, e, max_cache_len, prompt))


def keeps(layer: Layer, e: int, static: int | None, prompt: int | None) -> Iterator[Held]:
    """What one layer keeps: tensors of (name, bytes per slot), and the slots. static: tokens that a StaticCache reserves."""
    full: Expr = "context" if static is None else static
    match layer:
        case FullAttention():
            heads = layer.repeated_to or layer.kv_heads
            tensors = (("key", heads * layer.head_dim * e), ("value", heads * layer.v_head_dim * e))
            yield tensors, full if layer.extra == 0 or static is not None else ("add", "context", layer.extra)
        case SlidingAttention() if layer.keeps_prompt and static is None:
            yield kv(layer, e), slid(layer, layer.window - 1, prompt)
        case SlidingAttention():
            yield kv(layer, e), full if layer.keeps_prompt else windowed(layer.window, static)
        case HiddenStates():
            # XLNetModel.cache_mem (modeling_xlnet.py) cuts to mem_len.
            size = (("hidden_state", layer.width * e),)
            yield size, "context" if layer.window is None else ("min", "context", layer.window)
            # ReformerDynamicCache.update (modeling_reformer.py): no buckets while one chunk holds everything.
            longer = ("min", ("floor", "context", layer.chunk + 1), 1)
            yield (("buckets", layer.buckets * 8),), ("mul", "context", longer)
        case ChunkedAttention():
            yield kv(layer, e), windowed(layer.chunk, static)
        case CrossAttention():
            yield kv(layer, e), "encoder"
        case LatentAttention():
            yield latent(layer, e), full if layer.window is None else windowed(layer.window, static)
        case SparseIndexer():
            yield (("index_key", layer.head_dim * bytes_of(layer.dtype, e)),), full
            # int64 positions, concatenated even beside static index keys (update of modeling_qwen4_exp.py).
            yield (("index_position_ids", layer.position_dims * 8),), "context"
        case CompressedAttention():
            # DeepseekV4HCACache and DeepseekV4CSACache (modeling_deepseek_v4.py): keys and values are one tensor.
            yield (("window_kv", layer.head_dim * e),), windowed(layer.window, None)
            entry = [("compressed_kv", layer.head_dim * e)]
            if layer.index_head_dim:
                entry.append(("index_key", layer.index_head_dim * e))
            yield tuple(entry), ("floor", "context", layer.ratio)
            # What waits does so per compressor: the attention's, and the indexer's where there is one.
            widths = [size for size in (layer.head_dim, layer.index_head_dim) if size]
            halves = 2 if layer.overlap else 1
            waiting = [(name, halves * size * e) for size in widths for name in ("waiting_kv", "waiting_gate")]
            yield tuple(waiting), ("mod", "context", layer.ratio)
            if layer.overlap:
                # The gate has met the fp32 position bias before it is kept.
                each = [(("overlap_kv", size * e), ("overlap_gate", size * 4)) for size in widths]
                held: Expr = ("mul", layer.ratio, ("min", ("floor", "context", layer.ratio), 1))
                yield tuple(tensor for pair in each for tensor in pair), held
        case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2():
            if layer.conv_kernel is not None:
                yield (("conv_state", layer.conv_channels * layer.conv_kernel * e),), 1
            yield (("recurrent_state", layer.recurrent_elements * 4),), 1
        case LightningAttention():
            # MiniMaxCache.linear_cache (modeling_minimax.py) follows the model's dtype.
            yield (("recurrent_state", layer.recurrent_elements * e),), 1
        case ShortConv():
            columns = layer.conv_kernel if layer.columns is None else layer.columns
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
            yield (("token_shift", 2 * layer.hidden * e), ("recurrent_state", layer.recurrent_elements * 4)), 1
        case RWKV4():
            yield (("token_shift", 2 * layer.hidden * e), ("recurrent_state", 3 * layer.attention_hidden * 4)), 1
        case RGLRU():
            # Buffers of the module, not of the cache (modeling_recurrent_gemma.py, _setup_cache).
            yield (("conv_state", layer.width * (layer.conv_kernel - 1) * e), ("recurrent_state", layer.width * 4)), 1
        case MatrixLSTM():
            matrix, normaliser = layer.heads * layer.qk_dim * layer.v_dim, layer.heads * layer.qk_dim
            yield (("matrix", matrix * e), ("normaliser", normaliser * e), ("maximum", layer.heads * e)), 1
        case NoState():
            pass
        case Parallel():
            for part in layer.parts:
                yield from keeps(part, e, static, prompt)
        case _:
            assert_never(layer)


def windowed(window: int, static: int | None) -> Expr:
    """Tokens that a sliding layer holds: the last window - 1, since the next one completes the window; all of it when static.

    A window of 1 is cut with [-0:], which cuts nothing (DynamicSlidingWindowLayer.update).
    """
    if static is not None:
        return min(window, static)
    return "context" if window == 1 else ("min", "context", window - 1)
