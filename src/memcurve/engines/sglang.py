"""SGLang 0.5.23, one rank: a pool of tokens that requests share, one more where layers slide, and slots of states.

What a layer keeps is in sglang_layers, how memory becomes pools in sglang_pools, and what pipeline stages make of it in
sglang_stages; options are resolved and refused as SGLang's server does (arg_groups/) in sglang_options. The count is of
one rank on an NVIDIA GPU, an H100 where it matters; of pipeline stages the one whose layers take the most bytes a token.

What a request takes: its tokens in whole pages; in sliding layers at most what SGLang plans for one, the window, an
eviction interval of 128 tokens and two pages (compute_swa_request_cap); and the state slot that it runs on, with those
that track it under mamba_radix_cache_strategy extra_buffer (HybridReqToTokenPool.alloc). The pool reckons more slots
for a running request than it takes, since the radix cache keeps states of prefixes: three, or five.
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Refused, whole
from ..layers import ChunkedAttention, CompressedAttention, FullAttention, SlidingAttention, parts
from ..terms import Kept, collect_terms
from ..units import dtype_bytes
from . import sglang_options as option
from . import sglang_v4
from .ranks import replicated
from .sglang_layers import (
    STATES,
    Rank,
    as_full,
    draft_pools,
    request_bytes_of,
    slides,
    state_pool,
    state_terms,
    token_pools,
    token_terms,
    tokens_of,
    window_of,
)
from .sglang_options import EVICTION_INTERVAL, TRACKING
from .sglang_pools import SGLangAllocator
from .sglang_stages import StagedAllocator, stages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..layers import Layer

OPTIONS = (
    "tp_size", "pp_size", "dp_size", "attn_dp_size", "attn_cp_size", "enable_dp_attention", "page_size", "kv_cache_dtype",
    "context_length", "max_running_requests", "max_total_tokens", "chunked_prefill_size", "disable_radix_cache",
    "disable_overlap_schedule", "swa_full_tokens_ratio", "swa_prefix_tails", "disable_hybrid_swa_memory",
    "mamba_full_memory_ratio", "max_mamba_cache_size", "mamba_ssm_dtype", "mamba_radix_cache_strategy",
    "mamba_track_interval", "speculative_algorithm", "speculative_num_draft_tokens", "speculative_num_steps",
    "speculative_eagle_topk", "speculative_ngram_max_bfs_breadth", "dsa_prefill_backend", "dsa_decode_backend",
)  # fmt: skip
CACHE_DTYPES = ({"kv_cache_dtype": "bf16"}, {"kv_cache_dtype": "fp8_e4m3"})


def keep(
    layers: Sequence[Layer],
    dtype: str,
    model: Mapping[str, Any] | None = None,
    *,
    tp_size: int = 1,
    pp_size: int = 1,
    dp_size: int = 1,
    attn_dp_size: int = 1,
    attn_cp_size: int = 1,
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
    swa_prefix_tails: int | None = None,
    disable_hybrid_swa_memory: bool = False,
    mamba_full_memory_ratio: float | None = None,
    max_mamba_cache_size: int | None = None,
    mamba_ssm_dtype: str | None = None,
    mamba_radix_cache_strategy: str | None = None,
    mamba_track_interval: int = 256,
    speculative_algorithm: str | None = None,
    speculative_num_draft_tokens: int | None = None,
    speculative_num_steps: int | None = None,
    speculative_eagle_topk: int | None = None,
    speculative_ngram_max_bfs_breadth: int | None = None,
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
    tp, workers = option.ranks(tp_size, dp_size, attn_dp_size, attn_cp_size, enable_dp_attention)
    pp = whole("pp_size", pp_size, 1)
    option.check_class(facts, pp_size=pp, attn_cp_size=attn_cp_size, attn_dp_size=workers)
    flat = [part for layer in layers for part in parts(layer)]
    compressed = any(isinstance(part, CompressedAttention) for part in flat)
    page = whole("page_size", facts.get("page_size", 1) if page_size is None else page_size, 1)
    if compressed:  # _deepseek_v4_overrides sets it whatever is given
        page = facts.get("page_size", page)
    chunk = option.chunk(chunked_prefill_size, workers, page)
    drafts = option.drafts(
        speculative_algorithm,
        speculative_num_draft_tokens,
        speculative_num_steps,
        speculative_eagle_topk,
        speculative_ngram_max_bfs_breadth,
        facts,
    )
    tokens_drafted = None if drafts is None else drafts.tokens
    overlap = not disable_overlap_schedule and pp == 1  # _pipeline_parallel_overlap_disable
    asked = (speculative_algorithm, speculative_eagle_topk)
    option.check_drafts(drafts, asked, pp, workers, facts.get("sparse", False), compressed)
    requests = option.requests(max_running_requests, workers, drafts, compressed)
    strategy, strategy_notes = option.strategy(
        mamba_radix_cache_strategy,
        page,
        disable_radix_cache,
        not overlap,
        whole("mamba_track_interval", mamba_track_interval, 1),
        tokens_drafted,
        facts,
    )
    heads = {part.kv_heads for part in flat if isinstance(part, (FullAttention, SlidingAttention, ChunkedAttention))}
    notes = option.check_heads(tp, facts.get("attention_heads"), heads | set(facts.get("kv_heads", ())), facts)
    if dtype == "int8":
        raise BadConfig("dtype: 'int8'; expected bfloat16, float16 or float32 (kv_cache_dtype is the cache's)")
    tails = option.tails(swa_prefix_tails)
    ratio = option.ratio("swa_full_tokens_ratio", swa_full_tokens_ratio, facts.get("swa_full_tokens_ratio", 0.8), 1.0)
    notes += option.server_notes(facts, page_size, page, kv_cache_dtype, chunk)
    notes += strategy_notes if any(isinstance(part, STATES) for part in flat) else []
    max_tokens = None if max_total_tokens is None else whole("max_total_tokens", max_total_tokens, 1)
    if compressed:
        if pp > 1 or disable_hybrid_swa_memory:
            what = "pipeline stages" if pp > 1 else "disable_hybrid_swa_memory"
            raise NotDescribed(f"{what} with compressed attention: not described in engine sglang")
        sizing = sglang_v4.Sizing(
            page=page,
            swa_ratio=None if swa_full_tokens_ratio is None else ratio,
            tails=(0 if disable_radix_cache else 4 * (requests or 1)) if tails is None else tails,
            requests=requests or 1,
            max_tokens=max_tokens,
            kv_cache_dtype=kv_cache_dtype,
            drafts=drafts,
            chunk=option.CHUNK // workers if chunk is None else chunk,
            overlap=overlap,
        )
        made = sglang_v4.keep(flat, sizing)
        notes += [option.CHUNK_NOTE] if chunk is None and swa_full_tokens_ratio is None else []
        notes += option.draft_notes(drafts, speculative_num_draft_tokens, page) if drafts else []
        return made.replace(notes=tuple(notes))
    stateful = [part for part in flat if isinstance(part, STATES)]
    rank = Rank(
        tp=tp,
        # configs/mamba.py and mamba2.py divide by tp_size, the others by what attention divides by
        state_tp=tp_size if facts.get("states_by_all") else tp,
        e=option.kv_bytes(kv_cache_dtype, dtype, facts),
        # get_minimax_sparse_index_dtype on an H100
        index=1 if kv_cache_dtype == "fp8_e4m3" else dtype_bytes(dtype),
        s=option.state_bytes(mamba_ssm_dtype, facts.get("state_dtype", "float32")),
        mxfp8=kv_cache_dtype == "mxfp8",
        latent_fp8=option.packed(kv_cache_dtype, dsa_prefill_backend, dsa_decode_backend, facts.get("sparse", False)),
        conv_heads=tuple(facts.get("conv_heads", ())),
        beside=tuple(facts.get("beside", ())),
        index_group=facts.get("index_group", 1),
        index_ratio=facts.get("index_ratio", 0),
        stored_as_full=facts.get("stored_as_full"),
        values_as_keys=bool(stateful),
    )
    own = 1 + (TRACKING[strategy] if strategy else 0)
    if strategy == "extra_buffer" and not overlap:
        own -= 1
    window = facts["window"] if "window" in facts else max((window_of(part) for part in flat), default=0) or None
    if disable_hybrid_swa_memory:
        window = facts.get("window")
    whole_states = state_pool(flat, rank, drafts) if stateful else None
    state_ratio = option.ratio(
        "mamba_full_memory_ratio", mamba_full_memory_ratio, facts.get("mamba_full_memory_ratio", 0.9)
    )
    staged = [[part for layer in some for part in parts(layer)] for some in stages(layers, pp)]
    if disable_hybrid_swa_memory:
        staged = [[facts.get("full", as_full(part)) if slides(part) else part for part in some] for some in staged]
    kept = [list(tokens_of(some, rank)) for some in staged]
    hybrid = any(one.sliding for some in kept for one in some)
    most = max(sum(isinstance(part, STATES) for part in some) for some in staged)
    cap_notes: list[str] = []
    sized = []
    for some, held in zip(staged, kept, strict=True):
        pools = token_pools(held)
        if hybrid and not any(pool.sliding for pool in pools):
            raise Refused("Hybrid SWA model must have at least one SWA layer")
        cap = None
        capped = hybrid and disable_radix_cache and chunk != 0 and any(not pool.sliding for pool in pools)
        if capped and requests is not None and window is not None:
            cap = option.swa_cap(requests, window, page, drafts, chunk or option.CHUNK // workers, overlap)
            cap_notes = [option.CHUNK_NOTE] if chunk is None else []
        sized.append(
            SGLangAllocator(
                page=page,
                pools=(*pools, *draft_pools(pools, drafts.layers if drafts else 0, facts.get("draft_sliding"))),
                states=state_pool(some, rank, drafts) if whole_states is not None else None,
                hybrid=hybrid,
                window=window,
                swa_ratio=ratio,
                swa_cap=cap,
                state_ratio=state_ratio,
                state_slots=option.slots(max_mamba_cache_size, workers, requests if disable_radix_cache else None),
                slots_per_request=1 if disable_radix_cache else 2 + own,
                held_slots=own,
                draft_tokens=tokens_drafted,
                requests=requests,
                one_slot=disable_radix_cache and max_mamba_cache_size is None,
                max_tokens=max_tokens,
                context_length=option.context(context_length, facts.get("context_length")),
                request_bytes=sum(request_bytes_of(part, rank, facts, tokens_drafted) for part in some),
                request_padding=2 if rank.index_group > 1 else 1,
                slot_cost=int(whole_states.slot_bytes * (most / len(stateful))) if whole_states is not None else 0,
                elsewhere=pp > 1 and any(kept),
                chunk=chunk or option.CHUNK // workers,
                ahead=overlap,
            )
        )
    costs = [one.cell_bytes() + ratio * one.cell_bytes(sliding=True) for one in sized]
    bound = costs.index(max(costs))
    notes += [*replicated(layers, tp), *facts.get("notes", ()), *cap_notes]
    if pp > 1:
        notes.append(f"of {pp} pipeline stages this is number {bound + 1}, whose layers take the most bytes a token")
    if drafts is not None:
        notes += option.draft_notes(drafts, speculative_num_draft_tokens, page)
    if (
        whole_states is not None
        and mamba_radix_cache_strategy is None
        and facts.get("extra_buffer")
        and not disable_radix_cache
    ):
        notes.append(
            "three state slots are reckoned for a running request; a server on a GPU resolves mamba_radix_cache_strategy "
            '"auto" to extra_buffer for this model, which makes them five: give it to count so'
        )
    interval = EVICTION_INTERVAL * (drafts.tokens if drafts else 1)
    terms = collect_terms([*token_terms(kept[bound], page, window, interval), *state_terms(staged[bound], rank, own)])
    allocator = sized[0] if pp == 1 else StagedAllocator(stages=tuple(sized), bound=bound)
    return Kept(terms=terms, notes=tuple(notes), allocator=allocator)
