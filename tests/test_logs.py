"""Start-up logs compared: lines that engines really printed (truth/published.jsonl names the sources), and changed ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memcurve import BadConfig, MemcurveError, NotDescribed, load
from memcurve.logs import Finding, check, engine_of, rounded, settings

QWEN3_14B = {"model_type": "qwen3", "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960, "dtype": "bfloat16"}  # fmt: skip
# E94, E95 and E96 of truth/published.jsonl
E94 = "INFO Available KV cache memory: 6.51 GiB\nINFO GPU KV cache size: 42,656 tokens\nINFO Maximum concurrency for 32,768 tokens per request: 1.30x\n"
E95 = "Available KV cache memory: 11.57 GiB\nGPU KV cache size: 75,824 tokens, Maximum concurrency for 40,960 tokens per request: 1.85x"
E96 = "Available KV cache memory: 46.80 GiB\nGPU KV cache size: 715,072 tokens"


def verdicts(text: str, model: Any, **options: Any) -> list[bool]:
    return [one.agrees for one in check(text, load(model), options)]


def test_vllm() -> None:
    assert verdicts(E94, QWEN3_14B) == [True, True]
    assert verdicts(E95, QWEN3_14B) == [True, True]
    # The latent is replicated: any number of tensor-parallel ranks holds as many tokens
    assert verdicts(E96, "moonshotai/Kimi-K2-Thinking", tensor_parallel_size=8) == [True]


def test_a_figure_that_differs_says_what_would_make_it_agree() -> None:
    # Half the heads on each of two ranks: twice the tokens in the same memory, 2 × 42,656
    found = check(E94.replace("42,656", "85,312").replace("1.30x", "2.60x"), load(QWEN3_14B))
    assert [one.agrees for one in found] == [False, False]
    assert [one.line for one in found] == [2, 3]
    assert "would agree with tensor_parallel_size=2 or kv_cache_dtype=fp8" in found[0].why
    found = check(E94.replace("42,656", "42,600"), load(QWEN3_14B))
    assert found[0] == Finding(line=2, figure="GPU KV cache size", logged="42,600 tokens", computed="42,624 to 42,688 tokens", agrees=False, why="follows from 6.51 GiB and max_model_len 32,768; no single option that was tried makes it agree")  # fmt: skip


def test_vllm_says_what_it_needs_and_its_block() -> None:
    # 40 layers · 2 · 8 · 128 · 2 B · 40,960 tokens = 6.25 GiB; of Qwen3-Next the block is 576 tokens
    text = "max seq len (40960), (6.25 GiB KV cache is needed, which is larger than the available KV cache memory (5.0 GiB)."
    assert verdicts(text, QWEN3_14B) == [True]
    assert verdicts(text.replace("6.25", "6.24"), QWEN3_14B) == [False]
    block = "Setting attention block size to 576 tokens to ensure that attention page size is >= mamba page size."
    assert verdicts(block + "\n" + E94, "Qwen/Qwen3-Next-80B-A3B-Thinking")[0]
    assert not verdicts(block.replace("576", "544") + "\n" + E94, "Qwen/Qwen3-Next-80B-A3B-Thinking")[0]


def test_sglang() -> None:
    # E68, E69 and E76 of truth/published.jsonl; each rank writes the same line
    line = "TP{}] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 367404, K size: 8.23 GB, V size: 8.23 GB"
    text = "\n".join(line.format(rank) for rank in range(4))
    assert verdicts(text, "Qwen/Qwen3-235B-A22B-FP8", tp_size=4) == [True, True]
    found = check(text, load("Qwen/Qwen3-235B-A22B-FP8"))
    assert [one.agrees for one in found] == [False, False]
    assert "would agree with tp_size=4" in found[0].why
    states = "Mamba Cache is allocated. max_mamba_cache_size: 336, conv_state size: 0.56GB, ssm_state size: 23.70GB "
    assert verdicts(states, "Qwen/Qwen3-Next-80B-A3B-Thinking") == [True, True]
    # 331 · 36 · 49,152 B = 0.545 GiB, 331 · 36 · 2 MiB = 23.27 GiB
    assert verdicts(states.replace("336", "330"), "Qwen/Qwen3-Next-80B-A3B-Thinking") == [False, False]
    with pytest.raises(NotDescribed, match="pools of its own kind"):
        check(states, load("deepseek-ai/DeepSeek-V4-Flash"))
    window = "KV Cache is allocated. #tokens: 300288, K size: 8.38 GB, V size: 5.59 GB"
    assert verdicts(window, "XiaomiMiMo/MiMo-V2-Flash", tp_size=4, page_size=64) == [True, True]


def test_keys_and_values_of_sglang_are_compared_apart() -> None:
    # What one has too much and the other too little is no agreement
    line = "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 367404, K size: 8.13 GB, V size: 8.33 GB"
    assert verdicts(line, "Qwen/Qwen3-235B-A22B-FP8", tp_size=4) == [False, False]
    # Qwen3-Next: 337 · 36 · 49,152 B = 0.555 GiB and 337 · 36 · 2 MiB = 23.695 GiB, 0.10 GB the one way and the other
    states = "Mamba Cache is allocated. max_mamba_cache_size: 336, conv_state size: 0.66GB, ssm_state size: 23.60GB "
    assert verdicts(states, "Qwen/Qwen3-Next-80B-A3B-Thinking") == [False, False]
    # Of gpt-oss-20b each pool takes 12 layers · 8 heads · 64 · 2 B a token, 0.11 GiB of 10,000: one line for each
    pool = "KV Cache is allocated. dtype: torch.bfloat16, #tokens: {}, K size: {} GB, V size: {} GB\n"
    both = pool.format(10000, 0.11, 0.11) + pool.format(8000, 0.09, 0.09)
    assert verdicts(both, "openai/gpt-oss-20b") == [True] * 4
    # MiMo-V2-Flash on four ranks: 9 full layers · 1 head · (192, 128) · 2 B: 3.22 and 2.15 GiB of 1,000,001 tokens, 2.90 and
    # 1.93 of 900,001. A second line of the full pool is none of the sliding one
    again = pool.format(1000000, 3.22, 2.15) + pool.format(900000, 2.90, 1.93)
    assert verdicts(again, "XiaomiMiMo/MiMo-V2-Flash", tp_size=4) == [True, True, False, False]


def test_stages_of_sglang_are_compared_by_their_number() -> None:
    # Llama-3.1-70B in three stages: 26 and 27 layers · 8 heads · 128 · 2 B · 1,000,001 tokens = 49.59 and 51.50 GiB
    line = (
        "PP{} TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1000000, K size: {:.2f} GB, V size: {:.2f} GB"
    )
    sizes = [layers * 8 * 128 * 2 * 1000001 / 2**30 for layers in (26, 27, 27)]
    text = "server_args={'tp_size': 1, 'pp_size': 3}\n" + "\n".join(line.format(n, s, s) for n, s in enumerate(sizes))
    assert verdicts(text, "meta-llama/Meta-Llama-3.1-70B") == [True] * 6
    assert not any(verdicts(text.replace("PP0", "PP1"), "meta-llama/Meta-Llama-3.1-70B")[:2])


def test_llamacpp() -> None:
    # E27, E30, E31, E47 and E48 of truth/published.jsonl
    text = (
        "llama_context: n_seq_max     = 4\nllama_context: n_ctx         = 65536\nllama_context: kv_unified    = true\n"
        "llama_kv_cache: size = 2304.00 MiB ( 65536 cells,  18 layers,  4/1 seqs), K (f16): 1152.00 MiB, V (f16): 1152.00 MiB\n"
        "llama_kv_cache: size =   36.00 MiB (  1024 cells,  18 layers,  4/1 seqs), K (f16):   18.00 MiB, V (f16):   18.00 MiB\n"
    )
    assert verdicts(text, "openai/gpt-oss-120b") == [True] * 4
    found = check(text.replace("= true", "= false"), load("openai/gpt-oss-120b"))
    # Without kv_unified four streams of 16,384 cells are as many in full layers; of 768 cells more in sliding ones
    assert [one.agrees for one in found] == [True, True, False, False]
    assert "would agree with kv_unified=True" in found[2].why
    # What one cache has too much and another too little is no agreement
    moved = text.replace("K (f16): 1152.00", "K (f16): 1151.00").replace("K (f16):   18.00", "K (f16):   19.00")
    assert verdicts(moved, "openai/gpt-oss-120b") == [False, True, False, True]
    # A cache without a line is said
    short = "\n".join(text.split("\n")[:4])
    found = check(short, load("openai/gpt-oss-120b"))
    assert [(one.figure, one.logged, one.agrees) for one in found[2:]] == [("a cache of 1,024 cells", "no line", False)]
    text = (
        "llama_kv_cache: size = 3920.00 MiB (200704 cells,  10 layers,  1/1 seqs), K (f16): 1960.00 MiB, V (f16): 1960.00 MiB\n"
        "llama_memory_recurrent: size = 62.81 MiB (1 cells, 40 layers, 1 seqs), R (f32): 2.81 MiB, S (f32): 60.00 MiB"
    )
    assert verdicts(text, "Qwen/Qwen3.5-35B-A3B") == [True] * 4
    assert verdicts(text.replace("S (f32): 60.00", "S (f32): 59.99"), "Qwen/Qwen3.5-35B-A3B") == [
        True,
        True,
        True,
        False,
    ]
    # Types are read from the log: 8 layers · 4 heads · 256 · 34/32 B · 262,144 cells
    text = "llama_kv_cache: size = 4352.00 MiB (262144 cells, 8 layers, 1/1 seqs), K (q8_0): 2176.00 MiB, V (q8_0): 2176.00 MiB"
    assert verdicts(text, "Qwen/Qwen3.5-9B") == [True, True]


def test_a_size_is_compared_within_its_rounding() -> None:
    size = rounded("6.51", "GiB")
    assert size.holds(int(6.505 * 2**30) + 10)
    assert size.holds(int(6.515 * 2**30) - 10)
    assert not size.holds(int(6.516 * 2**30))
    assert not size.holds(int(6.504 * 2**30))
    assert size.holds(0, int(6.51 * 2**30))
    assert not size.holds(int(6.52 * 2**30), int(6.6 * 2**30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log: no line about the cache"),
        ("GPU KV cache size: 42,656 tokens", "log: no figure of vllm that can be compared"),
    ],
)  # fmt: skip
def test_logs_that_say_nothing(text: str, message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        check(text, load(QWEN3_14B))
    assert str(caught.value).startswith(message)
    with pytest.raises(BadConfig, match=r"^engine: 'vlm'; expected one of vllm, sglang, llamacpp$"):
        check(E94, load(QWEN3_14B), engine="vlm")


def test_the_engine_is_told_by_its_lines() -> None:
    assert engine_of(E94) == "vllm"
    assert engine_of("KV Cache is allocated. #tokens: 1, K size: 0.12 GB, V size: 0.12 GB") == "sglang"
    assert engine_of("llama_kv_cache: size = 2304.00 MiB") == "llamacpp"


def test_the_command(tmp_path: Path) -> None:
    config, log = tmp_path / "config.json", tmp_path / "vllm.log"
    config.write_text(json.dumps(QWEN3_14B))
    log.write_text("\x1b[32m" + E94)
    words = [sys.executable, "-m", "memcurve", "check-log", str(log), "--model", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "2 of 2 figures agree"
    done = subprocess.run([*words, "-O", "kv_cache_dtype=fp8", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["differ"] == 2
    log.unlink()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"memcurve: {log}: No such file or directory; expected a log file\n")


def test_a_log_with_two_starts_is_compared_start_by_start() -> None:
    assert verdicts("Available KV cache memory: 3.00 GiB\nGPU KV cache size: 1 tokens\n" + E94, QWEN3_14B) == [
        False,
        True,
        True,
    ]
    one = "llama_context: n_seq_max     = 1\nllama_context: n_ctx         = 4096\nllama_kv_cache: size = 1 MiB ( 4096 cells,  36 layers,  1/1 seqs), K (f16): {}.00 MiB, V (f16): {}.00 MiB\n"
    # 36 layers · 4,096 cells · 8 heads of 128 · 2 B = 288 MiB, and twice as much of twice as many cells
    other = one.replace("4096", "8192")
    found = check(one.format(288, 288) + other.format(576, 575), load("Qwen/Qwen3-8B"))
    assert [(each.line, each.agrees) for each in found] == [(3, True), (3, True), (6, True), (6, False)]
    many = check(one.format(288, 288) * 2000, load("Qwen/Qwen3-8B"))
    assert [(each.line, each.agrees) for each in many[-2:]] == [(6000, True), (6000, True)]


@pytest.mark.parametrize("number", ["9" * 5000, "1.2.3", ".", ",", "-1"])
def test_numbers_that_are_none_are_no_figures(number: str) -> None:
    for line in ("Available KV cache memory: {0} GiB\nGPU KV cache size: {0} tokens", "KV Cache is allocated. #tokens: {0}, K size: {0} GB, V size: {0} GB",
                 "llama_context: n_seq_max = {0}\nllama_kv_cache: size = {0} MiB ( {0} cells, 1 layers, {0}/1 seqs), K (f16): {0} MiB"):  # fmt: skip
        with pytest.raises(MemcurveError, match=r"^log: no "):
            check(line.format(number), load("Qwen/Qwen3-8B"))


def test_drafts_of_sglang_are_logged_apart() -> None:
    states = "Mamba Cache is allocated. max_mamba_cache_size: 336, conv_state size: 0.56GB, ssm_state size: 23.70GB "
    options = {"speculative_algorithm": "NEXTN", "speculative_num_draft_tokens": 4}
    assert verdicts(states, "Qwen/Qwen3-Next-80B-A3B-Thinking", **options) == [True, True]


# A model whose sliding layers have wider values than its full ones: without flash attention all rows are as wide
UNEVEN = {"model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "global_head_dim": 128, "num_global_key_value_heads": 1, "attention_k_eq_v": False, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0}  # fmt: skip


def test_options_are_read_from_the_log() -> None:
    # vLLM 0.33.0: engine core's config line is resolved, so it goes before the arguments
    line = (
        "INFO non-default args: {'model': 'x', 'max_model_len': 4096, 'tensor_parallel_size': 2, 'block_size': None}\n"
        "INFO Initializing a V1 LLM engine (v0.33.0) with config: model='x', max_seq_len=32768, tensor_parallel_size=1, "
        "pipeline_parallel_size=1, kv_cache_dtype=auto, enable_prefix_caching=True, seed=0, cudagraph_capture_sizes=[1]\n"
    )
    # E94 is of one rank of Qwen3-14B
    assert verdicts(line + E94, QWEN3_14B) == [True, True]
    assert not any(verdicts(line.replace("tensor_parallel_size=1", "tensor_parallel_size=2") + E94, QWEN3_14B))
    # What is given goes before what is read
    assert verdicts(
        line.replace("tensor_parallel_size=1", "tensor_parallel_size=2") + E94, QWEN3_14B, tensor_parallel_size=1
    ) == [True, True]
    stated = {(one.option, one.value): one.line for one in settings(line + E94)}
    assert stated == {
        ("max_model_len", 4096): 1, ("tensor_parallel_size", 2): 1, ("max_model_len", 32768): 2,
        ("tensor_parallel_size", 1): 2, ("pipeline_parallel_size", 1): 2, ("kv_cache_dtype", "auto"): 2,
        ("enable_prefix_caching", True): 2,
    }  # fmt: skip
    # SGLang 0.5.23 prints a dict, its earlier releases a ServerArgs(…)
    pool = "KV Cache is allocated. dtype: torch.bfloat16, #tokens: 367404, K size: 8.23 GB, V size: 8.23 GB"
    for args in ("server_args={'model_path': 'x', 'tp_size': 4, 'page_size': 1}", "server_args=ServerArgs(model_path='x', tp_size=4, kv_cache_dtype='auto')"):  # fmt: skip
        assert verdicts(f"{args}\n{pool}", "Qwen/Qwen3-235B-A22B-FP8") == [True, True]
    text = "llama_context: n_seq_max = 1\nllama_context: flash_attn            = auto\n{}llama_kv_cache: size = 1 MiB ( 4096 cells, 1 layers, 1/1 seqs), K (q8_0): 1.00 MiB, V (f16): 1.00 MiB\n{}"
    assert [(one.option, one.value) for one in settings(text.format("", ""))] == [("n_seq_max", 1), ("type_k", "q8_0"), ("type_v", "f16")]  # fmt: skip


def test_flash_attention_that_is_switched_off_counts_from_its_line_on() -> None:
    # 768 cells of the sliding layer (512 + 512 padded to 1,024; a context of 768 has 768). Values of 256 and of 128 numbers
    said = "sched_reserve: Flash Attention not supported, set to disabled\n"
    text = (
        "llama_context: n_seq_max     = 1\nllama_context: n_ctx         = 768\nllama_context: flash_attn    = auto\n{0}"
        "llama_kv_cache: size = 0.38 MiB ( 768 cells, 1 layers, 1/1 seqs), K (f16): 0.19 MiB, V (f16): {1} MiB\n"
        "llama_kv_cache: size = 0.75 MiB ( 768 cells, 1 layers, 1/1 seqs), K (f16): 0.38 MiB, V (f16): 0.38 MiB\n{2}"
    )
    assert verdicts(text.format("", "0.19", ""), UNEVEN) == [True] * 4
    # llama.cpp 0c1e57098 makes its caches first: they stay as they are
    assert verdicts(text.format("", "0.19", said), UNEVEN) == [True] * 4
    assert (
        "flash attention disabled after the cache was made" in check(text.format("", "0.19", said), load(UNEVEN))[0].why
    )
    assert verdicts(text.format(said, "0.38", ""), UNEVEN) == [True] * 4
    assert verdicts(text.format(said, "0.19", ""), UNEVEN) == [True, False, True, True]
