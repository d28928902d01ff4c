"""MLX-LM 0.32.2: what its caches have allocated once so many tokens are in them, which hangs on how the tokens came.

Sources, all in mlx_lm/: models/cache.py (the cache classes, make_prompt_cache), generate.py (generate_step,
maybe_quantize_kv_cache, BatchGenerator), and per model its module's make_cache. A layer is an entry of the list that
make_prompt_cache gives, two states of one layer are a CacheList, which is never quantised. States are there from the first
token on and counted from the start.
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Refused, assert_never, show, whole
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
from ..terms import INT64_MAX, Kept, Refusal, collect_terms
from ..units import dtype_bytes
from .mlx_rows import Cache, Feed, Moments, before, reached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..layers import Layer
    from ..terms import Expr

    Tensors = tuple[tuple[str, int], ...]
    # A row's tensors by name, heads, width, and dtype, "model" or one of its own; or the bytes of an element.
    Row = tuple[tuple[str, int, int, str], ...]
    Sizes = tuple[tuple[str, int, int, int], ...]

OPTIONS = (
    "schedule", "prompt", "max_kv_size", "kv_bits", "kv_group_size", "quantized_kv_start", "prefill_step_size",
)  # fmt: skip
CACHE_DTYPES = ({"dtype": "bfloat16"}, {"kv_bits": 8, "quantized_kv_start": 0}, {"kv_bits": 4, "quantized_kv_start": 0})
SCHEDULES = ("generate_step", "batch_generator", "forward")
# What mx.quantize takes (mlx 0.32.4).
BITS, GROUPS = (1, 2, 3, 4, 5, 6, 8), (32, 64, 128)
DTYPES = ("bfloat16", "float16", "float32")
KEPT_FIRST = 4  # tokens that max_kv_size never overwrites (make_prompt_cache)
# Dtype of the states of recurrent kinds, where the model's module does not make another of it.
STATES = {"mamba": "model", "rwkv": "model", "rg-lru": "model"}


class Settings:
    """The options, checked."""

    def __init__(
        self,
        schedule: str,
        prompt: int | None,
        max_kv_size: int | None,
        kv_bits: int | None,
        kv_group_size: int,
        quantized_kv_start: int,
        prefill_step_size: int,
    ) -> None:
        if schedule not in SCHEDULES:
            raise BadConfig(f"schedule: {show(schedule)}; expected {', '.join(SCHEDULES)}")
        if prompt is not None:
            prompt = whole("prompt", prompt, 1)
        piece = whole("prefill_step_size", prefill_step_size, 1)
        if max(piece, prompt or 0) > INT64_MAX:
            raise BadConfig(f"prefill_step_size: {show(piece)}, prompt {show(prompt)}; expected at most {INT64_MAX}")
        self.schedule, self.feed = schedule, Feed(piece=None if schedule == "forward" else piece, prompt=prompt)
        self.window = None if max_kv_size is None else whole("max_kv_size", max_kv_size, 1)
        if self.window is not None and self.window <= KEPT_FIRST and schedule != "batch_generator":
            # Longer prompts raise: masks are made for fewer tokens than stay ([broadcast_shapes]). Batches keep no first ones.
            raise NotDescribed(
                f"max_kv_size: {self.window}; expected more than {KEPT_FIRST}, the tokens that always stay"
            )
        self.group, start = whole("kv_group_size", kv_group_size), whole("quantized_kv_start", quantized_kv_start)
        self.bits = None if kv_bits is None else whole("kv_bits", kv_bits)
        if self.bits is None:
            return
        if schedule == "batch_generator":
            raise BadConfig(
                f"kv_bits: {self.bits}; expected None with schedule batch_generator, which quantises nothing"
            )
        if self.bits not in BITS:
            raise Refused(f"[quantize] The requested number of bits {self.bits} is not supported; 1 to 6 and 8 are")
        if self.group not in GROUPS:
            raise Refused(f"[quantize] The requested group size {self.group} is not supported; 32, 64 and 128 are")
        # The first forward that leaves so many tokens, or more, is followed by quantising.
        self.start = max(start, 1)

    def stops(self, why: str, window: int | None) -> list[Refusal]:
        """Where a forward of several tokens gets no array as its mask: create_attention_mask says "causal", RotatingKVCache.make_mask
        as long as the tokens are no more than its window; batches always get arrays.
        """
        piece, prompt = self.feed.piece, self.feed.prompt
        # The last token of a prompt comes alone, except where all come at once.
        alone = 0 if piece is None else 1
        if self.schedule == "batch_generator" or piece == 1 or (prompt is not None and prompt < alone + 2):
            return []
        longest = min(piece or INT64_MAX, INT64_MAX if prompt is None else prompt - alone)
        last = None if window is None or longest <= window else window + alone
        return [Refusal(why=why, context=alone + 2, last_context=last)]


def keep(
    layers: Sequence[Layer],
    dtype: str,
    *,
    schedule: str = "generate_step",
    prompt: int | None = None,
    max_kv_size: int | None = None,
    kv_bits: int | None = None,
    kv_group_size: int = 64,
    quantized_kv_start: int = 5000,
    prefill_step_size: int = 2048,
    own_cache: bool | None = None,
    states: Mapping[str, str] | None = None,
    dtypes: Mapping[tuple[int, str], str] | None = None,
    batches: str = "",
    batch_that_runs: int = 0,
    quantises: str = "",
    prompts: str = "",
    uncounted: str = "",
    casts: Mapping[str, str] | None = None,
    reads: tuple[str, ...] = (),
) -> Kept:
    """Options by MLX-LM's names, and what the view knows of the model.

    schedule: who feeds the tokens; "forward" puts a whole prompt in at once.
    prompt: tokens of the context that were the prompt (all of them, if None); the others came one by one.
    max_kv_size: rows of the rotating caches that models without a make_cache of their own get.
    kv_bits, kv_group_size: keys and values quantised so, or not at all (None).
    quantized_kv_start: tokens in the cache from which on they are.
    prefill_step_size: tokens of a prompt that are fed at once.

    own_cache: the module has a make_cache (if None: where it makes anything but plain caches); states: dtype of a kind's states,
    "model" or a name; dtypes: dtype of the tensor of that name in the layer of that index, where it is not the usual one;
    batches: why two sequences in a batch raise, or more, except batch_that_runs; quantises: why a forward over quantised caches raises;
    prompts: why one of several tokens raises without an array as its mask; uncounted: why the size of quantised caches can't be asked; casts: dtype of
    the weights -> dtype of what is cached, where the module mixes in another; reads: notes of what the module ignores.
    """
    asked = Settings(schedule, prompt, max_kv_size, kv_bits, kv_group_size, quantized_kv_start, prefill_step_size)
    usual = {**STATES, **(states or {})}
    if own_cache is None:
        own_cache = any(not isinstance(part, PLAIN) for layer in layers for part in parts(layer))
    window = None if own_cache else asked.window
    own_dtypes, e = dtypes or {}, dtype_bytes((casts or {}).get(dtype, dtype))
    if dtype not in DTYPES:
        raise BadConfig(f"dtype: {show(dtype)}; expected one of {', '.join(DTYPES)}, and kv_bits for quantised caches")
    ledger = Ledger(asked)
    alike: dict[tuple[Layer, int], int] = {}
    apart = {index for index, _ in own_dtypes}
    for index, layer in enumerate(layers):
        key = layer, index if index in apart else -1
        alike[key] = alike.get(key, 0) + 1
    for (layer, index), count in alike.items():
        for part in parts(layer):
            for row, cache in keeps(part, usual, window):
                sizes = tuple(
                    (name, heads, width, width_of(own_dtypes.get((index, name), tag), e))
                    for name, heads, width, tag in row
                )
                ledger.enter(part.kind, sizes, cache, isinstance(layer, Parallel), count)
    notes = reads
    if own_cache and max_kv_size is not None:
        notes = ("max_kv_size: ignored, the model's module makes its own caches", *notes)
    if asked.bits is not None and uncounted and quantized_kv_start == 0:
        # The offset of a cache that stays empty is 0.
        ledger.refusals.append(Refusal(why=uncounted, context=asked.start))
    if prompts:
        ledger.refusals += asked.stops(prompts, window)
    return ledger.kept(batches, batch_that_runs, quantises, notes)


PLAIN = (FullAttention, LatentAttention)
GROWN, FIXED = Cache(form="grown"), Cache(form="fixed")


class Ledger:
    """What all caches keep: terms, the moments at which they hold more, and what raises."""

    def __init__(self, asked: Settings) -> None:
        self.asked = asked
        self.held: list[tuple[str, Tensors, Expr]] = []
        self.rows: dict[Cache, Expr] = {}
        self.bytes: dict[tuple[Cache, bool], tuple[int, int]] = {}
        self.refusals: list[Refusal] = []
        self.quantised = False

    def enter(self, kind: str, sizes: Sizes, cache: Cache, listed: bool, count: int) -> None:
        """A cache that `count` layers have; listed: in a CacheList."""
        if self.asked.schedule == "batch_generator" and (why := NO_BATCH.get(cache.form)):
            raise Refused(f"{why} does not yet support batching with history")
        slots = self.rows.get(cache)
        if slots is None:
            slots = self.rows[cache] = cache.slots(self.asked.feed)
        plain = tuple((name, heads * width * e) for name, heads, width, e in sizes)
        if self.asked.bits is None or listed or cache.form not in ("grown", "rotating"):
            self.held += [(kind, plain, slots)] * count
            self.add(cache, plain, None, count)
            return
        start, group = self.asked.start, self.asked.group
        uneven = next((width for _, _, width, _ in sizes if width % group), None)
        if cache.form == "rotating":
            self.refusals.append(Refusal(why="NotImplementedError: RotatingKVCache Quantization NYI", context=start))
        elif uneven is not None:
            why = (
                f"[quantize] The last dimension, {uneven}, needs to be divisible by the quantization group size {group}"
            )
            self.refusals.append(Refusal(why=why, context=start))
        else:
            self.quantised = True
        if start > 1:
            self.held += [(kind, plain, ("mul", slots, before(start)))] * count
        packed = tuple(one for size in sizes for one in self.packed(*size))
        self.held += [(kind, packed, slots if start == 1 else ("mul", slots, reached(start)))] * count
        self.add(cache, plain, packed, count)

    def packed(self, name: str, heads: int, width: int, e: int) -> Iterator[tuple[str, int]]:
        """QuantizedKVCache: codes, and a scale and a bias per group."""
        assert self.asked.bits is not None
        yield name, heads * width * self.asked.bits // 8
        yield f"{name}_scales", heads * (width // self.asked.group) * e
        yield f"{name}_biases", heads * (width // self.asked.group) * e

    def add(self, cache: Cache, plain: Tensors, packed: Tensors | None, count: int) -> None:
        key = (cache, packed is not None)
        held, after = self.bytes.get(key, (0, 0))
        more, later = (sum(size for _, size in tensors) for tensors in (plain, packed or ()))
        self.bytes[key] = held + count * more, after + count * later

    def kept(self, batches: str, batch_that_runs: int, quantises: str, notes: tuple[str, ...]) -> Kept:
        asked, refusals = self.asked, self.refusals
        feed = asked.feed
        if self.quantised and quantises and (feed.piece is not None or feed.prompt is not None):
            # The next forward after quantising; one of a whole prompt is followed by one of a token.
            late = asked.start + 1 if feed.piece is not None else max(asked.start, feed.prompt or 0) + 1
            refusals = [*refusals, Refusal(why=quantises, context=late)]
        if batches and asked.schedule == "batch_generator":
            if batch_that_runs > 2:
                refusals = [*refusals, Refusal(why=batches, batch=2, last_batch=batch_that_runs - 1)]
            refusals = [*refusals, Refusal(why=batches, batch=max(batch_that_runs + 1, 2))]
        course = None
        if asked.bits is not None or any(
            cache.form in ("rotating", "chunked", "compressed") for cache, _ in self.bytes
        ):
            held = tuple(
                (cache, plain, packed if both else None) for (cache, both), (plain, packed) in self.bytes.items()
            )
            course = Moments(feed=asked.feed, held=held, start=asked.start if self.quantised else None)
        return Kept(terms=collect_terms(self.held), notes=notes, refusals=tuple(dict.fromkeys(refusals)), course=course)


# What lacks the merge that BatchGenerator asks for (_merge_caches).
NO_BATCH = {"chunked": "ChunkedKVCache", "compressed": "LayerCache"}


def width_of(dtype: str, e: int) -> int:
    return e if dtype == "model" else dtype_bytes(dtype)


def keeps(layer: Layer, states: Mapping[str, str], window: int | None) -> Iterator[tuple[Row, Cache]]:
    """What one layer keeps: (name, heads, width, dtype) per tensor of a row, and the cache. window: of a model whose plain
    caches all rotate."""
    plain = GROWN if window is None else Cache(form="rotating", size=window)
    match layer:
        case FullAttention() if not layer.extra:
            yield kv(layer.kv_heads, layer.head_dim, layer.v_head_dim), plain
        case SlidingAttention() if not layer.keeps_prompt:
            yield kv(layer.kv_heads, layer.head_dim, layer.v_head_dim), Cache(form="rotating", size=layer.window)
        case ChunkedAttention():
            yield kv(layer.kv_heads, layer.head_dim, layer.v_head_dim), Cache(form="chunked", size=layer.chunk)
        case LatentAttention():
            row: Row = (("latent", 1, layer.kv_lora_rank, "model"), ("rope_key", 1, layer.rope_head_dim, "model"))
            yield row, plain if layer.window is None else Cache(form="rotating", size=layer.window)
        case SparseIndexer():
            # Index keys go in as keys and as values (deepseek_v32.py, Indexer).
            yield (("index_key", 1, layer.head_dim, "model"), ("index_value", 1, layer.head_dim, "model")), GROWN
        case CompressedAttention():
            # LayerCache and Compressor (deepseek_v41.py): what waits for a full group does so in fp32, with its gate.
            window_rows: Expr = ("min", "context", layer.window)
            yield (("window_kv", 1, layer.head_dim, "model"),), Cache(form="compressed", rows=window_rows)
            # Layers of ratio 0 read what an earlier one compressed; with 1 nothing waits.
            if layer.ratio:
                entry: Row = (("compressed_kv", 1, layer.head_dim, "model"),)
                if layer.index_head_dim:
                    entry += (("index_key", 1, layer.index_head_dim, "model"),)
                yield entry, Cache(form="compressed", rows=("floor", "context", layer.ratio))
            if layer.ratio > 1:
                waiting: Row = tuple((name, 1, layer.head_dim, "float32") for name in ("waiting_kv", "waiting_gate"))
                yield waiting, Cache(form="compressed", rows=("mod", "context", layer.ratio))
        case GatedDeltaNet() | KimiDeltaAttention() | Mamba() | Mamba2() | RGLRU():
            channels = layer.width if isinstance(layer, RGLRU) else layer.conv_channels
            if layer.conv_kernel is not None:
                yield (("conv_state", channels, layer.conv_kernel - 1, "model"),), FIXED
            size = layer.width if isinstance(layer, RGLRU) else layer.recurrent_elements
            yield (("recurrent_state", 1, size, states.get(layer.kind, "float32")),), FIXED
        case LightningAttention():
            yield (("recurrent_state", 1, layer.recurrent_elements, states.get(layer.kind, "float32")),), FIXED
        case ShortConv():
            columns = layer.conv_kernel - 1 if layer.columns is None else layer.columns
            if layer.dtype == "model":
                yield (("conv_state", layer.channels, columns, "model"),), FIXED
            else:
                # Token ids, gathered from the first on (NgramEmbedding of longcat_flash_ngram.py).
                ids = Cache(form="fixed", rows=("min", "context", columns))
                yield (("token_ids", layer.channels, 1, layer.dtype),), ids
        case RWKV():
            yield (("token_shift", 2, layer.hidden, "model"),), FIXED
            yield (("recurrent_state", 1, layer.recurrent_elements, states.get(layer.kind, "float32")),), FIXED
        case NoState():
            pass
        case FullAttention() | SlidingAttention() | CrossAttention() | HiddenStates() | RWKV4() | MatrixLSTM():
            raise NotDescribed(f"engine mlx: MLX-LM has no cache for such {layer.kind}")
        case Parallel():
            for part in layer.parts:
                yield from keeps(part, states, window)
        case _:
            assert_never(layer)


def kv(heads: int, key: int, value: int) -> Row:
    return ("key", heads, key, "model"), ("value", heads, value, "model")
