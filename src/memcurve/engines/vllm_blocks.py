"""vLLM's blocks: layers grouped over one pool, and what a request and an amount of memory make of it.

Rules of vLLM 0.33.0: vllm/v1/core/kv_cache_planning.py (grouping, bytes per block, checks) and
vllm/v1/kv_cache_interface.py (pages, blocks of a request). A *page* is what one layer keeps of one block; a block holds
the pages of one group, and every group takes its blocks from the same pool, so that a block is as large as the widest
group. A *rank* here is a pipeline stage; the tensor-parallel ranks of a stage are alike.
"""

from __future__ import annotations

from functools import cached_property
from math import lcm

from ..base import BadConfig, Record, Refused
from ..terms import INT64_MAX, Allocator, Pool, Served, Term, compile_expr
from ..units import show_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..terms import Expr, Function, Share

GIB = 2**30
# Kinds of cache that share the type FullAttentionSpec, and those whose pages may be padded to any size.
FULL = ("full", "latent")
PADDABLE = ("full", "sliding", "chunked", "cross")


class Spec(Record):
    """What one layer keeps (KVCacheSpec and its kinds).

    kind: the layer's, for people. cache: "full", "latent", "sliding", "chunked", "cross" or "state". tensors: (name, bytes)
    of one token, or of one state. block: tokens per block. page: bytes of a block, with padding. held: blocks of a
    request for a state or an encoder; for a window the tokens that a request may hold at once. window: the tokens that
    the window itself spans. tokens: tokens of the request per token of this rank (decode context parallelism). ratio: tokens
    per entry, where entries are compressed. stride: bytes that blocks which lie side by side are a multiple of apart. export: a state
    that a prefill hands out on its way stands at a multiple of so many tokens (prefill_checkpoint_alignment); 0 where it hands out none.
    """

    kind: str
    cache: str
    tensors: tuple[tuple[str, int], ...]
    block: int
    page: int
    held: int = 0
    window: int = 0
    tokens: int = 1
    ratio: int = 1
    stride: int = 1
    export: int = 0

    @property
    def row(self) -> int:
        """Bytes of one token, or of one state."""
        return sum(size for _, size in self.tensors)

    @property
    def blocks(self) -> Expr:
        """Blocks that a request of T tokens takes (max_memory_usage_bytes and max_admission_blocks_per_request of each spec)."""
        if self.cache in ("state", "cross"):
            return self.held
        if self.cache == "sliding":
            # One more, since the window may start in the middle of a block.
            return ("add", ("ceil", ("min", "context", self.held), self.block), 1)
        if self.cache == "chunked":
            return ("ceil", ("min", "context", self.held), self.block)
        return ("ceil", "context", self.block * self.tokens)

    @property
    def contents(self) -> tuple[tuple[str, int], ...]:
        """(name, bytes) of one page: its tensors over the block's tokens, and the padding."""
        many = self.entries
        found = tuple((name, size * many) for name, size in self.tensors)
        padding = self.page - self.row * many
        return (*found, ("padding", padding)) if padding else found

    @property
    def entries(self) -> int:
        """Tokens of a block, or compressed entries; one state."""
        return 1 if self.cache == "state" else self.block // self.ratio

    @property
    def filled(self) -> Expr:
        """Rows that a request's tokens and its one state really fill in this layer."""
        if self.cache in ("state", "cross"):
            return int(self.cache == "state")
        held: Expr = ("min", "context", self.window) if self.window else "context"
        return ("floor", ("ceil", held, self.tokens), self.ratio)

    def resized(self, block: int) -> Spec:
        return self.replace(block=block, page=self.row * block)


class Group(Record):
    """Layers that share a block table: their specs with how many layers of each pipeline rank have them."""

    members: tuple[tuple[Spec, tuple[int, ...]], ...]

    @property
    def blocks(self) -> Expr:
        return self.members[0][0].blocks

    def bytes_on(self, rank: int) -> int:
        return sum(spec.page * count[rank] for spec, count in self.members)

    @property
    def layers(self) -> int:
        return sum(sum(count) for _, count in self.members)


def merges(specs: Sequence[Spec]) -> bool:
    """Whether one spec can stand for all (KVCacheSpec.merge): equal, or full attention that differs in its window alone."""
    first = core(specs[0])
    return all(core(spec) == first for spec in specs)


def core(spec: Spec) -> tuple[object, ...]:
    window = 0 if spec.cache in FULL else spec.window
    return (spec.cache, spec.tensors if spec.cache == "state" else spec.row, spec.block, spec.page, spec.held, window)


def uniform(specs: Sequence[Spec]) -> bool:
    """Whether all need blocks for the same tokens, whatever their pages (UniformTypeKVCacheSpecs.is_uniform_type)."""
    first = specs[0]
    if any(spec.block != first.block or (spec.cache == "state") != (first.cache == "state") for spec in specs):
        return False
    if first.cache in FULL:
        return all(spec.cache in FULL for spec in specs)
    same = all(spec.cache == first.cache and spec.window == first.window for spec in specs)
    return same and (
        first.cache != "state" or all((spec.held, spec.page) == (first.held, first.page) for spec in specs)
    )


def promoted(specs: Sequence[Spec]) -> list[Spec]:
    """Windows and chunks held in full, where there is full attention too (unify_hybrid_kv_cache_specs)."""
    if merges(specs) or uniform(specs):
        return list(specs)
    windows = {spec.window for spec in specs if spec.cache in ("sliding", "chunked")}
    if len(windows) > 1 and any(spec.cache in FULL for spec in specs):
        raise Refused("All attention layers in the same KV cache group must have the same window size.")
    blocks = {spec.block for spec in specs if spec.cache in FULL}
    block = blocks.pop() if len(blocks) == 1 else None
    known: dict[int, Spec] = {}
    for spec in specs:
        if id(spec) not in known:
            local = spec.cache in ("sliding", "chunked") and any(other.cache in FULL for other in specs)
            known[id(spec)] = spec.resized(block or spec.block).replace(cache="full", held=0) if local else spec
    found = [known[id(spec)] for spec in specs]
    if not (merges(found) or uniform(found)):
        raise Refused("Failed to promote local KV cache specs to one unified type.")
    return found


def unified(specs: Sequence[Spec]) -> list[Spec]:
    """Every page as large as the largest: by a larger block where that divides, else by padding (unify_kv_cache_spec_page_size)."""
    largest = max(spec.page for spec in specs)
    known: dict[int, Spec] = {}

    def resize(spec: Spec) -> Spec:
        if spec.page == largest:
            return spec
        if spec.cache != "state" and largest % spec.page == 0:
            return spec.replace(block=spec.block * (largest // spec.page), page=largest)
        if spec.cache == "state" or spec.cache in PADDABLE:
            return spec.replace(page=largest)
        raise Refused(
            f"{spec.kind}: page size is not divisible by the maximum page size and cannot be padded. "
            "Padding is only supported for non-MLA attention layers."
        )

    for spec in specs:
        if id(spec) not in known:
            known[id(spec)] = resize(spec)
    return [known[id(spec)] for spec in specs]


def grouped(specs: Sequence[Spec], disable_hybrid: bool) -> tuple[list[Spec], list[list[int]]]:
    """The specs as vLLM resizes them, and the groups as lists of layers (get_kv_cache_groups)."""
    found = promoted(specs) if disable_hybrid else list(specs)
    every = [list(range(len(found)))]
    distinct = list({id(spec): spec for spec in found}.values())
    if merges(distinct) or uniform(distinct):
        return found, every
    try:
        found = unified(found)
    except Refused:
        # MLA beside a sliding draft: the window is held in full (_try_get_full_allocation_fallback_groups).
        caches = {spec.cache for spec in distinct}
        if not {"latent", "sliding"} <= caches or "chunked" in caches:
            raise
        return promoted(found), every
    buckets: list[tuple[Spec, list[int]]] = []
    for layer, spec in enumerate(found):
        for other, layers in buckets:
            if spec is other or merges((other, spec)):
                layers.append(layer)
                break
        else:
            buckets.append((spec, [layer]))
    counts = [len(layers) for _, layers in buckets]
    # A little uneven is padded to the most; else the fewest layers of a kind make the width of every group.
    width = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    return found, [
        layers[first :: -(-len(layers) // width)] for _, layers in buckets for first in range(-(-len(layers) // width))
    ]


def packed(specs: Sequence[Spec]) -> list[list[int]]:
    """The groups where the pages of a block lie side by side, whatever their sizes (_get_packed_kv_cache_groups).

    Layers that need blocks for the same tokens make a bucket. A bucket with as many layers of each page is a pattern that
    repeats, and is cut into groups of as many repeats as waste least; one of windows or states is cut until it fits the
    widest block of the others.
    """
    buckets: list[list[int]] = []
    for layer, spec in enumerate(specs):
        bucket = next((layers for layers in buckets if uniform((specs[layers[0]], spec))), None)
        if bucket is None:
            buckets.append([layer])
        else:
            bucket.append(layer)
    pages: list[dict[int, list[int]]] = []
    for layers in buckets:
        pages.append({})
        for layer in layers:
            pages[-1].setdefault(specs[layer].page, []).append(layer)
    most = [max(map(len, one.values())) for one in pages]
    balanced = [len(set(map(len, one.values()))) == 1 for one in pages]
    least = max((top for one, top, even in zip(pages, most, balanced, strict=True) if even and len(one) > 1), default=0)
    counts = [top for top, even in zip(most, balanced, strict=True) if even]
    repeats = least_padding(counts, least) if least else 0

    def cuts(index: int) -> int:
        return -(-most[index] // repeats) if balanced[index] and repeats else 1

    def recycled(index: int) -> bool:
        cache = specs[buckets[index][0]].cache
        return cache == "state" or (cache == "sliding" and not repeats)

    def widest(index: int, number: int) -> int:
        return sum(-(-len(layers) // number) * page for page, layers in pages[index].items())

    every = range(len(buckets))
    anchor = max(widest(index, len(buckets[index]) if recycled(index) else cuts(index)) for index in every)
    groups: list[list[int]] = []
    for index in every:
        number = cuts(index)
        if recycled(index):
            fit = max(anchor // specs[buckets[index][0]].page, 1)
            number = max(number, -(-len(buckets[index]) // fit))
        pattern = list(zip(*pages[index].values(), strict=False))
        cut = [[layer for repeat in pattern[first::number] for layer in repeat] for first in range(number)]
        groups.extend(cut if number > 1 else [buckets[index]])
    return groups


def least_padding(counts: Sequence[int], least: int) -> int:
    """The width of at least so many that pads these counts by the fewest; the larger of equals (_approximate_gcd)."""
    return min(range(least, max(counts) + 1), key=lambda width: (sum(-count % width for count in counts), -width))


def make_groups(
    specs: Sequence[Spec], ranks: Sequence[int], pipeline: int, disable_hybrid: bool, side_by_side: bool = False
) -> tuple[Group, ...]:
    """The groups over all pipeline ranks. specs: one per layer that keeps anything; ranks: the rank of each."""
    found, groups = (list(specs), packed(specs)) if side_by_side else grouped(specs, disable_hybrid)
    result = []
    for layers in groups:
        members: dict[Spec, list[int]] = {}
        known: dict[int, list[int]] = {}
        for layer in layers:
            spec = found[layer]
            count = known.get(id(spec))
            if count is None:
                count = known[id(spec)] = members.setdefault(spec, [0] * pipeline)
            count[ranks[layer]] += 1
        result.append(Group(members=tuple((spec, tuple(count)) for spec, count in members.items())))
    return tuple(result)


def bytes_per_block(groups: Sequence[Group], rank: int, side_by_side: bool) -> int:
    """Of one pipeline stage: the widest group's, as strides ask (_get_kv_cache_bytes_per_block)."""
    widest = max(group.bytes_on(rank) for group in groups)
    strides = (
        (spec.stride for group in groups for spec, count in group.members if count[rank]) if side_by_side else (1,)
    )
    unit = lcm(*strides)
    return -(-widest // unit) * unit


class VllmPool(Pool):
    """What vLLM makes of an amount of memory on each rank.

    num_blocks: blocks of bytes_per_block each (one stays empty for ever). max_concurrency: requests of max_model_len at
    once. capacity_tokens: the same in tokens, as vLLM's log says it. longest_context: what max_model_len=-1 would choose.
    """

    num_blocks: int
    bytes_per_block: int
    max_concurrency: float
    capacity_tokens: int
    longest_context: int

    @property
    def units(self) -> int:
        return self.num_blocks


class Serving(Record):
    """What the scheduler goes by (SchedulerConfig, CacheConfig).

    ahead: whether a batch is scheduled while the one before runs. chunked: whether a prefill may be cut. unknown: why its
    scheduling is not described, if so.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    prefix_caching: bool
    ahead: bool
    chunked: bool
    unknown: str | None = None


class VllmAllocator(Allocator):
    """The groups, the largest request, bytes per block on each pipeline rank, and what the scheduler goes by."""

    groups: tuple[Group, ...]
    block_bytes: tuple[int, ...]
    max_model_len: int | None
    serving: Serving | None = None

    @cached_property
    def each(self) -> Expr:
        """Blocks that a request of T tokens takes, over all groups: groups alike times how many they are."""
        count: dict[Expr, int] = {}
        for group in self.groups:
            count[group.blocks] = count.get(group.blocks, 0) + 1
        found: Expr = sum(blocks * many for blocks, many in count.items() if isinstance(blocks, int))
        for blocks, many in count.items():
            if not isinstance(blocks, int):
                one: Expr = blocks if many == 1 else ("mul", many, blocks)
                found = one if found == 0 else ("add", found, one)
        return found

    @cached_property
    def _blocks(self) -> Function:
        return compile_expr(self.each)

    @property
    def most_sequences(self) -> int | None:
        """max_num_seqs."""
        return None if self.serving is None else self.serving.max_num_seqs

    def blocks(self, context: int) -> int:
        """Blocks that a request of so many tokens takes, over all groups."""
        return int(self._blocks(context, 1, 0))

    @property
    def largest(self) -> int:
        """max_model_len, which a pool needs."""
        if self.max_model_len is None:
            raise BadConfig(
                "max_model_len: missing, and the config says no longest sequence; give the longest request to serve"
            )
        return self.max_model_len

    def bounds(self) -> dict[str, tuple[str, int]]:
        found = {"context": ("max_model_len", self.max_model_len), "batch": ("max_num_seqs", self.most_sequences)}
        return {axis: (name, most) for axis, (name, most) in found.items() if most is not None}

    def most_requests(self, memory_bytes: int, context: int) -> tuple[int, str]:
        """By max_model_len, max_num_seqs and the blocks that a request takes: "tokens", or "state slots" where only states do.

        vLLM itself starts only where a request of max_model_len fits (see `pool`).
        """
        if self.max_model_len is not None and context > self.max_model_len:
            return 0, "max_model_len"
        return super().most_requests(memory_bytes, context)

    def shares(self, memory_bytes: int) -> list[Share]:
        """One block stays empty for ever (BlockPool.__init__, v1/core/block_pool.py)."""
        found: list[Share] = [] if self.most_sequences is None else [("max_num_seqs", self.most_sequences, 1)]
        sizes = [size for size in self.block_bytes if size]
        if sizes and self.groups:
            usable = max(min(memory_bytes // size for size in sizes) - 1, 0)
            found.append(
                ("tokens" if self.blocks(INT64_MAX // 2) > self.blocks(1) else "state slots", usable, self.each)
            )
        return found

    def filled(self) -> list[tuple[str, int, Expr]]:
        rank = self.block_bytes.index(max(self.block_bytes)) if self.groups else 0
        return [
            ("state" if spec.cache == "state" else "kv", spec.row * count[rank], spec.filled)
            for group in self.groups
            for spec, count in group.members
        ]

    def longest_context(self, memory_bytes: int) -> int:
        """The longest request, up to max_model_len, that fits so much memory on every rank; 0 if not one token does.

        _estimate_max_model_len_from_groups, on the memory less the one block that stays empty (get_kv_cache_configs).
        """
        longest = self.largest
        usable = min((memory_bytes - size) // size for size in self.block_bytes if size)
        if self.blocks(1) > usable:
            return 0
        low, high = 1, longest + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks(middle) <= usable else (low, middle)
        return low

    def pool(self, memory_bytes: int) -> VllmPool:
        """The pool (get_kv_cache_configs). Refused where not even one request of max_model_len fits; `longest_context` says what would."""
        if not self.groups:
            return VllmPool(
                pool_bytes=0,
                num_blocks=1,
                bytes_per_block=0,
                max_concurrency=float("inf"),
                capacity_tokens=0,
                longest_context=self.largest,
            )
        longest = self.longest_context(memory_bytes)
        blocks = self.blocks(self.largest)
        for size in self.block_bytes:
            check(memory_bytes - size, size * blocks, self.largest, longest)
        count = min(memory_bytes // size for size in self.block_bytes if size)
        concurrency = count / blocks
        return VllmPool(
            pool_bytes=count * max(self.block_bytes),
            num_blocks=count,
            bytes_per_block=max(self.block_bytes),
            max_concurrency=concurrency,
            capacity_tokens=int(concurrency * self.largest),
            longest_context=longest,
        )

    def split(self) -> list[tuple[tuple[Term, ...], Allocator]]:
        found: list[tuple[tuple[Term, ...], Allocator]] = []
        for rank, size in enumerate(self.block_bytes):
            groups = tuple(
                Group(members=tuple((spec, (count[rank],)) for spec, count in group.members)) for group in self.groups
            )
            found.append((terms_of(groups, (size,)), self.replace(groups=groups, block_bytes=(size,))))
        return found

    def limited(self, context: int) -> VllmAllocator:
        return (
            self
            if self.max_model_len is not None and self.max_model_len <= context
            else self.replace(max_model_len=context)
        )

    def longest_request(self) -> int:
        return self.largest

    def serve(self, memory_bytes: int, requests: Sequence[tuple[int, int]]) -> Served:
        from .vllm_loop import run_of

        pool = self.pool(memory_bytes)
        run = run_of(self, pool.num_blocks, requests)
        return Served(
            running=run.peak,
            mean=run.full_area / run.full_steps if run.full_steps else float(run.peak),
            preemptions=run.preemptions,
            steps=run.steps,
            used=(("blocks", run.blocks, pool.num_blocks - 1),),
            bound_by="requests" if run.peak == len(requests) else max(run.bound, key=lambda one: run.bound[one]),
            pessimistic=pool.max_concurrency,
            longest=self.largest,
        )

    def explain(self, context: int | None) -> list[str]:
        if not self.groups:
            return ["vLLM gives it no blocks"]
        largest = max(self.block_bytes)
        lines = [
            f"blocks of {largest:,} B; {len(self.groups)} {'group' if len(self.groups) == 1 else 'groups'} of layers take from one pool"
        ]
        if len(self.block_bytes) > 1:
            lines[0] += "; by pipeline rank: " + ", ".join(f"{size:,} B" for size in self.block_bytes)
        rows: dict[str, int] = {}
        for group in self.groups:
            row = " + ".join(describe(spec, sum(count)) for spec, count in group.members)
            unused = largest - max(group.bytes_on(rank) for rank in range(len(self.block_bytes)))
            row += f"; {unused:,} B of the block unused" if unused else ""
            rows[row] = rows.get(row, 0) + 1
        lines.extend(f"  {number} × {row}" for row, number in rows.items())
        if context is not None:
            lines.append(self.padding(context))
            if self.max_model_len is not None and context > self.max_model_len:
                lines.append(f"vLLM turns such a request down: more than max_model_len {self.max_model_len:,} tokens")
        return lines

    def padding(self, context: int) -> str:
        """How much of a request's blocks its tokens and states fill on the fullest rank, in words."""
        rank = self.block_bytes.index(max(self.block_bytes))
        blocks = self.blocks(context)
        reserved = blocks * self.block_bytes[rank]
        live = sum(size * int(compile_expr(rows)(context, 1, 0)) for _, size, rows in self.filled())
        padding = reserved - live
        share = 100 * padding / reserved if reserved else 0
        return (
            f"at {show_count(context, 'token')} {show_count(blocks, 'block')} = {reserved:,} B; tokens and states fill {live:,} B, "
            f"{padding:,} B ({share:.1f} %) is padding, spare tokens and spare states"
        )


def describe(spec: Spec, layers: int) -> str:
    real = spec.row * spec.entries
    page = f"page {real:,} B" + (f" padded to {spec.page:,} B" if spec.page != real else "")
    block = "" if spec.cache == "state" else f"block {spec.block:,} tokens, "
    return f"{layers} {'layer' if layers == 1 else 'layers'} of {spec.kind} ({block}{page})"


def check(available: int, needed: int, max_model_len: int, longest: int) -> None:
    """_check_enough_kv_cache_memory, with vLLM's words."""
    if available <= 0:
        raise Refused(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."
        )
    if needed > available:
        estimate = (
            f"Based on the available memory, the estimated maximum model length is {longest}. " if longest else ""
        )
        raise Refused(
            f"To serve at least one request with the model's max seq len ({max_model_len}), ({gib(needed)} GiB KV cache is "
            f"needed, which is larger than the available KV cache memory ({gib(available)} GiB). {estimate}"
            "Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
        )


def gib(size: int) -> str:
    """Bytes in GiB as vLLM prints them (format_gib)."""
    return str(round(size / GIB, 2))


def terms_of(groups: Sequence[Group], block_bytes: Sequence[int]) -> tuple[Term, ...]:
    """The blocks of a request as terms: per kind of page, and what the groups narrower than a block leave unused."""
    if not groups:
        return ()
    largest = max(block_bytes)
    rank = list(block_bytes).index(largest)
    found: dict[tuple[str, tuple[tuple[str, int], ...], Expr], int] = {}
    for group in groups:
        blocks = group.blocks
        for spec, count in group.members:
            if count[rank]:
                key = (spec.kind, spec.contents, blocks)
                found[key] = found.get(key, 0) + count[rank]
        unused = largest - group.bytes_on(rank)
        if unused:
            page = group.members[0][0].page
            whole = page if unused % page == 0 else unused
            key = ("padding", (("unused", whole),), blocks)
            found[key] = found.get(key, 0) + unused // whole
    return tuple(
        Term(kind=kind, layers=layers, tensors=tensors, slots=slots) for (kind, tensors, slots), layers in found.items()
    )
