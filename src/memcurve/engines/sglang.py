"""SGLang 0.5.23, one rank: a pool of tokens that requests share, one more where layers slide, and slots of states.

Sources, under sglang/srt: mem_cache/memory_pool.py and swa_memory_pool.py (tensors of the pools),
model_executor/pool_configurator.py (bytes of a token), configs/mamba_utils.py (shapes of states under tensor
parallelism); how memory becomes pools is in sglang_pools. The count is of one rank of tensor parallelism on an NVIDIA
GPU, an H100 where it matters.

What a request takes: its tokens in whole pages; in sliding layers at most what SGLang plans for one, the window, an
eviction interval of 128 tokens and two pages (compute_swa_request_cap); and the state slot that it runs on, with those
that track it under mamba_radix_cache_strategy extra_buffer (HybridReqToTokenPool.alloc). The pool reckons more slots
for a running request than it takes, since the radix cache keeps states of prefixes: three, or five.
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Record, Refused, assert_never, whole
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
from ..units import dtype_bytes
from . import sglang_options as option
from . import sglang_v4
from .ranks import replicated
from .sglang_options import EVICTION_INTERVAL, TRACKING
from .sglang_pools import SGLangAllocator, StatePool, TokenPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..layers import Layer
    from ..terms import Expr

    Tensors = tuple[tuple[str, int], ...]

OPTIONS = (
    "tp_size", "dp_size", "attn_dp_size", "enable_dp_attention", "page_size", "kv_cache_dtype", "context_length",
    "max_running_requests", "max_total_tokens", "chunked_prefill_size", "disable_radix_cache", "disable_overlap_schedule",
    "swa_full_tokens_ratio", "disable_hybrid_swa_memory", "mamba_full_memory_ratio", "max_mamba_cache_size",
    "mamba_ssm_dtype", "mamba_radix_cache_strategy", "speculative_algorithm", "speculative_num_draft_tokens",
    "speculative_eagle_topk", "dsa_prefill_backend", "dsa_decode_backend",
)  # fmt: skip

# DSATokenToKVPool.quant_block_size and the fp32 scale of a block; MXFP8_SCALE_BLOCK_SIZE
BLOCK, SCALE, MXFP8_BLOCK = 128, 4, 32
# mamba2_state_dtype: convolutions are bf16 whatever the model's dtype (SGLANG_MAMBA_CONV_DTYPE)
CONV_BYTES = 2


class Rank(Record):
    """What one rank keeps is reckoned with: its share, bytes of an element, and how SGLang stores this model.

    e: of keys and values; index: of plain index keys; s: of a recurrent state. latent_fp8: sparse attention's latents
    are packed with scales and rotary keys in bf16. conv_heads: heads that a convolution's channels belong to, which
    tensor parallelism splits and replicates like those of keys; beside: convolutions with a pool of their own, whole on
    every rank, that the configurator does not count. stored_as_full: sliding layers are allocated with the
    sizes of full ones; values_as_keys: values with the size of keys.
    """

    tp: int
    e: int
    index: int
    s: int
    mxfp8: bool
    latent_fp8: bool
    conv_heads: tuple[tuple[Layer, int], ...]
    beside: tuple[Layer, ...]
    index_group: int
    index_ratio: int
    stored_as_full: FullAttention | None
    values_as_keys: bool

    def split(self, count: int, what: str) -> int:
        """distributed/utils.py, divide."""
        if count % self.tp:
            raise Refused(f"{count} is not divisible by {self.tp} ({what}, tp_size)")
        return count // self.tp

    def heads(self, count: int) -> int:
        """ModelConfig.get_num_kv_heads: fewer heads than ranks are repeated."""
        return max(1, count // self.tp)


class Held(Record):
    """What one layer keeps of a token: its tensors in bytes, the pool that holds them, and the configurator's count."""

    kind: str
    pool: str
    cls: str
    tensors: tuple[tuple[str, int], ...]
    cell_bytes: int
    sliding: bool = False
    per: str = "token"
    group: int = 1


def keep(
    layers: Sequence[Layer],
    dtype: str,
    model: Mapping[str, Any] | None = None,
    *,
    tp_size: int = 1,
    dp_size: int = 1,
    attn_dp_size: int = 1,
    enable_dp_attention: bool = False,
    page_size: int | None = None,
    kv_cache_dtype: str = "auto",
    context_length: int | None = None,
    max_running_requests: int | None = None,
    max_total_tokens: int | None = None,
    chunked_prefill_size: int | None = None,
    disable_radix_cache: bool = False,
    disable_overlap_schedule: bool = False,
    swa_full_tokens_ratio: float | None = None,
    disable_hybrid_swa_memory: bool = False,
    mamba_full_memory_ratio: float | None = None,
    max_mamba_cache_size: int | None = None,
    mamba_ssm_dtype: str | None = None,
    mamba_radix_cache_strategy: str | None = None,
    speculative_algorithm: str | None = None,
    speculative_num_draft_tokens: int | None = None,
    speculative_eagle_topk: int | None = None,
    dsa_prefill_backend: str | None = None,
    dsa_decode_backend: str | None = None,
) -> Kept:
    """model: what the view of a model knows beside its layers (views/sglang.py); nothing for a pattern of layers.

    mamba_radix_cache_strategy None: the configurator's own reckoning, three slots for a running request.
    """
    facts: Mapping[str, Any] = model or {}
    if kv_cache_dtype == "auto":
        # A dtype that only a cache can have is asked for the cache.
        kv_cache_dtype = {"float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2"}.get(dtype, "auto")
    option.flags(
        enable_dp_attention=enable_dp_attention,
        disable_radix_cache=disable_radix_cache,
        disable_overlap_schedule=disable_overlap_schedule,
        disable_hybrid_swa_memory=disable_hybrid_swa_memory,
    )
    tp, workers = option.ranks(tp_size, dp_size, attn_dp_size, enable_dp_attention)
    page = whole("page_size", facts.get("page_size", 1) if page_size is None else page_size, 1)
    drafts, draft_layers = option.drafts(
        speculative_algorithm, speculative_num_draft_tokens, facts.get("draft_layers", 0)
    )
    if max_running_requests is not None:
        requests: int | None = max(1, whole("max_running_requests", max_running_requests, 1) // workers)
    else:
        requests = max(1, 48 // workers) if drafts is not None else None  # speculative_hook.py
    strategy = option.strategy(
        mamba_radix_cache_strategy,
        page,
        disable_radix_cache,
        disable_overlap_schedule,
        facts.get("extra_buffer", False),
    )
    flat = [part for layer in layers for part in parts(layer)]
    heads = (FullAttention, SlidingAttention, ChunkedAttention)
    uneven = option.check_heads(
        tp, facts.get("attention_heads"), {part.kv_heads for part in flat if isinstance(part, heads)}
    )
    if dtype == "int8":
        raise BadConfig("dtype: 'int8'; expected bfloat16, float16 or float32 (kv_cache_dtype is the cache's)")
    if any(isinstance(part, CompressedAttention) for part in flat):
        sizing = sglang_v4.Sizing(
            page=page,
            swa_ratio=option.ratio("swa_full_tokens_ratio", swa_full_tokens_ratio, 0.1, 1.0),
            requests=requests,
            max_tokens=None if max_total_tokens is None else whole("max_total_tokens", max_total_tokens, 1),
            kv_cache_dtype=kv_cache_dtype,
            drafts=drafts,
        )
        return sglang_v4.keep(flat, sizing)
    if disable_hybrid_swa_memory:
        flat = [facts.get("full", _full(part)) if _slides(part) else part for part in flat]
    has_state = any(isinstance(part, STATES) for part in flat)
    mxfp8 = kv_cache_dtype == "mxfp8"
    rank = Rank(
        tp=tp,
        e=option.kv_bytes(kv_cache_dtype, dtype, facts.get("fp8_cache", False), facts.get("sparse", False)),
        # get_minimax_sparse_index_dtype on an H100
        index=1 if kv_cache_dtype == "fp8_e4m3" else dtype_bytes(dtype),
        s=option.state_bytes(mamba_ssm_dtype, facts.get("state_dtype", "float32")),
        mxfp8=mxfp8,
        latent_fp8=option.packed(kv_cache_dtype, dsa_prefill_backend, dsa_decode_backend),
        conv_heads=tuple(facts.get("conv_heads", ())),
        beside=tuple(facts.get("beside", ())),
        index_group=facts.get("index_group", 1),
        index_ratio=facts.get("index_ratio", 0),
        stored_as_full=facts.get("stored_as_full"),
        values_as_keys=has_state,
    )
    held = list(tokens_of(flat, rank))
    states = _states(flat, rank, drafts, speculative_eagle_topk) if has_state else None
    own = 1 + (TRACKING[strategy] if strategy else 0)
    if strategy == "extra_buffer" and disable_overlap_schedule:
        own -= 1
    pools = _pools(held)
    hybrid = any(pool.sliding for pool in pools)
    window = facts["window"] if "window" in facts else max((_window(part) for part in flat), default=0) or None
    by_requests = hybrid and disable_radix_cache and requests is not None and window is not None
    by_requests = by_requests and any(not pool.sliding for pool in pools)
    allocator = SGLangAllocator(
        page=page,
        pools=(*pools, *_draft_pools(pools, draft_layers, facts.get("draft_sliding"))),
        states=states,
        hybrid=hybrid,
        window=window,
        swa_ratio=option.ratio(
            "swa_full_tokens_ratio", swa_full_tokens_ratio, facts.get("swa_full_tokens_ratio", 0.8), 1.0
        ),
        swa_cap=option.swa_cap(requests, window, page, drafts, chunked_prefill_size, disable_overlap_schedule)
        if by_requests
        else None,
        state_ratio=option.ratio(
            "mamba_full_memory_ratio", mamba_full_memory_ratio, facts.get("mamba_full_memory_ratio", 0.9)
        ),
        state_slots=option.slots(max_mamba_cache_size, workers, requests if disable_radix_cache else None),
        slots_per_request=1 if disable_radix_cache else 2 + own,
        held_slots=own,
        draft_tokens=drafts,
        requests=requests,
        one_slot=disable_radix_cache and max_mamba_cache_size is None,
        max_tokens=None if max_total_tokens is None else whole("max_total_tokens", max_total_tokens, 1),
        context_length=option.context(context_length, facts.get("context_length")),
        request_bytes=sum(_request_bytes(part, rank, facts, drafts) for part in flat),
        request_padding=2 if rank.index_group > 1 else 1,
        # memory_hook.py: 8,192 on an H100
        chunk=8192 if chunked_prefill_size is None else whole("chunked_prefill_size", chunked_prefill_size, 1),
        ahead=not disable_overlap_schedule,
    )
    notes = [*uneven, *replicated(layers, tp), *facts.get("notes", ())]
    if drafts is not None and not draft_layers and str(speculative_algorithm).upper() not in option.NO_DRAFT_MODEL:
        notes.append("the draft's own checkpoint has a pool beside this one, which is not counted")
    if (
        states is not None
        and mamba_radix_cache_strategy is None
        and facts.get("extra_buffer")
        and not disable_radix_cache
    ):
        notes.append(
            "three state slots are reckoned for a running request; a server on a GPU resolves mamba_radix_cache_strategy "
            '"auto" to extra_buffer for this model, which makes them five: give it to count so'
        )
    terms = collect_terms([*_token_terms(held, page, window, drafts), *_state_terms(flat, rank, own)])
    return Kept(terms=terms, notes=tuple(notes), allocator=allocator)


# -- tokens -------------------------------------------------------------------------------------------------------


def tokens_of(flat: Sequence[Layer], rank: Rank) -> Iterator[Held]:
    """What each layer keeps of every token."""
    sparse = any(isinstance(part, SparseIndexer) for part in flat) and any(isinstance(p, LatentAttention) for p in flat)
    for part in flat:
        match part:
            case FullAttention():
                yield _heads(part, part, rank)
            case SlidingAttention() | ChunkedAttention():
                yield _heads(part, rank.stored_as_full or part, rank)
            case LatentAttention():
                yield _latent(part, rank, sparse)
            case SparseIndexer():
                yield _index(part, rank, sparse)
            case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2() | LightningAttention() | ShortConv():
                pass
            case NoState() | Parallel():
                pass
            case CrossAttention() | HiddenStates() | CompressedAttention() | RWKV() | RWKV4() | RGLRU() | MatrixLSTM():
                raise NotDescribed(f"{part.kind} has no pool in engine sglang; nearest: {FullAttention.kind}")
            case _:
                assert_never(part)


def _heads(
    layer: FullAttention | SlidingAttention | ChunkedAttention,
    stored: FullAttention | SlidingAttention | ChunkedAttention,
    rank: Rank,
) -> Held:
    """MHATokenToKVPool: key [heads, head_dim], value [heads, v_head_dim]. The configurator counts the layer's own sizes."""
    heads, keys = rank.heads(stored.kv_heads), stored.head_dim
    values = keys if rank.values_as_keys else stored.v_head_dim
    tensors = [("key", heads * keys * rank.e), ("value", heads * values * rank.e)]
    counted = rank.heads(layer.kv_heads) * (layer.head_dim + layer.v_head_dim)
    cls = "MHATokenToKVPool"
    if rank.mxfp8:
        if keys % MXFP8_BLOCK or values % MXFP8_BLOCK:
            raise Refused(f"MXFP8 KV cache requires head_dim divisible by {MXFP8_BLOCK}, got {keys} and {values}.")
        tensors += [("key_scale", heads * keys // MXFP8_BLOCK), ("value_scale", heads * values // MXFP8_BLOCK)]
        cls = "MHATokenToKVPoolMXFP8"
    sliding = not isinstance(layer, FullAttention)
    return Held(
        kind=layer.kind,
        pool="swa kv" if sliding else "kv",
        cls=cls,
        tensors=tuple(tensors),
        cell_bytes=counted * rank.e + (counted // MXFP8_BLOCK if rank.mxfp8 else 0),
        sliding=sliding,
    )


def _latent(layer: LatentAttention, rank: Rank, sparse: bool) -> Held:
    """MLATokenToKVPool: the latent and the rotary key, whole on every rank.

    Beside an indexer an fp8 latent has an fp32 scale per 128 elements, and the rotary key stays bf16
    (calculate_mla_kv_cache_dim).
    """
    lora, rope = layer.kv_lora_rank, layer.rope_head_dim
    if rank.mxfp8:
        raise NotDescribed("kv_cache_dtype mxfp8 with latent attention is not described; nearest: fp8_e4m3")
    tensors = [("latent", lora * rank.e), ("rope_key", rope * rank.e)]
    if sparse and rank.latent_fp8 and layer.window is None:
        if lora % BLOCK:
            raise Refused(f"kv_lora_rank {lora} must be multiple of quant_block_size {BLOCK}")
        tensors = [("latent", lora), ("scale", lora // BLOCK * SCALE), ("rope_key", 2 * rope)]
    sliding = layer.window is not None
    return Held(
        kind=layer.kind,
        pool="swa latent" if sliding else "latent",
        cls="DSATokenToKVPool" if sparse and not sliding else "MLATokenToKVPool",
        tensors=tuple(tensors),
        cell_bytes=sum(size for _, size in tensors),
        sliding=sliding,
    )


def _index(layer: SparseIndexer, rank: Rank, sparse: bool) -> Held:
    """Index keys: fp8 with an fp32 scale per 128 beside latents (IndexKeyCache), plain beside keys and values.

    index_group tokens share one of the former; index_ratio tokens one of the latter, in bf16 (QSATokenToKVPool).
    """
    if sparse:
        size = layer.head_dim + layer.head_dim // BLOCK * SCALE
        return Held(
            kind=layer.kind,
            pool="index",
            cls="IndexKeyCache",
            tensors=(("index_key", size),),
            cell_bytes=-(-size // rank.index_group),
            per="page",
            group=rank.index_group,
        )
    if rank.index_ratio:
        size = layer.head_dim * 2
        return Held(
            kind=layer.kind,
            pool="index",
            cls="QSATokenToKVPool",
            tensors=(("index_key", size),),
            cell_bytes=size // rank.index_ratio,
            per="group",
            group=rank.index_ratio,
        )
    size = layer.head_dim * rank.index
    return Held(
        kind=layer.kind, pool="index", cls="MHATokenToKOnlyPool", tensors=(("index_key", size),), cell_bytes=size
    )


def _pools(held: Iterable[Held]) -> tuple[TokenPool, ...]:
    found: dict[str, TokenPool] = {}
    for one in held:
        size = sum(size for _, size in one.tensors)
        old = found.get(one.pool)
        # Keys and values of one shape lie in one tensor; mxfp8 pools make theirs apart.
        fused = len(one.tensors) == 2 and one.tensors[0][1] == one.tensors[1][1] and one.tensors[0][0] == "key"
        if old is None:
            found[one.pool] = TokenPool(
                name=one.pool,
                cls=one.cls,
                layers=1,
                token_bytes=size,
                cell_bytes=one.cell_bytes,
                sliding=one.sliding,
                per=one.per,
                group=one.group,
                fused=fused,
            )
        else:
            found[one.pool] = old.replace(
                layers=old.layers + 1,
                token_bytes=old.token_bytes + size,
                cell_bytes=old.cell_bytes + one.cell_bytes,
                fused=old.fused and fused,
            )
    return tuple(found.values())


def _draft_pools(pools: Sequence[TokenPool], layers: int, sliding: int | None) -> Iterator[TokenPool]:
    """The pools of the model's own draft layers, made like its other ones (eagle_draft_num_layers).

    sliding: how many of them slide. Counted by the layers of each kind: int(bytes · draft layers / layers).
    """
    if not layers:
        return
    slid = 0 if sliding is None else min(sliding, layers)
    for pool in pools:
        count = slid if pool.sliding else layers - slid
        if count:
            yield pool.replace(
                name=f"draft {pool.name}",
                layers=count,
                token_bytes=int(pool.token_bytes * count / pool.layers),
                cell_bytes=int(pool.cell_bytes * count / pool.layers),
                draft=True,
            )


def _token_terms(
    held: Iterable[Held], page: int, window: int | None, drafts: int | None
) -> Iterator[tuple[str, Tensors, Expr]]:
    pages: Expr = "context" if page == 1 else ("ceil", "context", page)
    tokens: Expr = pages if page == 1 else ("mul", page, pages)
    for one in held:
        slots = tokens
        if one.sliding and window is not None:
            slots = ("min", tokens, window + EVICTION_INTERVAL * (drafts or 1) + 2 * page)
        elif one.per == "page" or one.per == "group":
            slots = tokens if one.group == 1 else ("mul", page // one.group, pages)
        yield one.kind, one.tensors, slots


# -- states -------------------------------------------------------------------------------------------------------

STATES = (GatedDeltaNet, KimiDeltaAttention, Mamba, Mamba2, LightningAttention, ShortConv)


def shape_of(layer: Layer, rank: Rank) -> tuple[int, int, int]:
    """(channels, columns, recurrent elements) of one rank's state (Mamba2StateShape.create, KimiLinearStateShape.create).

    Groups of B and C that do not divide among the ranks are repeated to one per rank.
    """
    match layer:
        case GatedDeltaNet():
            groups = layer.key_heads if layer.key_heads % rank.tp == 0 else rank.tp
            channels = layer.value_heads * layer.value_dim + 2 * groups * layer.key_dim
            recurrent = rank.split(layer.value_heads, "linear value heads") * layer.key_dim * layer.value_dim
            return rank.split(channels, "channels"), (layer.conv_kernel or 1) - 1, recurrent
        case KimiDeltaAttention():
            width = rank.split(layer.heads * layer.head_dim, "linear heads · head_dim")
            return 3 * width, layer.conv_kernel - 1, rank.split(layer.heads, "linear heads") * layer.head_dim**2
        case Mamba():
            width = rank.split(layer.intermediate, "intermediate size")
            return width, layer.conv_kernel - 1, width * layer.state_size
        case Mamba2():
            groups = layer.groups if layer.groups % rank.tp == 0 else rank.tp
            channels = rank.split(layer.intermediate + 2 * groups * layer.state_size, "channels")
            return channels, layer.conv_kernel - 1, rank.split(layer.heads, "heads") * layer.head_dim * layer.state_size
        case LightningAttention():
            return 0, 0, rank.split(layer.heads, "heads") * layer.head_dim * layer.v_head_dim
        case ShortConv():
            columns = layer.conv_kernel - 1 if layer.columns is None else layer.columns
            heads = 1 if layer in rank.beside else dict(rank.conv_heads).get(layer)
            if heads:
                return rank.heads(heads) * (layer.channels // heads), columns, 0
            return rank.split(layer.channels, "channels"), columns, 0
        case _:
            return 0, 0, 0


def _state_terms(flat: Iterable[Layer], rank: Rank, slots: int) -> Iterator[tuple[str, Tensors, Expr]]:
    for part in flat:
        channels, columns, recurrent = shape_of(part, rank)
        if channels * columns:
            yield part.kind, (("conv_state", channels * columns * _conv_bytes(part)),), slots
        if recurrent:
            yield part.kind, (("recurrent_state", recurrent * rank.s),), slots


def _conv_bytes(layer: Layer) -> int:
    # Token ids of n-grams (ple_state_pool.NGramPool)
    return 8 if isinstance(layer, ShortConv) and layer.dtype == "int64" else CONV_BYTES


def _states(flat: Iterable[Layer], rank: Rank, drafts: int | None, topk: int | None) -> StatePool:
    """MambaPool of all layers with a state.

    Per draft token every running request keeps the matrix, and the convolution's columns: one shared window of
    drafts + columns - 1 for a chain of drafts, apart for a tree and for Kimi Delta (conv_window_dedup_enabled).
    """
    layers, conv, recurrent, beside, draft = 0, 0, 0, 0, 0
    for part in flat:
        if not isinstance(part, STATES):
            continue
        channels, columns, matrix = shape_of(part, rank)
        if part in rank.beside:
            beside += channels * columns * _conv_bytes(part)
            continue
        layers += 1
        conv += channels * columns * CONV_BYTES
        recurrent += matrix * rank.s
        if drafts is not None:
            apart = isinstance(part, KimiDeltaAttention) or (topk or 1) > 1
            wide = drafts * columns if apart else drafts + columns - 1
            draft += drafts * matrix * rank.s + (channels * wide * CONV_BYTES if columns else 0)
    return StatePool(layers=layers, conv_bytes=conv, recurrent_bytes=recurrent, beside_bytes=beside, draft_bytes=draft)


def _request_bytes(layer: Layer, rank: Rank, facts: Mapping[str, Any], drafts: int | None) -> int:
    """What an indexer keeps for each running request beside its pool: keys of a group that is not full yet."""
    if not isinstance(layer, SparseIndexer):
        return 0
    if rank.index_ratio:
        return rank.index_ratio * (layer.head_dim * 2 + layer.position_dims * 8)
    if rank.index_group > 1 and facts.get("index_tail"):
        # Keys and scores (_init_kpool_compress_tail_buffers)
        return 2 * (rank.index_group + (drafts or 0)) * layer.head_dim * 2
    return 0


def _slides(layer: Layer) -> bool:
    return isinstance(layer, (SlidingAttention, ChunkedAttention)) or bool(_window(layer))


def _window(layer: Layer) -> int:
    match layer:
        case SlidingAttention() | LatentAttention():
            return layer.window or 0
        case ChunkedAttention():
            return layer.chunk
        case _:
            return 0


def _full(layer: Layer) -> Layer:
    if isinstance(layer, LatentAttention):
        return layer.replace(window=None)
    assert isinstance(layer, (SlidingAttention, ChunkedAttention))
    return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)
