"""What vLLM 0.33.0's own planning code reserved, replayed to the byte (tests/README.md says how the files read)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import lines, unquantised

import memcurve
from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, load
from memcurve.engines.vllm import OPTIONS
from memcurve.engines.vllm_blocks import Spec, VllmAllocator, VllmPool, make_groups, terms_of
from memcurve.terms import compile_expr

ENTRIES = list(lines("vllm.jsonl"))
GIB = 2**30


def answered(entry: dict[str, Any], options: dict[str, Any]) -> MemoryCurve:
    """The curve of a config, or of specs as vLLM's planning was given them where it has no class for the model."""
    if "specs" not in entry:
        return load(entry.get("config") or unquantised(entry["catalogue"])).curve("vllm", **options)
    specs = [
        Spec(
            kind=row["cache"],
            cache=row["cache"],
            tensors=(("row", row["row"]),),
            block=row["block"],
            page=row["page"],
            held=row["held"],
        )
        for row in entry["specs"]
        for _ in range(row["layers"])
    ]
    groups = make_groups(specs, [0] * len(specs), 1, disable_hybrid=False)
    size = (max(group.bytes_on(0) for group in groups),)
    allocator = VllmAllocator(groups=groups, block_bytes=size, max_model_len=entry["max_model_len"])
    return MemoryCurve(
        name=entry["model"], engine="vllm", dtype="bfloat16", terms=terms_of(groups, size), allocator=allocator
    )


def pooled(curve: MemoryCurve, memory: int) -> VllmPool:
    pool = curve.pool(memory)
    assert isinstance(pool, VllmPool)
    return pool


def allocator(curve: MemoryCurve) -> VllmAllocator:
    assert isinstance(curve.allocator, VllmAllocator)
    return curve.allocator


def wrong(curve: MemoryCurve, lengths: dict[str, int], memories: list[list[Any]]) -> Iterator[str]:
    for length, recorded in lengths.items():
        if (found := curve.bytes(int(length))) != recorded:
            yield f"{length} tokens: {found:,}, recorded {recorded:,}"
    for memory, blocks, longest, *rest in memories:
        if len(rest) == 2:
            pool = pooled(curve, memory)
            found_pool = (pool.num_blocks, pool.longest_context, pool.capacity_tokens, pool.max_concurrency)
            if found_pool != (blocks, longest, *rest) or pool.pool_bytes != blocks * pool.bytes_per_block:
                yield f"{memory} bytes: {pool}, recorded {[blocks, longest, *rest]}"
            continue
        if memory // max(allocator(curve).block_bytes) != blocks or allocator(curve).longest_context(memory) != longest:
            yield f"{memory} bytes: another longest context than {longest} or another count of blocks than {blocks}"
        try:
            yield f"{memory} bytes: {curve.pool(memory)}, recorded {rest[0]}"
        except Refused as error:
            if not str(error).startswith(rest[0]) or f"maximum model length is {longest}" not in str(error):
                yield f"{memory} bytes: {error}, recorded {rest[0]}"


def test_every_recorded_case_is_equal(count: Any) -> None:
    found = [
        f"{name}: {why}"
        for entry in ENTRIES
        for name, options, lengths, memories in entry["cases"]
        for why in wrong(answered(entry, options), lengths, memories)
    ]
    cases = sum(len(entry["cases"]) for entry in ENTRIES)
    numbers = sum(len(lengths) + len(memories) for entry in ENTRIES for *_, lengths, memories in entry["cases"])
    types = len(
        {
            load(entry.get("config") or unquantised(entry["catalogue"])).model_type
            for entry in ENTRIES
            if "specs" not in entry
        }
    )
    count(f"vllm 0.33.0: {cases} recorded cases of {types} model types ({numbers:,} numbers), {len(found)} wrong")
    assert found == []
    # 464 over the models of the first recording, 276 of the catalogue's configs with two sets of options each, and 409 of
    # further types, and of options drawn at random; 38 of pipeline stages, turboquant, further GPUs and types.
    assert cases == 464 + 276 + 409 + 38


def test_the_scheduler_never_holds_more_than_is_reserved() -> None:
    entries = list(lines("vllm_scheduler.jsonl"))
    assert entries
    for entry in entries:
        curve = load(entry["config"]).curve("vllm", **entry["options"])
        pool = pooled(curve, entry["available_memory"])
        assert pool.num_blocks == entry["num_blocks"]
        assert pool.max_concurrency == entry["reported_max_concurrency"]
        assert pool.capacity_tokens == entry["reported_capacity_tokens"]
        groups = allocator(curve).groups
        first = [group.members[0][0] for group in groups]
        # A state's block has as many tokens as its layer says, which decides nothing.
        assert len(first) == len(entry["block_sizes"])
        assert all(
            spec.block == block
            for spec, block in zip(first, entry["block_sizes"], strict=True)
            if spec.cache != "state"
        )
        reserved = allocator(curve).blocks(entry["prompt_len"] + entry["max_tokens"])
        assert entry["peak_blocks_one_request"] <= reserved


# -- worked examples ----------------------------------------------------------------------------------------------------

QWEN3_NEXT = "Qwen/Qwen3-Next-80B-A3B-Thinking"


def test_qwen3_next_as_worked_by_hand() -> None:
    # conv (4 - 1) · 8192 · 2 = 49,152 and state 32 · 128 · 128 · 2 = 1,048,576: 1,097,728. A token 2 · 2 · 256 · 2 = 2,048.
    # Blocks of 64 · ceil(1,097,728 / (64 · 2,048)) = 576 tokens: pages of 1,179,648. 36 + 12 layers: 3 + 1 groups of 12.
    # A block 14,155,776; a request 3 · 3 + ceil(262,144 / 576) = 465 of them.
    curve = load(QWEN3_NEXT).curve("vllm")
    assert allocator(curve).block_bytes == (12 * 1_179_648,)
    assert [group.layers for group in allocator(curve).groups] == [12, 12, 12, 12]
    assert curve.bytes(262_144) == 465 * 14_155_776 == 6_582_435_840


def test_gemma_3_is_padded_to_ten_wide() -> None:
    # 52 sliding layers in ceil(52 / 10) = 6 groups beside one of 10 full ones.
    curve = load("google/gemma-3-27b-it").curve("vllm", max_model_len=131_072)
    groups = allocator(curve).groups
    assert sorted(group.layers for group in groups) == [8, 8, 9, 9, 9, 9, 10]
    assert allocator(curve).block_bytes == (10 * 16 * 16 * 2 * 128 * 2,)


def test_a_short_prompt_is_mostly_padding() -> None:
    # 12 tokens: 3 groups of 3 blocks for states, and one of attention: 10 · 14,155,776. What is filled: 36 states of 1,097,728
    # and 12 layers · 12 tokens · 2,048.
    text = load(QWEN3_NEXT).curve("vllm").explain(12)
    filled = 36 * 1_097_728 + 12 * 12 * 2_048
    assert f"at 12 tokens 10 blocks = {10 * 14_155_776:,} B" in text
    assert f"tokens and states fill {filled:,} B, {141_557_760 - filled:,} B (71.9 %) is padding" in text
    assert "3 × 12 layers of gated delta (page 1,097,728 B padded to 1,179,648 B)" in text
    assert "1 × 12 layers of full attention (block 576 tokens, page 1,179,648 B)" in text


def test_pipeline_stages_take_the_fewest_blocks() -> None:
    # 61 layers in two stages: 31 and 30 (get_pp_indices). The first has the larger blocks, and so fewer of them.
    curve = load("deepseek-ai/DeepSeek-V3").curve("vllm", pipeline_parallel_size=2)
    page = 16 * 576 * 2
    assert allocator(curve).block_bytes == (31 * page, 30 * page)
    assert pooled(curve, 20 * GIB).num_blocks == 20 * GIB // (31 * page)
    # What is left over of three goes to the stages before the last, from the back.
    curve = load("deepseek-ai/DeepSeek-V3").curve("vllm", pipeline_parallel_size=3)
    assert allocator(curve).block_bytes == (20 * page, 21 * page, 20 * page)


def test_drafts_are_layers_too_where_asked_for() -> None:
    # One MTP module: 13 attention layers beside 36 states, so blocks of 13 pages (less than 1.5 times 12: 12 is padded).
    model = load(QWEN3_NEXT)
    curve = model.curve("vllm", speculative_method="mtp", num_speculative_tokens=2, draft_layers=1)
    assert allocator(curve).block_bytes[0] % 13 == 0
    alone = model.curve("vllm", speculative_method="mtp", num_speculative_tokens=2)
    assert "the target model alone" in alone.notes[0]
    assert allocator(alone).block_bytes[0] * 13 == allocator(curve).block_bytes[0] * 12


# -- refusals -----------------------------------------------------------------------------------------------------------

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tensor_parallel_size": 3}, r"^Total number of attention heads \(32\) must be divisible by tensor parallel size \(3\)"),
        ({"max_model_len": 10_000}, r"^User-specified max_model_len \(10000\) is greater than the derived max_model_len"),
        ({"kv_cache_dtype": "float16"}, r'^kv_cache_dtype="float16" is incompatible with dtype="bfloat16"'),
        ({"kv_cache_dtype": "nvfp4"}, r"^No valid attention backend found for cuda"),
        ({"block_size": 24}, r"^No valid attention backend found for cuda with block_size=24"),
        ({"kv_cache_dtype": "fp8", "gpu": "A100"}, r"native FP8 \(fp8e4nv\) requires SM89"),
        (
            {"decode_context_parallel_size": 2, "tensor_parallel_size": 8},
            r"^Decode context parallelism for GQA/MQA requires `--tensor-parallel-size` \(8\) to be greater",
        ),
        (
            {"decode_context_parallel_size": 4, "tensor_parallel_size": 16},
            r"^`--decode-context-parallel-size` \(4\) exceeds the maximum supported value \(2\)",
        ),
    ],
)  # fmt: skip
def test_what_vllm_refuses_is_refused_with_its_reason(options: dict[str, Any], reason: str) -> None:
    # The words of each were read off vLLM 0.33.0 on the same config.
    with pytest.raises(Refused, match=reason):
        load(LLAMA).curve("vllm", **options)


QWEN_2 = "mlc/qwen2_1_5b"


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        # 32 layers in 33 stages: one has none (get_pp_indices), and vLLM divides by its bytes per block.
        (LLAMA, {"pipeline_parallel_size": 5}, r"^integer division or modulo by zero: stage 5 of 5 holds no layer"),
        # 151,936 words are 2,374 times 64, and no multiple of 6; 8,960 is none of 3.
        (QWEN_2, {"tensor_parallel_size": 6}, r"^8960 is not divisible by 6 \(intermediate_size\)"),
        ({**LLAMA, "vocab_size": 32_000, "num_attention_heads": 36, "num_key_value_heads": 12, "head_dim": 128, "intermediate_size": 12_288},
         {"tensor_parallel_size": 12}, r"^32000 is not divisible by 12 \(vocab_size, padded to a multiple of 64\)"),
        (LLAMA, {"max_num_batched_tokens": 64, "max_num_seqs": 128},
         r"^max_num_batched_tokens \(64\) must be greater than or equal to max_num_seqs \(128\)\.$"),
        ({"model_type": "whisper"}, {"max_num_batched_tokens": 64}, r"^max_num_batched_tokens \(64\) is smaller than max_model_len \(448\)\."),
        (QWEN3_NEXT, {"speculative_method": "mtp", "num_speculative_tokens": 2, "draft_layers": 1, "max_num_batched_tokens": 2, "max_num_seqs": 1},
         r"^VllmConfig does not have enough slots .* num_lookahead_tokens=2\.$"),
        (LLAMA, {"speculative_method": "mtp", "num_speculative_tokens": 1}, r"^Unsupported speculative method: 'mtp'$"),
        (LLAMA, {"speculative_method": "suffix", "num_speculative_tokens": 1, "async_scheduling": True},
         r"^Async scheduling is not supported by the V1 model runner with suffix-based speculative decoding\.$"),
        ("stepfun-ai/Step-3.7-Flash", {}, r"^Model architectures 'Step3p7FlashForCausalLM' are not supported for now\."),
        ({**LLAMA, "architectures": ["ArcticForCausalLM"]}, {}, r"^Model architecture ArcticForCausalLM was supported in vLLM until v0\.28\.0"),
        ({**LLAMA, "architectures": ["SmolVLMForConditionalGeneration"]}, {"pipeline_parallel_size": 2}, r"^Pipeline parallelism is not supported"),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", {"max_model_len": 8192}, r"^User-specified max_model_len \(8192\) is greater .*=4096"),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", {"mamba_ssm_cache_dtype": "float16"}, r"^KDA recurrent state supports only auto, float32"),
        ("mlc/llama3_2_3b", {"kv_cache_dtype": "turboquant_4bit_nc", "pipeline_parallel_size": 14}, r"^Workers disagree on supported KV cache layouts"),
        ("deepseek-ai/DeepSeek-V4-Flash", {"pipeline_parallel_size": 22}, r"^Workers disagree on supported KV cache layouts"),
        ("deepseek-ai/DeepSeek-V4-Flash", {"tensor_parallel_size": 2, "decode_context_parallel_size": 2}, r"^DCP not support sliding window\.$"),
        ("Qwen/Qwen3-VL-8B-Instruct", {"pipeline_parallel_size": 16}, r"^start_layer should be greater than or equal to len\(deepstack_visual_indexes\)"),
    ],
)  # fmt: skip
def test_what_vllm_refuses_before_it_plans(model: Any, options: dict[str, Any], reason: str) -> None:
    # vLLM 0.33.0 refused each of them too, with these words where it has any.
    with pytest.raises(Refused, match=reason):
        load(model).curve("vllm", **options)


def test_what_nothing_says_is_not_refused() -> None:
    # Neither its vocabulary nor its experts: sizes that a config leaves out are not checked.
    assert load(
        {**LLAMA, "num_attention_heads": 33, "num_key_value_heads": 11, "head_dim": 128, "intermediate_size": 33 * 128}
    ).curve("vllm", tensor_parallel_size=11)
    # The longest sequence of a long rope, for those who ask; 4,096 for the others.
    model = load("microsoft/Phi-3-mini-128k-instruct")
    assert allocator(model.curve("vllm", max_model_len=131_072)).largest == 131_072
    assert allocator(model.curve("vllm")).largest == 4_096


def test_chunks_beside_a_draft_are_held_in_full() -> None:
    # Llama 4 with an Eagle draft: the hybrid manager is off (VllmConfig.__post_init__), and can't be asked for.
    config = {"model_type": "llama4_text", "architectures": ["Llama4ForCausalLM"], "num_local_experts": 16}
    draft: dict[str, Any] = {"speculative_method": "eagle", "num_speculative_tokens": 2}
    with pytest.raises(Refused, match=r"^Hybrid KV cache manager was explicitly enabled"):
        load(config).curve("vllm", disable_hybrid_kv_cache_manager=False, **draft)
    held = load(config).curve("vllm", **draft)
    off = load(config).curve("vllm", disable_hybrid_kv_cache_manager=True, **draft)
    assert held.bytes(100_000) == off.bytes(100_000) > load(config).curve("vllm").bytes(100_000)


def test_other_refusals() -> None:
    with pytest.raises(Refused, match=r"^Failed to promote local KV cache specs to one unified type\.$"):
        load(QWEN3_NEXT).curve("vllm", disable_hybrid_kv_cache_manager=True)
    with pytest.raises(Refused, match=r"^Pipeline parallelism is not supported for this model"):
        load("mistralai/Mamba-Codestral-7B-v0.1").curve("vllm", pipeline_parallel_size=2)
    with pytest.raises(Refused, match=r"^8 key-value heads on 16 ranks"):
        load("openai/gpt-oss-20b").curve("vllm", tensor_parallel_size=16)
    with pytest.raises(Refused, match=r"does not support float16"):
        load("google/gemma-2-9b").curve("vllm", "fp16")


@pytest.mark.parametrize(
    "name", ["mosaicml/mpt-7b", "RWKV/rwkv-6-world-1b6", "google/t5-v1_1-base", "MiniMaxAI/MiniMax-M1"]
)
def test_what_vllm_lacks_is_named(name: str) -> None:
    with pytest.raises(NotDescribed, match=r"^model type '.*' in vLLM: "):
        load(name).curve("vllm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size: 0; expected an integer of 1 or more"),
        ({"gpu": "H1000"}, "gpu: 'H1000'; expected one of H100"),
        ({"kv_cache_dtype": "fp9"}, "kv_cache_dtype: 'fp9'; expected one of auto"),
        ({"enable_prefix_caching": 1}, "enable_prefix_caching: 1; expected True or False"),
        ({"mamba_cache_mode": "all"}, "mamba_cache_mode: 'all'; expected one of none, align"),
        ({"draft_layers": 1}, "draft_layers: 1; expected speculative_method='mtp' beside it"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(LLAMA).curve("vllm", **options)
    assert str(caught.value).startswith(words)


def test_a_pool_needs_a_longest_request() -> None:
    pattern = memcurve.pattern("1mha", emb_dim=4096, n_heads=32, n_layers=4)
    with pytest.raises(BadConfig, match=r"^max_model_len: missing"):
        pattern.curve("vllm", "bf16").pool(GIB)


def test_a_config_without_a_length_has_its_class_one() -> None:
    # LlamaConfig: max_position_embeddings 2,048. Gemma3TextConfig: 131,072, which the published configs leave out.
    config = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    assert allocator(load(config).curve("vllm")).largest == 2048
    assert allocator(load("google/gemma-3-27b-it").curve("vllm")).largest == 131_072
    # BloomConfig has none, and vLLM assumes 2,048 (_get_and_verify_max_len).
    bloom = {"model_type": "bloom", "hidden_size": 1024, "n_layer": 2, "n_head": 16, "dtype": "bfloat16"}
    assert allocator(load(bloom).curve("vllm")).largest == 2048


def test_options_are_vllms() -> None:
    assert {"tensor_parallel_size", "kv_cache_dtype", "mamba_ssm_cache_dtype", "gpu"} <= set(OPTIONS)


# -- properties ---------------------------------------------------------------------------------------------------------

MODELS = [
    QWEN3_NEXT,
    "google/gemma-2-9b",
    "openai/gpt-oss-20b",
    "deepseek-ai/DeepSeek-V3.2",
    "ai21labs/Jamba-v0.1",
    "tiiuae/Falcon-H1-7B-Base",
    "XiaomiMiMo/MiMo-V2-Flash",
    "nvidia/Nemotron-H-8B-Base-8K",
]


@st.composite
def curves(draw: st.DrawFn) -> MemoryCurve:
    options: dict[str, Any] = {
        "tensor_parallel_size": draw(st.sampled_from([1, 2, 4])),
        "max_model_len": draw(st.sampled_from([100, 1000, 4096])),
        "max_num_batched_tokens": draw(st.sampled_from([64, 1000, 8192])),
        "enable_prefix_caching": draw(st.booleans()),
        "async_scheduling": draw(st.booleans()),
        "num_speculative_tokens": draw(st.integers(0, 3)),
    }
    return load(draw(st.sampled_from(MODELS))).curve("vllm", **options)


@settings(max_examples=60, deadline=None)
@given(curves(), st.integers(1, 20_000), st.integers(0, 20_000))
def test_bytes_never_fall_with_context(curve: MemoryCurve, context: int, more: int) -> None:
    assert curve.bytes(context) <= curve.bytes(context + more)
    assert curve.bytes(context, batch=3) == 3 * curve.bytes(context)


@settings(max_examples=60, deadline=None)
@given(curves(), st.integers(2**28, 2**36))
def test_a_pool_fits_its_memory_and_its_longest_request(curve: MemoryCurve, memory: int) -> None:
    # One block of the pool always stays empty.
    block = max(allocator(curve).block_bytes)
    longest = allocator(curve).longest_context(memory)
    if longest:
        assert curve.bytes(longest) <= memory - block
    if longest < allocator(curve).largest:
        assert curve.bytes(longest + 1) > memory - block
    try:
        pool = pooled(curve, memory)
    except Refused:
        assert longest < allocator(curve).largest
        return
    assert longest == allocator(curve).largest == pool.longest_context
    assert memory - block < pool.pool_bytes <= memory
    assert pool.max_concurrency * curve.bytes(allocator(curve).largest) == pytest.approx(pool.pool_bytes)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from([2, 4]), st.integers(1, 8192))
def test_ranks_together_hold_no_less_than_one_alone(name: str, ranks: int, context: int) -> None:
    # Live bytes: heads and channels are divided, or held by several. Reserved bytes may be fewer on smaller pages.
    model = load(name)
    alone, split = (model.curve("vllm", tensor_parallel_size=size) for size in (1, ranks))

    def live(curve: MemoryCurve) -> int:
        return sum(size * int(compile_expr(rows)(context, 1, 0)) for _, size, rows in allocator(curve).filled())

    assert ranks * live(split) >= live(alone)


# -- published figures --------------------------------------------------------------------------------------------------


def qwen(layers: int, kv_heads: int, heads: int, longest: int) -> dict[str, Any]:
    """Qwen2.5 and Qwen3 by their published sizes, heads of 128."""
    return {
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "num_attention_heads": heads,
        "head_dim": 128,
        "hidden_size": heads * 128,
        "max_position_embeddings": longest,
        "dtype": "bfloat16",
    }


# id of tests/truth/published.jsonl: config, options, ranks that the tokens are over (decode context parallelism).
FIGURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "P56": (qwen(36, 8, 32, 40_960), {}),
    "P57": (qwen(64, 8, 64, 40_960), {"tensor_parallel_size": 2}),
    "P58": ("meta-llama/Meta-Llama-3.1-70B", {"tensor_parallel_size": 4}),
    "E94": (qwen(40, 8, 40, 40_960), {"max_model_len": 32_768}),
    "E95": (qwen(40, 8, 40, 40_960), {}),
    "E96": ("moonshotai/Kimi-K2-Thinking", {"tensor_parallel_size": 8}),
    "E97": (qwen(28, 2, 12, 32_768), {"max_model_len": 16_384}),
    "E98": (qwen(28, 4, 28, 32_768), {}),
}
# Figures of vLLM that this can't answer, and why.
UNANSWERED = {
    "E102": "a draft model of its own sizes beside the target: draft_layers counts modules of the target's kind"
}


@pytest.mark.parametrize("name", FIGURES)
def test_published_figures_of_vllm(name: str) -> None:
    """A pool of as many bytes as the log says holds as many tokens as it says, but for the rounding of the bytes."""
    entry = next(entry for entry in lines("published.jsonl") if entry["id"] == name)
    config, options = FIGURES[name]
    curve = load(config).curve("vllm", **options)
    tokens, claimed, off = entry["context"], entry["claimed_value"], entry["tolerance"]
    # Whole blocks of 16 tokens.
    assert tokens % 16 == 0
    assert curve.bytes(tokens) / GIB == pytest.approx(claimed, abs=off)
    least, most = (pooled(curve, int((claimed + side * off) * GIB)).num_blocks * 16 for side in (-1, 1))
    assert least <= tokens <= most


def test_every_figure_of_vllm_is_answered_or_said_not_to_be() -> None:
    named = {entry["id"] for entry in lines("published.jsonl") if entry["engine"] == "vLLM"}
    assert named == set(FIGURES) | set(UNANSWERED)


def test_a_pattern_is_planned_too() -> None:
    curve = memcurve.pattern("3gdn:1mha", emb_dim=2048, n_heads=16, n_layers=48).curve(
        "vllm", "bf16", max_model_len=8192
    )
    assert pooled(curve, 40 * GIB).num_blocks > 0
