"""DeepSeek-V4 in SGLang 0.5.23: windows, entries compressed 4 : 1 and 128 : 1, and the states that compress them.

Sources, under sglang/srt: DSV4PoolConfigurator (model_executor/pool_configurator.py), DeepSeekV4TokenToKVPool
(mem_cache/deepseek_v4_memory_pool.py) and CompressStatePool (deepseek_v4_compress_state.py), in their defaults on an
NVIDIA GPU: the V4 layout, fp32 states, no online compression. Every rank holds all of it.

An entry is 448 fp8 numbers, 64 rotary ones in bf16, scales and padding: 584 B, in pages of whole 576 B. Tokens come in
pages of 256, so a page holds 64 entries of the one kind and 2 of the other. The 4 : 1 state follows the pages of the
window, 8 rows each; the 128 : 1 state the running requests, 128 rows each.
"""

from __future__ import annotations

from ..base import NotDescribed, Record, Refused, whole
from ..layers import CompressedAttention, SlidingAttention
from ..terms import Allocator, Kept, Term
from .sglang_options import EVICTION_INTERVAL, swa_cap
from .sglang_pools import SGLangPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer
    from .sglang_options import Drafts

ENTRY, LINE, INDEX, HEAD, INDEX_HEAD = 584, 576, 132, 512, 128
# get_compress_state_ring_size, without and with speculative decoding
RINGS, SPECULATIVE_RINGS = {4: 8, 128: 128}, {4: 16, 128: 256}
# DSV4_DEFAULT_SWA_FULL_TOKENS_RATIO, where chunks are off and nothing caps the window
RATIO = 0.1


def page_bytes(entries: int) -> int:
    """KVLayout.V4.page_bytes: entries in whole lines."""
    return -(-entries * ENTRY // LINE) * LINE


def pages(entries: int, own: int, page: int) -> int:
    """_num_dsv4_physical_kv_pages: pages of `own` entries for so many, with a page of tokens of padding."""
    return -(-(entries + page) // own)


class CompressedAllocator(Allocator):
    """layers of all kinds, fine (4 : 1) and coarse (128 : 1). requests: max_running_requests per worker.

    swa_cap: tokens of the window's pool, where max_running_requests decides; else it has swa_ratio of the others' tokens.
    drafting: one layer drafts, for which the sizing leaves as much as a layer takes on average; its pool is not counted.
    """

    page: int
    layers: int
    fine: int
    coarse: int
    window: int
    swa_ratio: float
    swa_cap: int | None
    requests: int
    max_tokens: int | None
    drafting: bool = False

    @property
    def rings(self) -> dict[int, int]:
        return SPECULATIVE_RINGS if self.drafting else RINGS

    @property
    def inflation(self) -> float:
        """_spec_infl: (layers + 1) / layers."""
        return (self.layers + 1) / self.layers if self.drafting else 1.0

    def bounds(self) -> dict[str, tuple[str, int]]:
        return {"batch": ("max_running_requests", self.requests)}

    @property
    def swa_cell(self) -> float:
        """Bytes of a token of the window (_get_bytes_per_swa_token), with the 4 : 1 states that follow its pages."""
        return self._swa_cell * self.inflation

    @property
    def _swa_cell(self) -> float:
        states = 2 * 2 * HEAD * 4 + 2 * 2 * INDEX_HEAD * 4
        ring = self.rings[4] if self.fine else 0
        return page_bytes(self.page) / self.page * self.layers + (ring / self.page * states * self.fine)

    @property
    def full_cell(self) -> float:
        """Bytes of a token, windows included where their pool is a share of the others' (_get_bytes_per_full_token)."""
        fine, coarse = self.page // 4, self.page // 128
        each = (1 / 4 * (page_bytes(fine) / fine) + 1 / 4 * INDEX) * self.fine if self.fine else 0
        rare = 1 / 128 * (page_bytes(coarse) / coarse) * self.coarse if self.coarse else 0
        swa_ratio = 0 if self.swa_cap is not None else self.swa_ratio
        return (swa_ratio * self._swa_cell + (0 + each + rare)) * self.inflation

    def coarse_state(self, requests: int) -> int:
        """Bytes of the 128 : 1 states of so many running requests (_get_c128_state_fixed_bytes)."""
        ring = self.rings[128]
        rows = (requests + 1) * ring + ring + 1
        return -(-rows // 128) * 128 * 2 * HEAD * 4 * self.coarse

    def pool_of(self, tokens: int = 0, swa_tokens: int = 0, requests: int = 0) -> dict[str, int]:
        """Bytes of each pool of these sizes."""
        full, slid = whole("tokens", tokens), whole("swa_tokens", swa_tokens)
        fine, coarse, page = self.page // 4, self.page // 128, self.page
        rows = -(-(slid // page * self.rings[4] + self.rings[4] + 1) // 4) * 4
        return {
            "swa kv": pages(slid, page, page) * page_bytes(page) * self.layers,
            "compressed kv 4": pages(full // 4, fine, page) * page_bytes(fine) * self.fine,
            "index 4": pages(full // 128 * 32, fine, page) * fine * INDEX * self.fine,
            "compressed kv 128": pages(full // 128, coarse, page) * page_bytes(coarse) * self.coarse,
            "state 4": rows * 4 * (HEAD + INDEX_HEAD) * 4 * self.fine,
            "state 128": self.coarse_state(whole("requests", requests)),
        }

    def pool(self, memory_bytes: int) -> SGLangPool:
        """calculate_pool_sizes: the states of requests first, then tokens of all kinds in one ratio."""
        fixed = self.coarse_state(self.requests) + 0 + (0 if self.swa_cap is None else self.swa_cap * self.swa_cell)
        rest = max(memory_bytes - fixed, 0)
        tokens = int(rest / self.full_cell)
        if self.swa_cap is not None and tokens < self.page:
            raise Refused(
                f"The DSV4 SWA pool cap ({self.swa_cap} tokens, {self.swa_cap * self.swa_cell / (1 << 30):.2f} GB) leaves no "
                f"room for the full KV pool within the available {memory_bytes / (1 << 30):.2f} GB."
            )
        full, slid = self._solved(tokens)
        if self.max_tokens is not None and self.max_tokens < full:
            full, slid = self._solved(self.max_tokens)
        if full <= 0:
            raise Refused("Not enough memory. Please try to increase --mem-fraction-static.")
        running, limit = min((self.requests, "max_running_requests"), (full // 2, "tokens"))
        sizes = self.pool_of(full, slid, running)
        return SGLangPool(
            memory_bytes=memory_bytes,
            page=self.page,
            tokens=full,
            full_tokens=full,
            swa_tokens=slid,
            state_slots=None,
            slots_per_request=None,
            max_running_requests=running,
            limited_by=limit,
            pools=tuple(sizes.items()),
            pool_bytes=sum(sizes.values()),
            padding_bytes=sum(self.pool_of().values()),
        )

    def _solved(self, tokens: int) -> tuple[int, int]:
        full = tokens // self.page * self.page
        if self.swa_cap is not None:
            return full, self.swa_cap
        slid = int(full * self.swa_ratio) // self.page * self.page
        if self.window + self.page >= slid:
            raise Refused(
                f"SWA pool ({slid} tokens) cannot hold even one request: the prefill admission floor is "
                f"sliding_window_size ({self.window}) + page_size ({self.page}). Increase --swa-full-tokens-ratio or "
                "the total KV budget."
            )
        return full, slid

    def explain(self, context: int | None) -> list[str]:
        lines = [
            f"pool {name}: {size:,} B of padding before the first token"
            for name, size in self.pool_of().items()
            if size
        ]
        if context is not None:
            count = -(-context // self.page)
            lines.append(
                f"a request of {context:,} tokens: {count:,} pages of {self.page} tokens, "
                f"{count * self.page - context:,} tokens of padding"
            )
        return lines


class Sizing(Record):
    """The options that decide, as `sglang.keep` has checked them. swa_ratio None: not said."""

    page: int
    swa_ratio: float | None
    tails: int
    requests: int
    max_tokens: int | None
    kv_cache_dtype: str
    drafts: Drafts | None
    chunk: int
    overlap: bool


def keep(flat: Sequence[Layer], options: Sizing) -> Kept:
    """Compressed layers and the sliding ones beside them."""
    drafts = options.drafts
    if options.kv_cache_dtype not in ("auto", "fp8_e4m3"):
        raise Refused("assert self.store_dtype == torch.uint8 (DeepSeekV4SingleKVPool): kv_cache_dtype fp8_e4m3 only")
    if options.page != 256:
        raise Refused("In paged swa mode, page_size must be 256.")
    compressed = [part for part in flat if isinstance(part, CompressedAttention)]
    odd = [part for part in compressed if (part.head_dim, part.index_head_dim) not in ((HEAD, INDEX_HEAD), (HEAD, 0))]
    odd += [part for part in compressed if part.ratio not in RINGS]
    if odd or not all(isinstance(part, (CompressedAttention, SlidingAttention)) for part in flat):
        raise NotDescribed(
            "compressed attention beside other layers than DeepSeek-V4's is not described in engine sglang"
        )
    fine, coarse = (sum(part.ratio == ratio for part in compressed) for ratio in RINGS)
    page, window = options.page, compressed[0].window
    rings = RINGS if drafts is None else SPECULATIVE_RINGS
    if drafts is not None:
        # _assert_ring_serves_draft_tokens, get_compress_state_write_pad
        for ratio, held_back, layers in ((4, 8, fine), (128, 128, coarse)):
            most = rings[ratio] - held_back + 2
            if layers and drafts.tokens > most:
                raise Refused(
                    f"speculative_num_draft_tokens={drafts.tokens} exceeds what the c{ratio} compress state ring can keep "
                    f"resident (ring_size={rings[ratio]} serves at most {most} draft tokens)."
                )
    capped = options.swa_ratio is None and options.chunk > 0
    cap = swa_cap(options.requests, window, page, drafts, options.chunk, options.overlap) if capped else 0
    cap += options.tails * (window + page)
    count = ("ceil", "context", page)
    interval = EVICTION_INTERVAL * (drafts.tokens if drafts else 1)
    held = ("min", ("mul", page, count), window + interval + 2 * page)
    state = 4 * (HEAD + INDEX_HEAD) * 4 * rings[4]
    terms = [
        Term(kind="window", layers=len(flat), tensors=(("window_kv", page_bytes(page) // page),), slots=held),
        Term(
            kind="compressed attention",
            layers=fine,
            tensors=(("compressed_kv", page_bytes(page // 4)), ("index_key", page // 4 * INDEX)),
            slots=count,
        ),
        Term(
            kind="compressed attention",
            layers=coarse,
            tensors=(("compressed_kv", page_bytes(page // 128)),),
            slots=count,
        ),
        Term(kind="compression state", layers=fine, tensors=(("waiting_kv", state),), slots=("floor", held, page)),
        Term(kind="compression state", layers=coarse, tensors=(("waiting_kv", rings[128] * 2 * HEAD * 4),), slots=1),
    ]
    allocator = CompressedAllocator(
        page=page,
        layers=len(flat),
        fine=fine,
        coarse=coarse,
        window=window,
        swa_ratio=RATIO if options.swa_ratio is None else options.swa_ratio,
        swa_cap=-(-cap // page) * page if capped else None,
        requests=options.requests,
        max_tokens=options.max_tokens,
        drafting=drafts is not None,
    )
    return Kept(terms=tuple(term for term in terms if term.layers), allocator=allocator)
