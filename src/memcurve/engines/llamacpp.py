"""llama.cpp (commit 0c1e57098, as in llama-cpp-python 0.3.36): the cache tensors that a context allocates.

context is n_ctx, which all sequences share out, and batch n_seq_max. Without kv_unified each sequence has a stream of
its own. Sources, all in src/: llama-context.cpp (llama_context and llama_init_from_model: sizes and refusals),
llama-kv-cache.cpp (keys and values), llama-kv-cache-iswa.cpp (sliding layers), llama-kv-cache-dsv4.cpp (compressed
attention), llama-memory-recurrent.cpp and llama-hparams.cpp (states: n_embd_r, n_embd_s, ple_conv_state).

Every term is one sort of tensor: key and value are llama.cpp's K and V (of attention, latents and indexers alike),
conv_state its R, recurrent_state its S, ple_state its P.
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Refused, assert_never, nearest, show, whole
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
from ..terms import Kept, Limits, collect_terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..layers import Layer
    from ..terms import Expr

    Held = tuple[str, tuple[tuple[str, int], ...], Expr]

OPTIONS = (
    "type_k", "type_v", "flash_attn", "swa_full", "kv_unified", "n_batch", "n_ubatch", "n_rs_seq", "mtp_context",
)  # fmt: skip
# (elements, bytes) of a block of each type that a cache can have (ggml-common.h; kv_cache_types of common/arg.cpp).
BLOCKS = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20),
    "iq4_nl": (32, 18), "q5_0": (32, 22), "q5_1": (32, 24),
}  # fmt: skip
# Keys and values in one type, by bits of an element.
CACHE_DTYPES = tuple({"type_k": name, "type_v": name} for name in ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"))
DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
MAX_SEQ = 256  # LLAMA_MAX_SEQ, llama-cparams.h
PAD = 256  # cells come in multiples of it: GGML_PAD(n_ctx, 256)


class Settings:
    """The options of one context, checked, and what the caches make of them."""

    def __init__(
        self,
        dtype: str,
        type_k: str | None,
        type_v: str | None,
        flash_attn: object,
        swa_full: object,
        kv_unified: object,
        n_batch: int,
        n_ubatch: int,
        n_rs_seq: int,
    ) -> None:
        self.key_type, self.value_type = cache_type("type_k", type_k, dtype), cache_type("type_v", type_v, dtype)
        if not (flash_attn == "auto" or isinstance(flash_attn, bool)):
            raise BadConfig(f'flash_attn: {show(flash_attn)}; expected "auto", True or False')
        self.flash = flash_attn
        self.swa_full, self.unified = flag("swa_full", swa_full), flag("kv_unified", kv_unified)
        self.batch, micro = whole("n_batch", n_batch), whole("n_ubatch", n_ubatch)
        if self.batch == micro == 0:
            raise Refused("n_batch and n_ubatch cannot both be zero")
        # llama_context: n_ubatch = min(n_batch, n_ubatch or n_batch). That n_batch is also capped by n_ctx never counts:
        # where it does, the cells of the whole context are fewer than window + n_ubatch.
        self.micro = min(self.batch, micro or self.batch)
        self.states = 1 + whole("n_rs_seq", n_rs_seq)

    def cells(self, per: int = 1) -> Expr:
        """Cells of a stream for one entry per `per` tokens: 256·⌈T/(256·per·B)⌉, or without B where unified.

        A stream has n_ctx // B cells, padded to 256; up to 256 sequences that is T / B, padded.
        """
        step = PAD * per
        return ("mul", PAD, ("ceil", "context", step if self.unified else ("mul", step, "batch")))

    def window_cells(self, window: int, own_streams: bool) -> Expr:
        """Cells of a stream in a sliding layer: pad(min(cells, window·(B where all share it) + n_ubatch)).

        llama_kv_cache_iswa. T <= window·B + T, so that n_batch's own cap at n_ctx changes nothing.
        """
        if self.swa_full:
            return self.cells()
        held = window + self.micro
        if not self.unified:
            return ("mul", PAD, ("ceil", ("min", "context", ("mul", held, "batch")), ("mul", PAD, "batch")))
        most: Expr = held if own_streams else ("add", ("mul", window, "batch"), self.micro)
        return ("mul", PAD, ("ceil", ("min", "context", most), PAD))


def keep(
    layers: Sequence[Layer],
    dtype: str,
    *,
    type_k: str | None = None,
    type_v: str | None = None,
    flash_attn: object = "auto",
    swa_full: object = False,
    kv_unified: object = False,
    n_batch: int = 2048,
    n_ubatch: int = 512,
    n_rs_seq: int = 0,
    mtp_context: object = False,
    trained_context: int | str = 0,
    mtp_layers: Sequence[Layer] | str = "context type MTP requested but model doesn't contain MTP layers",
    widest_value: int | None = None,
    head_dims: tuple[tuple[int, int], ...] | None = None,
    one_type: bool | None = None,
    own_streams: bool = False,
    index_value: tuple[int, int] = (0, 0),
    rollback: bool = True,
    flash_possible: bool = True,
    causal: bool = True,
) -> Kept:
    """The options, and what the view knows of the model.

    trained_context: what a context of 0 stands for, or why it is refused; mtp_layers: those of an MTP context, or why there is none;
    widest_value: elements of the widest value row of any layer, which all rows are padded to without flash attention;
    head_dims: (key, value) sizes that a block of a quantised type has to divide; one_type: K and V must have one;
    own_streams: a stream per sequence even where unified; index_value: elements of the indexers' value rows, and of the
    widest; rollback: states can be rolled back n_rs_seq tokens; flash_possible: False where flash attention is forced off;
    causal: a step holds no more tokens than the context.
    """
    asked = Settings(dtype, type_k, type_v, flash_attn, swa_full, kv_unified, n_batch, n_ubatch, n_rs_seq)
    if not flash_possible:
        asked.flash = False
    if not rollback:
        asked.states = 1
    all_parts = [part for layer in layers for part in parts(layer)]
    if one_type is None:
        one_type = any(isinstance(part, (LatentAttention, CompressedAttention)) for part in all_parts)
    values = [part for part in all_parts if isinstance(part, (FullAttention, SlidingAttention, ChunkedAttention))]
    if widest_value is None:
        widest_value = max((part.kv_heads * part.v_head_dim for part in values), default=0)
    if head_dims is None:
        head_dims = tuple(dict.fromkeys((part.head_dim, part.v_head_dim) for part in values))
    refuse(asked, head_dims, one_type)
    if flag("mtp_context", mtp_context):
        if isinstance(mtp_layers, str):
            raise Refused(mtp_layers)
        layers, own_streams = mtp_layers, False
    if asked.flash is not False:
        widest_value, index_value = 0, (index_value[0], 0)
    cache = Caches(asked, own_streams, widest_value, max(index_value))
    states = (one for layer in layers for part in parts(layer) for one in keeps_states(part, asked.states))
    kept = (one for layer in layers for part in parts(layer) for one in keeps_cells(part, cache))
    both = asked.key_type if asked.key_type == asked.value_type else f"K {asked.key_type}, V {asked.value_type}"
    shared = asked.unified and not own_streams
    return Kept(
        terms=tuple(term.replace(shared=shared) for term in collect_terms(single(kept)))
        + collect_terms(single(states)),
        dtype=both,
        limits=Limits(
            zero_context=trained_context,
            most_batch=MAX_SEQ,
            step_tokens=asked.batch,
            step_in_context=causal,
            too_many=f"n_seq_max must be <= {MAX_SEQ}",
            # llama_context::output_reserve aborts: one output per sequence, of min(n_ctx, n_batch).
            too_short="GGML_ASSERT(n_outputs_max <= cparams.n_outputs_max) failed: n_seq_max above n_ctx or n_batch",
        ),
    )


class Caches:
    """The caches of keys and values as the context makes them. widest, index_value: elements of padded value rows, 0 without."""

    def __init__(self, asked: Settings, own_streams: bool, widest: int, index_value: int) -> None:
        self.asked, self.own_streams, self.widest, self.index_value = asked, own_streams, widest, index_value

    def key(self, elements: int) -> tuple[tuple[str, int], ...]:
        return (("key", row(self.asked.key_type, elements)),)

    def both(self, keys: int, values: int) -> tuple[tuple[str, int], ...]:
        """K and V of one cell. The V cache is transposed without flash attention, its rows as wide as the widest layer's."""
        value = row(self.asked.value_type, self.widest if self.asked.flash is False else values)
        return (*self.key(keys), ("value", value))

    def window(self, window: int) -> Expr:
        return self.asked.window_cells(window, self.own_streams)


def single(kept: Iterator[Held]) -> Iterator[Held]:
    """A tensor each, so that what K, V, R, S and P take can be told apart."""
    return ((kind, (tensor,), slots) for kind, tensors, slots in kept for tensor in tensors)


def keeps_cells(layer: Layer, cache: Caches) -> Iterator[Held]:
    """What one layer keeps per token: its kind, tensors of (name, bytes per cell), and the cells of a stream."""
    kind, cells = layer.kind, cache.asked.cells
    match layer:
        case FullAttention():
            yield kind, cache.both(layer.kv_heads * layer.head_dim, layer.kv_heads * layer.v_head_dim), cells()
        case SlidingAttention():
            tensors = cache.both(layer.kv_heads * layer.head_dim, layer.kv_heads * layer.v_head_dim)
            yield kind, tensors, cache.window(layer.window)
        case ChunkedAttention():
            tensors = cache.both(layer.kv_heads * layer.head_dim, layer.kv_heads * layer.v_head_dim)
            yield kind, tensors, cache.window(layer.chunk)
        case LatentAttention():
            # llama_kv_cache: K only where is_mla().
            tensors = cache.key(layer.kv_lora_rank + layer.rope_head_dim)
            yield kind, tensors, cells() if layer.window is None else cache.window(layer.window)
        case SparseIndexer():
            # One key head; llama_kv_cache_msa, and llama_kv_cache_dsa outside MLA, keep an unused V beside it.
            value = ("value", row(cache.asked.value_type, cache.index_value))
            yield kind, (*cache.key(layer.head_dim), value), cells()
        case CompressedAttention():
            # llama_kv_cache_dsv4: K only, and a stream per sequence even where unified.
            yield kind, cache.key(layer.head_dim), cache.window(layer.window)
            yield kind, cache.key(layer.head_dim), cells(layer.ratio)
            if layer.index_head_dim:
                yield "sparse indexer", cache.key(layer.index_head_dim), cells(layer.ratio)
        case CrossAttention() | HiddenStates() | RWKV4() | RGLRU() | MatrixLSTM():
            raise NotDescribed(f"engine llamacpp: llama.cpp has no cache for {kind}")
        case (
            GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2() | LightningAttention() | ShortConv() | RWKV()
            | NoState()
        ):  # fmt: skip
            pass
        case Parallel():
            for part in layer.parts:
                yield from keeps_cells(part, cache)
        case _:
            assert_never(layer)


def keeps_states(layer: Layer, states: int) -> Iterator[Held]:
    """What one layer keeps per sequence, in fp32 whatever the cache types: `states` rows, one and those to roll back to."""
    kind = layer.kind
    match layer:
        case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2():
            columns = (layer.conv_kernel or 1) - 1
            yield kind, (("conv_state", layer.conv_channels * columns * 4 * states),), 1
            yield kind, (("recurrent_state", layer.recurrent_elements * 4 * states),), 1
        case LightningAttention():
            yield kind, (("recurrent_state", layer.recurrent_elements * 4 * states),), 1
        case ShortConv():
            # A dilated one is the history of n-gram embeddings, a tensor of its own (ple_conv_state).
            name, columns = (
                ("conv_state", layer.conv_kernel - 1) if layer.columns is None else ("ple_state", layer.columns)
            )
            yield kind, ((name, layer.channels * columns * 4 * states),), 1
        case RWKV():
            yield kind, (("conv_state", 2 * layer.hidden * 4 * states),), 1
            yield kind, (("recurrent_state", layer.recurrent_elements * 4 * states),), 1
        case CompressedAttention():
            # llama_dsv4_comp_state: a compressor for the attention, and one for the indexer.
            halves = 2 if layer.overlap else 1
            for width in (layer.head_dim, layer.index_head_dim):
                size = halves * width * halves * layer.ratio * 4 * states
                yield kind, (("waiting_kv", size), ("waiting_gate", size)), 1
        case (
            FullAttention() | SlidingAttention() | ChunkedAttention() | LatentAttention() | SparseIndexer()
            | CrossAttention() | HiddenStates() | RWKV4() | RGLRU() | MatrixLSTM() | NoState()
        ):  # fmt: skip
            pass
        case Parallel():
            for part in layer.parts:
                yield from keeps_states(part, states)
        case _:
            assert_never(layer)


def refuse(asked: Settings, head_dims: Sequence[tuple[int, int]], one_type: bool) -> None:
    """The combinations of types that llama_init_from_model turns down, in its order and words."""
    key, value = asked.key_type, asked.value_type
    if one_type and key != value:
        raise Refused(f"model does not support different K ({key}) and V ({value}) cache types")
    if BLOCKS[value][0] > 1 and asked.flash is False:
        raise Refused("quantized V cache requires flash_attn to be enabled")
    if asked.flash is False:
        return
    for name, word, sizes in (("K", key, [k for k, _ in head_dims]), ("V", value, [v for _, v in head_dims])):
        block = BLOCKS[word][0]
        for size in sizes:
            if size % block:
                raise Refused(
                    f"{name} cache type {word} with block size {block} does not divide n_embd_head_{name.lower()}={size}"
                )


def row(word: str, elements: int) -> int:
    """Bytes of a row of one cell, in whole blocks (ggml_row_size); ggml_new_tensor aborts where they do not fit."""
    block, size = BLOCKS[word]
    if elements % block:
        raise Refused(
            f"GGML_ASSERT failed in ggml_new_tensor: a row of {elements} elements in blocks of {block} ({word})"
        )
    return elements // block * size


def cache_type(option: str, value: object, dtype: str) -> str:
    """The ggml type of a cache: as given, in either spelling, else that of the curve's dtype."""
    word = dtype if value is None else value
    if isinstance(word, str):
        name = DTYPES.get(word.lower(), word.lower())
        if name in BLOCKS:
            return name
    hint = nearest(str(word), list(BLOCKS), 1)
    raise BadConfig(
        f"{'dtype' if value is None else option}: {show(word)}; expected one of {', '.join(BLOCKS)}"
        + (f" (nearest: {hint})" if hint else "")
    )


def flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadConfig(f"{option}: {show(value)}; expected True or False")
    return value
