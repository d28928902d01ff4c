"""Options of the engines, and the names of what they keep."""

from __future__ import annotations

from typing import Any

import pytest

import memcurve
from memcurve import BadConfig, load

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKEN = 2 * 4 * 16 * 2 * 2  # bytes of a token: two layers of 4 heads of 16, keys and values in bf16


@pytest.mark.parametrize("length", [True, 0, -1, "4096", 1.5])
def test_a_static_cache_has_a_length(length: Any) -> None:
    with pytest.raises(BadConfig, match=r"^max_cache_len: .*; expected an integer of 1 or more$"):
        load(LLAMA).curve("transformers", "bf16", cache="static", max_cache_len=length)


def test_a_static_cache_is_there_from_the_start() -> None:
    for length in (1, 300):
        curve = load(LLAMA).curve("transformers", "bf16", cache="static", max_cache_len=length)
        assert [curve.bytes(context) for context in (0, 1)] == [length * TOKEN] * 2
        assert f"Transformers fails past {length:,} tokens, except in sliding layers" in curve.notes


def test_the_prompt_stays_beside_a_window_over_what_was_generated() -> None:
    # R-SWA (modeling_unlimited_ocr.py): the prompt's 50 tokens, and of the generated ones W - 1 = 8 in Transformers, W in the paper
    config = {**LLAMA, "num_key_value_heads": 4, "model_type": "unlimited_ocr_text", "sliding_window": 9}
    for engine, held in (("transformers", 8), ("logical", 9)):
        curve = load(config).curve(engine, "bf16", prompt=50)
        assert [curve.bytes(context) for context in (55, 100)] == [55 * TOKEN, (50 + held) * TOKEN]
        # Unsaid, all of it is prompt
        assert load(config).curve(engine, "bf16").bytes(100) == 100 * TOKEN
        with pytest.raises(BadConfig, match=r"^prompt: -1; expected an integer of 0 or more$"):
            load(config).curve(engine, "bf16", prompt=-1)


def test_tensors_have_the_names_of_what_they_hold() -> None:
    def names(config: dict[str, Any]) -> list[tuple[str, ...]]:
        return [tuple(name for name, _ in term.tensors) for term in load(config).curve("transformers", "bf16").terms]

    assert names(LLAMA) == [("key", "value")]
    mamba = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 1}
    assert names(mamba) == [("conv_state",), ("recurrent_state",)]
    reformer = {"model_type": "reformer", "hidden_size": 64, "attn_layers": ["lsh"]}
    assert names(reformer) == [("hidden_state",), ("buckets",)]


def test_a_mamba_has_the_intermediate_size_that_its_config_gives() -> None:
    # Falcon-Mamba-7B: intermediate_size 8192 beside expand 16 and hidden_size 4096; FalconMambaMixer takes the former.
    # 64 layers of 8192 · (4 columns in bf16 + 16 states in fp32)
    assert load("tiiuae/falcon-mamba-7b").curve("transformers", "bf16").bytes(1) == 64 * 8192 * (4 * 2 + 16 * 4)


@pytest.mark.parametrize(
    ("name", "ranks", "note"),
    [
        ("deepseek-ai/DeepSeek-V3.2", 8, "latent attention whole on each, sparse indexer whole on each"),
        ("Qwen/Qwen3-30B-A3B", 8, "full attention 4 key-value heads, each on 2 ranks"),
        ("Qwen/Qwen3-30B-A3B", 4, None),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 8, "full attention 2 key-value heads, each on 4 ranks"),
        ("tiiuae/Falcon-H1-7B-Base", 4, "full attention 2 key-value heads, each on 2 ranks, mamba2 1 group of B and C copied"),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking", 2, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("engine", "option"), [("vllm", "tensor_parallel_size"), ("sglang", "tp_size")])
def test_what_ranks_do_not_divide_is_named(name: str, ranks: int, note: str | None, engine: str, option: str) -> None:
    notes = load(name).curve(engine, "bf16", **{option: ranks}).notes
    found = [one for one in notes if one.startswith("not divided by")]
    assert found == ([] if note is None else [f"not divided by {ranks} ranks: {note}"])


def test_arrays_of_any_integers() -> None:
    import numpy as np

    for engine in ("logical", "vllm", "sglang", "llamacpp"):
        curve = load("openai/gpt-oss-120b").curve(engine, "bf16")
        for kind in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64):
            assert list(curve.bytes(np.array([1, 100], kind))) == [curve.bytes(1), curve.bytes(100)]


def test_a_curve_from_data_has_no_pool() -> None:
    curve = memcurve.MemoryCurve.from_dict(load(LLAMA).curve("vllm", "bf16").to_dict())
    assert curve.bytes(100) == load(LLAMA).curve("vllm", "bf16").bytes(100)
    with pytest.raises(BadConfig, match=r"^pool: this curve of engine vllm was read from data$"):
        curve.pool(2**30)


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("vllm", {"dtype": "fp8"}, "dtype: 'float8_e4m3fn'; expected one of bfloat16, float16, float32"),
        ("sglang", {"dtype": "int8"}, "dtype: 'int8'; expected bfloat16"),
        ("vllm", {"draft_layers": 1, "speculative_method": "mtp"}, "draft_layers: 1; expected num_speculative_tokens of 1 or more"),
    ],
)  # fmt: skip
def test_what_an_engine_has_no_word_for(engine: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load("Qwen/Qwen3-Next-80B-A3B-Thinking").curve(engine, **options)
    assert str(caught.value).startswith(message)


def test_suffix_decoding_does_not_run_ahead() -> None:
    # config/vllm.py of vLLM 0.33.0: suffix decoding turns asynchronous scheduling off, so half as many tokens are in flight
    model, spec = load("openai/gpt-oss-120b"), {"num_speculative_tokens": 3, "speculative_method": "suffix"}
    apart = model.curve("vllm", "bf16", async_scheduling=False, num_speculative_tokens=3, speculative_method="suffix")
    assert model.curve("vllm", "bf16", **spec).bytes(32768) == apart.bytes(32768) == 1_515_257_856


def test_notes_of_what_is_not_counted() -> None:
    drafted = load("meta-llama/Llama-3.1-8B-Instruct").curve("sglang", "bf16", speculative_algorithm="EAGLE", speculative_num_draft_tokens=4)  # fmt: skip
    assert any("draft's own checkpoint" in note for note in drafted.notes)
    # SGLang keeps all 30 layers of Gemma 3n
    assert not any("keep none" in note for note in load("google/gemma-3n-E2B-it").curve("sglang", "bf16").notes)
    assert any("keep none" in note for note in load("google/gemma-3n-E2B-it").curve("logical", "bf16").notes)
    # A pattern has no class that would refuse it: SGLang's sizing goes on where 8 heads don't divide over 3 ranks
    uneven = memcurve.pattern("gqa", n_heads=16, n_kv_heads=8, n_layers=2).curve("sglang", "bf16", tp_size=3)
    assert uneven.notes[0].startswith("8 key-value heads and 3 ranks don't divide")
    long = load("Qwen/Qwen3-Next-80B-A3B-Thinking").curve("vllm", max_model_len=4096)
    assert "vLLM turns such a request down: more than max_model_len 4,096 tokens" in long.explain(8192)
    assert "turns such" not in long.explain(4096)
