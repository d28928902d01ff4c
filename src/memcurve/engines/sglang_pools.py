"""What SGLang 0.5.23 makes of memory on one rank: tokens of the pools, state slots, running requests, bytes of each.

Sources, under sglang/srt: mem_cache/memory_pool.py, swa_memory_pool.py and qsa_kv_pool.py (what a pool allocates),
model_executor/pool_configurator.py (tokens from bytes), mem_cache/kv_cache_configurator.py (state slots, requests).
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Record, Refused, whole
from ..terms import Allocator, Pool, Served
from ..units import show_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..terms import Expr, Share

GIB = 1 << 30


class TokenPool(Record):
    """Tensors of one pool class over all layers of a rank that it serves.

    token_bytes: bytes of a token over these layers; cell_bytes: what the configurator counts for it. sliding: of the
    pool's smaller count of tokens. The count of rows for N tokens and pages of P:

        per = "token"  N + P                       "page"  (N + P + 1) // P pages of P // group (IndexKeyCache)
              "group"  ceil((N + P) / group)       (QSATokenToKVPool)

    key_bytes: what of token_bytes are keys. fused: keys and values are halves of one tensor, whose rows are allocated in whole pages (_create_buffers_normal).
    """

    name: str
    cls: str
    layers: int
    token_bytes: int
    cell_bytes: int
    sliding: bool = False
    per: str = "token"
    group: int = 1
    fused: bool = False
    draft: bool = False
    key_bytes: int = 0

    def bytes(self, tokens: int, page: int, storage: bool = False) -> int:
        """Bytes of the pool for so many tokens, with its page of padding; storage: as allocated."""
        rows = tokens + page
        if self.per == "page":
            return (rows + 1) // page * (page // self.group) * self.token_bytes
        if self.per == "group":
            return -(-rows // self.group) * self.token_bytes
        return (-(-rows // page) * page if storage and self.fused else rows) * self.token_bytes


class StatePool(Record):
    """MambaPool: slots of convolutions and matrices, one of them padding. Bytes of a slot, over all layers of a rank.

    beside_bytes: of a slot, that the configurator does not count (ple_state_pool.py). draft_bytes: of a running
    request, what verifying drafts takes (SpeculativeState).
    """

    layers: int
    conv_bytes: int
    recurrent_bytes: int
    beside_bytes: int = 0
    draft_bytes: int = 0

    @property
    def slot_bytes(self) -> int:
        return self.conv_bytes + self.recurrent_bytes

    def bytes(self, slots: int, requests: int) -> int:
        drafts = (requests + 1) * self.draft_bytes if self.draft_bytes else 0
        return (slots + 1) * (self.slot_bytes + self.beside_bytes) + drafts


class SGLangPool(Pool):
    """What SGLang makes of memory on one rank.

    tokens: max_total_num_tokens, of all requests together; full_tokens and swa_tokens of both pools where layers
    slide. state_slots: max_mamba_cache_size. max_running_requests, and what it is limited by. pools: bytes of each.
    padding_bytes of them are the page and the slot in front, which SGLang does not count when it sizes a pool: without
    them a pool never exceeds its memory.
    """

    memory_bytes: int
    page: int
    tokens: int
    full_tokens: int | None
    swa_tokens: int | None
    state_slots: int | None
    slots_per_request: int | None
    max_running_requests: int
    limited_by: str
    pools: tuple[tuple[str, int], ...]
    padding_bytes: int

    @property
    def units(self) -> int:
        return self.tokens

    def requests(self, context: int) -> int:
        """How many requests of so many tokens run at once."""
        return self.binding(context)[0]

    def binds(self, context: int) -> str:
        """What keeps one more request of so many tokens out: tokens, or what limits max_running_requests."""
        return self.binding(context)[1]

    @property
    def shares(self) -> tuple[Share, ...]:
        pages: Expr = ("mul", ("ceil", "context", self.page), self.page)
        return (self.limited_by, self.max_running_requests, 1), ("tokens", self.tokens, pages)

    def binding(self, context: int) -> tuple[int, str]:
        """How many requests of so many tokens run at once, and what keeps one more out."""
        found = super().binding(context)
        assert found is not None
        return found


class SGLangAllocator(Allocator):
    """The sizing of one rank.

    hybrid: full and sliding layers have pools of their own, the second swa_ratio of the first in tokens, or swa_cap
    tokens where max_running_requests decides (SWARequestCapPoolConfigurator). window: of the smallest pool that serves
    a request. slots_per_request: what the sizing reckons for a running request; held_slots: what one takes.
    requests: the user's max_running_requests per worker, or None. request_bytes: of each running request and of
    request_padding more, outside the sizing. slot_cost: what the sizing counts for a state slot, the one of the pipeline
    stage with the most; elsewhere: another stage has the layers that hold tokens. chunk: tokens
    of one prefill (chunked_prefill_size); ahead: whether scheduling overlaps.
    """

    page: int
    pools: tuple[TokenPool, ...]
    states: StatePool | None
    hybrid: bool
    window: int | None
    swa_ratio: float
    swa_cap: int | None
    state_ratio: float
    state_slots: int | None
    slots_per_request: int
    held_slots: int
    draft_tokens: int | None
    requests: int | None
    one_slot: bool
    max_tokens: int | None
    context_length: int | None
    request_bytes: int = 0
    request_padding: int = 1
    slot_cost: int = 0
    elsewhere: bool = False
    chunk: int = 8192
    ahead: bool = True

    # -- from sizes -----------------------------------------------------------------------------------------------

    def pool_of(
        self,
        tokens: int = 0,
        swa_tokens: int | None = None,
        state_slots: int | None = None,
        requests: int = 0,
        storage: bool = False,
    ) -> dict[str, int]:
        """Bytes of each pool of these sizes; requests: running ones, for what is kept per request.

        As each pool reports them (get_kv_size_bytes), or storage: as allocated, more where tokens are no whole pages.
        """
        full = whole("tokens", tokens)
        slid = full if swa_tokens is None else whole("swa_tokens", swa_tokens)
        found = {pool.name: pool.bytes(slid if pool.sliding else full, self.page, storage) for pool in self.pools}
        if self.states is not None and state_slots is not None:
            found["state"] = self.states.bytes(whole("state_slots", state_slots), whole("requests", requests))
        if self.request_bytes:
            found["per request"] = (requests + self.request_padding) * self.request_bytes
        return found

    def cell_bytes(self, sliding: bool = False) -> int:
        """Bytes of a token as the configurator counts it, of the full or of the sliding pool."""
        return sum(pool.cell_bytes for pool in self.pools if pool.sliding == sliding)

    def bounds(self) -> dict[str, tuple[str, int]]:
        found = {"context": ("context_length", self.context_length), "batch": ("max_running_requests", self.requests)}
        return {axis: (name, most) for axis, (name, most) in found.items() if most is not None}

    # -- from memory ----------------------------------------------------------------------------------------------

    def pool(self, memory_bytes: int, most: int | None = None) -> SGLangPool:
        """The pools that SGLang makes of so many bytes: what mem_fraction_static leaves beside weights and activations.

        most: tokens that another pipeline stage holds. Source: _profile_available_bytes, config_from_budget and
        resolve_max_num_reqs of KVCacheConfigurator. Memory is counted there in GiB as floats, and so here.
        """
        full, slid, slots = self._profiled(memory_bytes)
        tokens = full or slid
        limits = [limit for limit in (self.max_tokens, most) if limit is not None]
        if limits and min(limits) < tokens:
            full, slid = self._solved(min(limits))
            tokens = full or slid
        if tokens <= 0:
            raise Refused("Not enough memory. Please try to increase --mem-fraction-static.")
        running, limit = self._running(tokens, slots)
        sizes = self.pool_of(full, slid, slots, running)
        padding = self.pool_of(0, 0, None if slots is None else 0)
        return SGLangPool(
            memory_bytes=memory_bytes,
            page=self.page,
            tokens=tokens,
            full_tokens=full if self.hybrid else None,
            swa_tokens=slid if self.hybrid else None,
            state_slots=slots,
            slots_per_request=None if slots is None else self.slots_per_request,
            max_running_requests=running,
            limited_by=limit,
            pools=tuple(sizes.items()),
            pool_bytes=sum(sizes.values()),
            padding_bytes=sum(padding.values()),
        )

    def capacity(self, memory_bytes: int) -> int:
        """Tokens that so many bytes hold, before those of other pipeline stages are known."""
        full, slid, _ = self._profiled(memory_bytes)
        tokens = full or slid
        if tokens <= 0:
            raise Refused("Not enough memory. Please try to increase --mem-fraction-static.")
        return tokens if self.max_tokens is None else min(tokens, self.max_tokens)

    def _profiled(self, memory_bytes: int) -> tuple[int, int, int | None]:
        """Tokens of the full and of the sliding pool, and state slots."""
        rest, slots = memory_bytes / GIB, None
        if self.states is not None:
            rest, slots = self._states(rest)
        if rest <= 0:
            raise Refused("Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static.")
        return *self._tokens(int(rest * GIB)), slots

    def _states(self, rest: float) -> tuple[float, int]:
        """What is left beside the state slots, and how many there are (_handle_max_mamba_cache); rest in GiB."""
        each, drafts = self.slot_cost, self.draft_tokens
        if each == 0:
            raise Refused("the states take no bytes, by which SGLang divides to size them")
        if self.state_slots is not None:
            slots = self.state_slots
        else:
            budget = rest * self.state_ratio / (1 + self.state_ratio) * GIB
            if drafts is None:
                slots = int((budget - each) // each)
            else:
                slots = int((budget - each * (1 + drafts)) // (each * (1 + drafts / self.slots_per_request)))
        if drafts is not None and self.requests is not None:
            running = slots if self.one_slot else min(self.requests, slots // self.slots_per_request)
            rest -= each * (running + 1) * drafts / GIB
        if slots <= 0:
            raise Refused(
                "Not enough GPU memory for hybrid (mamba/linear-attention) state cache. Computed max_mamba_cache_size="
                f"{slots} (total_rest_memory={rest:.2f} GB, mamba_cache_per_req={each / (1 << 20):.2f} MB)."
            )
        return rest - (slots + 1) * each / GIB, slots

    def _tokens(self, available: int) -> tuple[int, int]:
        """Tokens of the full and of the sliding pool (calculate_pool_sizes)."""
        full, slid = self.cell_bytes(), self.cell_bytes(sliding=True)
        if not self.hybrid:
            if full:
                return self._solved(available // full)
            if self.elsewhere:
                return self._solved(2**63 - 1)
            return self._solved(self.max_tokens or self._longest("the tokens without attention"))
        if self.swa_cap is not None:
            cap = -(-self.swa_cap // self.page) * self.page
            tokens = (available - cap * slid) // full // self.page * self.page
            if tokens <= 0:
                raise Refused(
                    f"SWA pool cap ({cap} tokens, {cap * slid / GIB:.2f} GiB) leaves no room for the full KV pool "
                    f"within the available {available / GIB:.2f} GiB."
                )
            return tokens, cap
        if not self._full_layers:
            return self._solved(available // (slid + full))
        return self._solved(int(available // (full + self.swa_ratio * slid)))

    def _longest(self, why: str) -> int:
        if self.context_length is None:
            raise BadConfig(f"context_length: missing in the config; give it, since it decides {why}")
        return self.context_length

    @property
    def _full_layers(self) -> bool:
        return any(not pool.sliding and not pool.draft for pool in self.pools)

    def _solved(self, tokens: int) -> tuple[int, int]:
        """Whole pages of both pools (_solve_pool_sizes, calculate_pool_sizes_from_max_tokens)."""
        full = tokens // self.page * self.page
        if not self.hybrid:
            return full, 0
        if self.swa_cap is not None:
            return full, min(-(-self.swa_cap // self.page) * self.page, tokens)
        if not self._full_layers:
            return 0, full
        slid = int(full * self.swa_ratio) // self.page * self.page
        if self.window is not None and self.window + self.page >= slid:
            raise Refused(
                f"SWA pool ({slid} tokens) cannot hold even one request: the prefill admission floor is "
                f"sliding_window_size ({self.window}) + page_size ({self.page}). Increase --swa-full-tokens-ratio or "
                "the total KV budget."
            )
        return full, slid

    def _running(self, tokens: int, slots: int | None) -> tuple[int, str]:
        """max_running_requests, and what limits it (resolve_max_num_reqs)."""
        limits = [(tokens // 2, "tokens")]
        if slots is not None:
            limits.append((slots // self.slots_per_request, "state slots"))
        if self.requests is not None:
            limits.insert(0, (self.requests, "max_running_requests"))
        elif min(limits)[0] > 2048:
            estimate = int(tokens / self._longest("max_running_requests") * 512)
            limits.insert(0, (max(min(estimate, 4096), 2048), "max_running_requests"))
        running, limit = min(limits, key=lambda one: one[0])
        if slots is not None and running <= 0:
            raise Refused(
                "Hybrid (mamba/linear-attention) state cache is too small to serve any requests. max_mamba_cache_size="
                f"{slots}, mamba_ratio={self.slots_per_request}, resulting max_num_reqs={running}."
            )
        return running, limit

    # -- its scheduler --------------------------------------------------------------------------------------------

    def longest_request(self) -> int:
        """max_req_len - 1 where the pool holds one (managers/tp_worker.py, Scheduler.init_req_max_new_tokens)."""
        return self._longest("the longest request") - 2

    def serve(self, memory_bytes: int, requests: Sequence[tuple[int, int]]) -> Served:
        from .sglang_scheduler import Scheduler

        if self.hybrid:
            raise NotDescribed("sglang: how prompts share a pool of full and one of sliding layers is not described")
        if self.draft_tokens is not None:
            raise NotDescribed("sglang: how many tokens a step gives depends on what is accepted of a draft")
        pool = self.pool(memory_bytes)
        scheduler = Scheduler(
            pool.tokens, self.page, pool.max_running_requests, pool.limited_by, self.chunk, self.ahead
        )
        run = scheduler.run(requests)
        longest = self.longest_request()
        slots: tuple[tuple[str, int, int], ...] = ()
        if pool.state_slots is not None:
            slots = (("state slots", run.peak * self.held_slots, pool.state_slots),)
        return Served(
            running=run.peak,
            mean=run.full_area / run.full_steps if run.full_steps else float(run.peak),
            preemptions=run.preemptions,
            steps=run.steps,
            used=(("tokens", run.tokens, pool.tokens), *slots),
            bound_by="requests" if run.peak == len(requests) else max(run.bound, key=lambda one: run.bound[one]),
            pessimistic=float(pool.requests(longest)),
            longest=longest,
        )

    # -- explanation ----------------------------------------------------------------------------------------------

    def explain(self, context: int | None) -> list[str]:
        lines = [
            f"pool {pool.name} ({pool.cls}): {pool.cell_bytes:,} B a token over {show_count(pool.layers, 'layer')}, "
            f"pages of {show_count(self.page, 'token')}, a page of padding in front {pool.bytes(0, self.page):,} B"
            for pool in self.pools
        ]
        if self.states is not None:
            lines.append(
                f"pool state (MambaPool): {self.states.slot_bytes:,} B a slot over {show_count(self.states.layers, 'layer')}, "
                f"a slot of padding, {show_count(self.slots_per_request, 'slot')} reckoned for a running request"
            )
        if context is not None:
            pages = -(-context // self.page)
            text = f"a request of {show_count(context, 'token')}: {show_count(pages, 'page')} of {show_count(self.page, 'token')}"
            text += f", {show_count(pages * self.page - context, 'token')} of padding"
            if self.states is not None:
                text += f", {show_count(self.held_slots, 'state slot')}"
            lines.append(text)
            if self.context_length is not None and context > self.context_length:
                lines.append(
                    f"SGLang turns such a request down: more than context_length {self.context_length:,} tokens"
                )
        return lines
