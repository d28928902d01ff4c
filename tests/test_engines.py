"""Options of the engines, and the names of what they keep."""

from __future__ import annotations

from typing import Any

import pytest

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
