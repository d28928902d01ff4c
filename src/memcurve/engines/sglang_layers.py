"""What each layer keeps in SGLang 0.5.23 on one rank: tensors of tokens and of states, the pools that hold them, their terms.

Sources, under sglang/srt: mem_cache/memory_pool.py and swa_memory_pool.py (tensors of the pools),
model_executor/pool_configurator.py (bytes of a token), configs/mamba_utils.py (shapes of states under tensor parallelism).
"""

from __future__ import annotations

from ..base import NotDescribed, Record, Refused, assert_never
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
)  # fmt: skip
from .sglang_pools import StatePool, TokenPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..layers import Layer
    from ..terms import Expr
    from .sglang_options import Drafts

    Tensors = tuple[tuple[str, int], ...]

# DSATokenToKVPool.quant_block_size and the fp32 scale of a block; MXFP8_SCALE_BLOCK_SIZE
BLOCK, SCALE, MXFP8_BLOCK = 128, 4, 32
# mamba2_state_dtype: convolutions are bf16 whatever the model's dtype (SGLANG_MAMBA_CONV_DTYPE)
CONV_BYTES = 2


class Rank(Record):
    """What one rank keeps is reckoned with: its share, bytes of an element, and how SGLang stores this model.

    tp: ranks that share a layer's heads; state_tp: ranks that share a state's, all of them for Mamba's own classes.
    e: of keys and values; index: of plain index keys; s: of a recurrent state. latent_fp8: sparse attention's latents
    are packed with scales and rotary keys in bf16. conv_heads: heads that a convolution's channels belong to, which
    tensor parallelism splits and replicates like those of keys; beside: convolutions with a pool of their own, whole on
    every rank, that the configurator does not count. stored_as_full: sliding layers are allocated with the
    sizes of full ones; values_as_keys: values with the size of keys.
    """

    tp: int
    state_tp: int
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
        if count % self.state_tp:
            raise Refused(f"{count} is not divisible by {self.state_tp} ({what}, tp_size)")
        return count // self.state_tp

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


def token_pools(held: Iterable[Held]) -> tuple[TokenPool, ...]:
    found: dict[str, TokenPool] = {}
    for one in held:
        size = sum(size for _, size in one.tensors)
        keys = sum(size for name, size in one.tensors if name in ("key", "key_scale"))
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
                key_bytes=keys,
            )
        else:
            found[one.pool] = old.replace(
                layers=old.layers + 1,
                token_bytes=old.token_bytes + size,
                cell_bytes=old.cell_bytes + one.cell_bytes,
                fused=old.fused and fused,
                key_bytes=old.key_bytes + keys,
            )
    return tuple(found.values())


def draft_pools(pools: Sequence[TokenPool], layers: int, sliding: int | None) -> Iterator[TokenPool]:
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
                key_bytes=int(pool.key_bytes * count / pool.layers),
                draft=True,
            )


def token_terms(
    held: Iterable[Held], page: int, window: int | None, interval: int
) -> Iterator[tuple[str, Tensors, Expr]]:
    pages: Expr = "context" if page == 1 else ("ceil", "context", page)
    tokens: Expr = pages if page == 1 else ("mul", page, pages)
    for one in held:
        slots = tokens
        if one.sliding and window is not None:
            slots = ("min", tokens, window + interval + 2 * page)
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
            groups = layer.key_heads if layer.key_heads % rank.state_tp == 0 else rank.state_tp
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
            groups = layer.groups if layer.groups % rank.state_tp == 0 else rank.state_tp
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


def state_terms(flat: Iterable[Layer], rank: Rank, slots: int) -> Iterator[tuple[str, Tensors, Expr]]:
    for part in flat:
        channels, columns, recurrent = shape_of(part, rank)
        if channels * columns:
            yield part.kind, (("conv_state", channels * columns * _conv_bytes(part)),), slots
        if recurrent:
            yield part.kind, (("recurrent_state", recurrent * rank.s),), slots


def _conv_bytes(layer: Layer) -> int:
    # Token ids of n-grams (ple_state_pool.NGramPool)
    return 8 if isinstance(layer, ShortConv) and layer.dtype == "int64" else CONV_BYTES


def state_pool(flat: Iterable[Layer], rank: Rank, drafts: Drafts | None) -> StatePool:
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
            apart = isinstance(part, KimiDeltaAttention) or drafts.topk > 1
            wide = drafts.tokens * columns if apart else drafts.tokens + columns - 1
            draft += drafts.tokens * matrix * rank.s + (channels * wide * CONV_BYTES if columns else 0)
    return StatePool(layers=layers, conv_bytes=conv, recurrent_bytes=recurrent, beside_bytes=beside, draft_bytes=draft)


def request_bytes_of(layer: Layer, rank: Rank, facts: Mapping[str, Any], drafts: int | None) -> int:
    """What an indexer keeps for each running request beside its pool: keys of a group that is not full yet."""
    if not isinstance(layer, SparseIndexer):
        return 0
    if rank.index_ratio:
        return rank.index_ratio * (layer.head_dim * 2 + layer.position_dims * 8)
    if rank.index_group > 1 and facts.get("index_tail"):
        # Keys and scores (_init_kpool_compress_tail_buffers)
        return 2 * (rank.index_group + (drafts or 0)) * layer.head_dim * 2
    return 0


def slides(layer: Layer) -> bool:
    return isinstance(layer, (SlidingAttention, ChunkedAttention)) or bool(window_of(layer))


def window_of(layer: Layer) -> int:
    match layer:
        case SlidingAttention() | LatentAttention():
            return layer.window or 0
        case ChunkedAttention():
            return layer.chunk
        case _:
            return 0


def as_full(layer: Layer) -> Layer:
    if isinstance(layer, LatentAttention):
        return layer.replace(window=None)
    assert isinstance(layer, (SlidingAttention, ChunkedAttention))
    return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)
