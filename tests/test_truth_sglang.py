"""What SGLang 0.5.23 allocates and plans, replayed to the byte (tests/README.md says how the file reads)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import truth
from hypothesis import assume, given
from hypothesis import strategies as st
from replay_sglang import allocator, answers

from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, load
from memcurve.engines.sglang_pools import SGLangAllocator, SGLangPool
from memcurve.engines.sglang_stages import StagedAllocator, stages
from memcurve.layers import (
    ChunkedAttention,
    FullAttention,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    NoState,
    Parallel,
    SlidingAttention,
    SparseIndexer,
)

LINES = list(truth("sglang.jsonl"))
GIB = 1 << 30
QWEN3_NEXT = "Qwen/Qwen3-Next-80B-A3B-Thinking"


def planned(model: Any, memory: int, **options: Any) -> SGLangPool:
    pool = load(model).curve("sglang", **options).pool(memory)
    assert isinstance(pool, SGLangPool)
    return pool


def sizing(model: str, **options: Any) -> SGLangAllocator:
    found = load(model).curve("sglang", **options).allocator
    assert isinstance(found, SGLangAllocator)
    return found


def test_every_recorded_line_is_equal(count: Any) -> None:
    wrong = [found for line in LINES for found in answers(line)]
    cases = sum(len(line.get("cases", [0])) for line in LINES)
    count(f"sglang 0.5.23: {cases} recorded cases, {len(LINES)} pools and models, {len(wrong)} wrong")
    assert wrong == []


def test_no_kind_of_recording_is_missing() -> None:
    classes = [line["cls"] for line in LINES if "cls" in line]
    assert {name: classes.count(name) for name in set(classes)} == {
        "MHATokenToKVPool": 40,
        "DSATokenToKVPool": 12,
        "MLATokenToKVPool": 10,
        "MambaPool": 8,
        "SWAKVPool": 3,
        "DeepSeekV4TokenToKVPool": 2,
        "MHATokenToKVPoolMXFP8": 2,
        "MiniMaxSparseKVPool": 2,
        "HybridLinearKVPool": 1,
        "QSATokenToKVPool": 1,
    }
    cases = [case for line in LINES for case in line.get("cases", ())]
    assert sum("slots" in case for case in cases) > 300
    assert sum("swa" in case for case in cases) > 80
    assert sum("options" in case for case in cases) > 70


# -- figures from logs ----------------------------------------------------------------------------------------------

FIGURES = {entry["id"]: entry for entry in truth("published.jsonl") if entry["engine"] == "SGLang"}


def tensor(name: str, of: str, tokens: int, **options: Any) -> int:
    """Bytes of one tensor in a pool of so many tokens, padding included: the share that a log prints as K or V."""
    curve = load(name).curve("sglang", dtype="bf16", **options)
    own = curve.allocator
    assert isinstance(own, SGLangAllocator)
    each = sum(term.layers * dict(term.tensors).get(of, 0) for term in curve.terms)
    return each * (tokens + own.page)


def sliding(of: str) -> int:
    curve = load("XiaomiMiMo/MiMo-V2-Flash").curve("sglang", tp_size=4, page_size=64)
    term = next(term for term in curve.terms if term.kind == SlidingAttention.kind)
    return term.layers * dict(term.tensors)[of] * (300288 + 64)


def states(model: str, of: str, slots: int) -> int:
    own = sizing(model).states
    assert own is not None
    return (slots + 1) * {"conv": own.conv_bytes, "ssm": own.recurrent_bytes}[of]


QWEN25 = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "dtype": "bfloat16",
}  # fmt: skip
LOGGED: dict[str, Callable[[], int]] = {
    "E65": lambda: sizing("moonshotai/Kimi-K2.5", tp_size=8).pool_of(2454421)["latent"],
    "E68": lambda: tensor("Qwen/Qwen3-235B-A22B-FP8", "key", 367404, tp_size=4),
    "E69": lambda: sliding("key"),
    "E70": lambda: sliding("value"),
    # Qwen3.8-27B has the linear layers of Qwen3.6-27B: 48 of 48 heads (the figure's config_values)
    "E71": lambda: states("nvidia/Qwen3.6-27B-NVFP4", "ssm", 360),
    "E72": lambda: states("nvidia/Qwen3.6-27B-NVFP4", "conv", 360),
    # Qwen3.5-27B too, with 16 layers of 4 heads of 256; its cache was bf16
    "E75": lambda: tensor("nvidia/Qwen3.6-27B-NVFP4", "key", 330323, kv_cache_dtype="bf16"),
    "E76": lambda: states(QWEN3_NEXT, "ssm", 336),
    "E77": lambda: states(QWEN3_NEXT, "conv", 336),
    "E91": lambda: allocator((FullAttention(kv_heads=2, head_dim=64, v_head_dim=64),) * 24).pool_of(20480)["kv"] // 2,
}


@pytest.mark.parametrize("key", list(LOGGED))
def test_a_logged_figure_reproduces(key: str) -> None:
    entry = FIGURES[key]
    assert abs(LOGGED[key]() / GIB - entry["claimed_value"]) <= entry["tolerance"], entry["source"]


def test_no_logged_figure_is_passed_over(count: Any) -> None:
    assert set(LOGGED) == set(FIGURES)
    count(f"published figures of SGLang: {len(LOGGED)} reproduced")


# -- what a request takes -------------------------------------------------------------------------------------------


def test_a_request_takes_whole_pages_and_a_slot() -> None:
    # Qwen3-Next: 24,576 B a token (12 layers, 2 heads of 256, keys and values, bf16), 77,266,944 B of state
    curve = load(QWEN3_NEXT).curve("sglang", page_size=64)
    assert curve.bytes(0, 3) == 3 * 77_266_944
    assert curve.bytes(65) - curve.bytes(0) == 128 * 24_576
    # One slot to run on, two that track it for the radix cache (get_mamba_tracking_slots)
    tracked = load(QWEN3_NEXT).curve("sglang", mamba_radix_cache_strategy="auto")
    assert tracked.bytes(0) == 3 * 77_266_944


def test_a_sliding_layer_holds_what_is_planned_for_a_request() -> None:
    # gpt-oss-20b: 12 of 24 layers slide; of 8 heads of 64 a token takes 2,048 B a layer. compute_swa_request_cap: the
    # window less one, 127, an eviction interval of 128 and two pages of one token: 257 tokens
    curve = load("openai/gpt-oss-20b").curve("sglang")
    assert curve.bytes(257) == 24 * 257 * 2048
    assert curve.bytes(1000) == 12 * 2048 * (1000 + 257)


def test_the_limit_that_binds_is_named() -> None:
    # 10 GiB: 64 slots, three reckoned for a request, so 21 run at once; 232,546 tokens
    pool = planned(QWEN3_NEXT, 10 * GIB)
    assert (pool.max_running_requests, pool.limited_by, pool.tokens) == (21, "state slots", 232546)
    assert (pool.requests(1000), pool.binds(1000)) == (21, "state slots")
    assert (pool.requests(100_000), pool.binds(100_000)) == (2, "tokens")
    # With extra_buffer five are reckoned
    assert planned(QWEN3_NEXT, 10 * GIB, mamba_radix_cache_strategy="auto").max_running_requests == 64 // 5


def test_explain_says_pools_pages_and_padding() -> None:
    text = load(QWEN3_NEXT).curve("sglang", page_size=64).explain(100)
    assert "pool kv (MHATokenToKVPool): 24,576 B a token over 12 layers, pages of 64 tokens" in text
    assert f"a page of padding in front {64 * 24_576:,} B" in text
    assert "pool state (MambaPool): 77,266,944 B a slot over 36 layers, a slot of padding, 3 slots reckoned" in text
    assert "a request of 100 tokens: 2 pages of 64 tokens, 28 tokens of padding, 1 state slot" in text
    assert "extra_buffer" in text


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "memory", "reason"),
    [
        # 44,236.8 B a token (24,576 full, 0.8 · 24,576 sliding): 113 tokens, of which int(90.4) slide; a window takes 127
        ("openai/gpt-oss-20b", {}, 5 * 10**6, "SWA pool (90 tokens) cannot hold even one request"),
        ("openai/gpt-oss-20b", {"swa_full_tokens_ratio": 1.5}, GIB, "--swa-full-tokens-ratio should be in range (0, 1.0]."),
        (QWEN3_NEXT, {}, 10**8, "Not enough GPU memory for hybrid (mamba/linear-attention) state cache"),
        (QWEN3_NEXT, {}, 4 * 10**8, "too small to serve any requests. max_mamba_cache_size=1, mamba_ratio=3"),
        (QWEN3_NEXT, {"tp_size": 3}, GIB, "16 attention heads are not divisible by 3 ranks"),
        (QWEN3_NEXT, {"mamba_radix_cache_strategy": "no_buffer", "page_size": 64}, GIB, "no_buffer only supports page_size=1."),
        (QWEN3_NEXT, {"mamba_radix_cache_strategy": "no_buffer"}, GIB, "no_buffer do not support overlap schedule."),
        (QWEN3_NEXT, {"mamba_radix_cache_strategy": "extra_buffer", "mamba_track_interval": 100, "page_size": 64}, GIB, "mamba_track_interval % page_size == 0"),
        ("LiquidAI/LFM2-1.2B", {"mamba_radix_cache_strategy": "extra_buffer"}, GIB, "extra_buffer is not supported for Lfm2ForCausalLM"),
        ("openai/gpt-oss-20b", {"mamba_radix_cache_strategy": "extra_buffer"}, GIB, "extra_buffer needs mamba state, got GptOssForCausalLM."),
        ("openai/gpt-oss-20b", {"swa_full_tokens_ratio": 0}, GIB, "--swa-full-tokens-ratio should be in range (0, 1.0]."),
        ("openai/gpt-oss-20b", {"chunked_prefill_size": 100, "page_size": 64}, GIB, "chunked_prefill_size must be divisible by page_size"),
        # 4,096 for both workers of attention DP, 2,048 for each
        ("openai/gpt-oss-20b", {"chunked_prefill_size": 4096, "page_size": 4096, "tp_size": 2, "attn_dp_size": 2}, GIB, "chunked_prefill_size must be"),
        ("openai/gpt-oss-20b", {"dp_size": 2, "attn_dp_size": 2, "tp_size": 2}, GIB, "combined with attention data parallelism are not supported."),
        ("openai/gpt-oss-20b", {"attn_cp_size": 2}, GIB, "tp_size must be divisible by attn_cp_size"),
        ("openai/gpt-oss-20b", {"pp_size": 25}, GIB, "assert num_hidden_layers >= pp_size"),
        ("openai/gpt-oss-20b", {"pp_size": 2, "speculative_algorithm": "EAGLE"}, GIB, "only supported on prefill nodes"),
        ("openai/gpt-oss-20b", {"tp_size": 2, "attn_dp_size": 2, "speculative_algorithm": "NGRAM"}, GIB, "ngram speculative decoding does not support dp attention."),
        ("nvidia/Nemotron-H-8B-Base-8K", {"tp_size": 2, "attn_cp_size": 2}, GIB, "Nemotron-H does not support --attn-cp-size > 1"),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_cache_dtype": "fp8_e4m3", "dsa_decode_backend": "tilelang"}, GIB, "requires both DSA backends to be tilelang"),
        ("deepseek-ai/DeepSeek-V3.2", {"dsa_decode_backend": "triton"}, GIB, "only supported on ROCm/HIP"),
        ("deepseek-ai/DeepSeek-V4-Flash", {"swa_prefix_tails": -1}, GIB, "--swa-prefix-tails should be a non-negative integer."),
        # Its hook reads them as they are given, before NEXTN is EAGLE and topk is resolved
        ("deepseek-ai/DeepSeek-V4-Flash", {"speculative_algorithm": "NEXTN"}, GIB, "Only EAGLE and DSPARK"),
        ("deepseek-ai/DeepSeek-V4-Flash", {"speculative_algorithm": "EAGLE"}, GIB, "with topk == 1 is supported"),
        ("deepseek-ai/DeepSeek-V3.2", {"speculative_algorithm": "NGRAM"}, GIB, "is not supported on the attention backend 'dsa'"),
        ("openai/gpt-oss-20b", {"swa_prefix_tails": -1}, GIB, "--swa-prefix-tails should be a non-negative integer."),
        ("LiquidAI/LFM2-1.2B", {"mamba_radix_cache_strategy": "auto", "page_size": 64}, GIB, "no_buffer only supports page_size=1."),
        # A ring of 16 keeps 8 for the compression and 10 of the drafts
        ("deepseek-ai/DeepSeek-V4-Flash", {"speculative_algorithm": "EAGLE", "speculative_num_steps": 10, "speculative_eagle_topk": 1}, GIB, "serves at most 10 draft tokens"),
        (QWEN3_NEXT, {"context_length": 10**6}, GIB, "is greater than the derived context_length (262144)"),
        ("meta-llama/Llama-3.1-8B-Instruct", {}, 10**5, "Not enough memory. Please try to increase --mem-fraction-static."),
        ("meta-llama/Llama-3.1-8B-Instruct", {}, 0, "Loaded weights leave no GPU memory for the KV cache"),
        ("deepseek-ai/DeepSeek-V3.2", {"kv_cache_dtype": "fp8_e5m2"}, GIB, "DeepSeek DSA only supports bf16/bfloat16 or fp8_e4m3"),
        # 256 requests of 128 + 128 + 2 · 256 tokens, two chunks of 8,192, a page, and 4 · 256 tails of 128 + 256: 606,464
        ("deepseek-ai/DeepSeek-V4-Flash", {}, 2 * GIB, "SWA pool cap (606464 tokens, 18.00 GB) leaves no room"),
        # States of 256 requests and padding, 259 · 128 rows of 4 KiB in 20 layers, take 2.5 GiB
        ("deepseek-ai/DeepSeek-V4-Flash", {"swa_full_tokens_ratio": 0.1}, 2 * GIB, "SWA pool (0 tokens) cannot hold even one request"),
    ],
)  # fmt: skip
def test_sglang_refuses(model: str, options: dict[str, Any], memory: int, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        planned(model, memory, **options)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_cache_dtype": "fp7"}, "kv_cache_dtype: 'fp7'; expected one of auto, fp8_e4m3"),
        ({"page_size": 0}, "page_size: 0; expected an integer of 1 or more"),
        ({"tp_size": True}, "tp_size: True; expected an integer of 1 or more"),
        ({"mamba_ssm_dtype": "fp8"}, "mamba_ssm_dtype: 'fp8'; expected one of float32, bfloat16, float16"),
        ({"mamba_radix_cache_strategy": "lazy"}, "mamba_radix_cache_strategy: 'lazy'; expected one of auto, no_buffer"),
        ({"disable_radix_cache": 1}, "disable_radix_cache: 1; expected True or False"),
        ({"speculative_algorithm": "EAGLE", "speculative_eagle_topk": 4}, "speculative_num_draft_tokens: missing"),
        ({"speculative_algorithm": "EAGLE", "speculative_num_steps": 4}, "speculative_eagle_topk: missing"),
        ({"speculative_num_steps": 4}, "speculative_num_steps: 4; expected only with speculative_algorithm"),
        ({"chunked_prefill_size": "8k"}, "chunked_prefill_size: '8k'; expected an integer"),
        ({"dsa_decode_backend": "trt"}, "dsa_decode_backend: 'trt'; expected one of flashmla_sparse"),
        ({"speculative_algorithm": "DFLASH"}, "speculative_algorithm: 'DFLASH'; expected one of EAGLE, NEXTN, NGRAM"),
        ({"mamba_full_memory_ratio": -1}, "mamba_full_memory_ratio: -1; expected a positive number"),
        ({"page_sise": 1}, "page_sise: 1; not an option of engine sglang"),
    ],
)
def test_an_option_says_what_it_expects(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(QWEN3_NEXT).curve("sglang", **options)
    assert message in str(caught.value)


def test_uneven_heads_are_refused_by_a_class_and_sized_without_one() -> None:
    # phi-4: 10 key-value heads. LlamaAttention.__init__ asserts that they divide; get_num_kv_heads takes one for 8 ranks
    with pytest.raises(Refused, match=r"^assert total_num_kv_heads % tp_size == 0: 10 key-value heads and 8 ranks"):
        load("microsoft/phi-4").curve("sglang", tp_size=8)
    assert load("microsoft/phi-4").curve("sglang", tp_size=2).bytes(1) == 40 * 5 * 2 * 128 * 2
    # StarCoder's one head divides into any number; Zaya hands out whole ones
    assert load("mlc/gpt_bigcode").curve("sglang", tp_size=8)
    layers = (FullAttention(kv_heads=10, head_dim=128, v_head_dim=128),)
    assert allocator(layers, tp_size=8).pool_of(127) == {"kv": 128 * 2 * 128 * 2}


def test_layers_of_stages() -> None:
    # get_pp_indices: of 10 layers, 3 stages take 3, 3 and 4
    assert [len(some) for some in stages([NoState()] * 10, 3)] == [3, 3, 4]
    assert [len(some) for some in stages([NoState()] * 11, 3)] == [3, 4, 4]
    # Llama-3.1-70B: 80 layers of 8 heads, 4,096 B a token; 26, 27 and 27 layers
    curve = load("meta-llama/Meta-Llama-3.1-70B").curve("sglang", pp_size=3)
    assert curve.bytes(100) == 27 * 4096 * 100
    assert "stage 2 of 3; a token on each stage: 106,496 B, 110,592 B, 110,592 B" in curve.explain(1)
    assert any("number 2, whose layers take the most" in note for note in curve.notes)
    pool = curve.pool(GIB)
    assert isinstance(pool, SGLangPool)
    assert pool.tokens == GIB // (27 * 4096)
    own = curve.allocator
    assert isinstance(own, StagedAllocator)
    assert [one.tokens for one in own.pools(GIB)] == [pool.tokens] * 3
    with pytest.raises(NotDescribed, match="pp_size: 2; the model's class has no pipeline stages"):
        load(QWEN3_NEXT).curve("sglang", pp_size=2)


def test_what_a_server_turns_down_and_the_sizing_answers_is_a_note() -> None:
    def notes(model: str, **options: Any) -> str:
        return "\n".join(load(model).curve("sglang", **options).notes)

    assert '"auto" down here: no_buffer only supports page_size=1.' in notes("LiquidAI/LFM2-1.2B", page_size=64)
    assert "turns page_size 48 down with its own chunked_prefill_size" in notes("openai/gpt-oss-20b", page_size=48)
    assert "turns page_size" not in notes("openai/gpt-oss-20b", page_size=64)
    assert "sets page_size 64 for this model" in notes("deepseek-ai/DeepSeek-V3.2", page_size=1)
    assert "page_size 256: a server sets it" in notes("deepseek-ai/DeepSeek-V4-Flash", page_size=64)
    v4 = load("deepseek-ai/DeepSeek-V4-Flash")
    assert v4.curve("sglang", page_size=64).bytes(1000) == v4.curve("sglang").bytes(1000)
    assert "before Blackwell" in notes("openai/gpt-oss-20b", kv_cache_dtype="mxfp8")
    assert "flashinfer backend only" in notes(QWEN3_NEXT, speculative_algorithm="NGRAM", page_size=64)


def test_drafts_are_counted_as_sglang_resolves_them() -> None:
    # NGRAM: 12 tokens in a tree, so a convolution's columns are kept apart for each: 36 layers · 12 · 3 · 8,192 · 2 B
    own = sizing(QWEN3_NEXT, speculative_algorithm="NGRAM").states
    assert own is not None
    assert own.draft_bytes == 36 * 12 * (3 * 8192 * 2 + 32 * 128 * 128 * 4)
    # EAGLE: 4 tokens in a chain share a window of 4 + 3 - 1 columns; steps decide over tokens where topk is 1
    for more in ({}, {"speculative_num_steps": 3, "speculative_eagle_topk": 1, "speculative_num_draft_tokens": 9}):
        own = sizing(QWEN3_NEXT, speculative_algorithm="EAGLE", **more).states
        assert own is not None
        assert own.draft_bytes == 36 * (6 * 8192 * 2 + 4 * 32 * 128 * 128 * 4)
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("sglang", speculative_algorithm="EAGLE")
    assert "8 draft tokens, as SGLang sets them" in curve.notes


def test_what_sglang_has_no_class_for_is_named() -> None:
    for model in ("ai21labs/Jamba-v0.1", "google/recurrentgemma-2b"):
        with pytest.raises(
            NotDescribed, match="is not in SGLang's registry; its fallback to Transformers is not described"
        ):
            load(model).curve("sglang")


# -- properties -----------------------------------------------------------------------------------------------------

HEADS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([64, 128]),
    v_head_dim=st.sampled_from([64, 128]),
)
LAYERS = st.one_of(
    HEADS.map(lambda heads: FullAttention(**heads)),
    HEADS.map(lambda heads: SlidingAttention(**heads, window=128)),
    HEADS.map(lambda heads: ChunkedAttention(**heads, chunk=256)),
    st.just(LatentAttention(kv_lora_rank=512, rope_head_dim=64)),
    st.just(Parallel(parts=(LatentAttention(kv_lora_rank=512, rope_head_dim=64), SparseIndexer(head_dim=128)))),
    st.just(GatedDeltaNet(key_heads=8, value_heads=16, key_dim=128, value_dim=128, conv_kernel=4)),
    st.just(Mamba2(heads=16, head_dim=64, state_size=128, groups=1, intermediate=1024, conv_kernel=4)),
)
OPTIONS = st.fixed_dictionaries(
    {
        "page_size": st.sampled_from([1, 16, 64]),
        "tp_size": st.sampled_from([1, 2, 4, 8]),
        "kv_cache_dtype": st.sampled_from(["auto", "fp8_e4m3"]),
        "disable_radix_cache": st.booleans(),
        "context_length": st.just(4096),
    }
)


def curve_of(layers: list[Any], options: dict[str, Any]) -> MemoryCurve:
    from memcurve.engines import keep

    kept = keep("sglang", tuple(layers), "bfloat16", options, {})
    return MemoryCurve(name="random", engine="sglang", dtype="bfloat16", terms=kept.terms, allocator=kept.allocator)


@given(st.lists(LAYERS, min_size=1, max_size=6), OPTIONS, st.integers(0, 5000), st.integers(0, 2000), st.integers(1, 5))
def test_bytes_never_fall_with_context(
    layers: list[Any], options: dict[str, Any], context: int, more: int, batch: int
) -> None:
    curve = curve_of(layers, options)
    assert curve.monotone
    assert curve.bytes(context, batch) <= curve.bytes(context + more, batch)


@given(st.lists(LAYERS, min_size=1, max_size=6), OPTIONS, st.integers(10**8, 10**12))
def test_a_pool_without_its_padding_never_exceeds_its_memory(
    layers: list[Any], options: dict[str, Any], memory: int
) -> None:
    # Beside states SGLang stores values with the size of keys, and counts them with their own (HybridLinearKVPool).
    heads = [layer for layer in layers if isinstance(layer, (FullAttention, SlidingAttention, ChunkedAttention))]
    assume(all(layer.head_dim == layer.v_head_dim for layer in heads))
    try:
        pool = curve_of(layers, options).pool(memory)
    except Refused:
        return
    assert isinstance(pool, SGLangPool)
    own = curve_of(layers, options).allocator
    assert isinstance(own, SGLangAllocator)
    if own.pools:
        assert pool.pool_bytes - pool.padding_bytes <= memory


@given(st.lists(LAYERS, min_size=1, max_size=6), OPTIONS, st.integers(0, 5000))
def test_ranks_together_never_hold_less_than_one(layers: list[Any], options: dict[str, Any], context: int) -> None:
    ranks = options["tp_size"]
    one = curve_of(layers, {**options, "tp_size": 1}).bytes(context)
    assert one <= ranks * curve_of(layers, options).bytes(context) <= ranks * one
