"""Start-up logs compared: lines that engines really printed (truth/published.jsonl names the sources), and changed ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memcurve import BadConfig, MemcurveError, NotDescribed, load
from memcurve.logs import Finding, check, engine_of, rounded

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
    assert verdicts(text, "Qwen/Qwen3-235B-A22B-FP8", tp_size=4) == [True]
    found = check(text, load("Qwen/Qwen3-235B-A22B-FP8"))
    assert [one.agrees for one in found] == [False]
    assert "would agree with tp_size=4" in found[0].why
    states = "Mamba Cache is allocated. max_mamba_cache_size: 336, conv_state size: 0.56GB, ssm_state size: 23.70GB "
    assert verdicts(states, "Qwen/Qwen3-Next-80B-A3B-Thinking") == [True]
    assert verdicts(states.replace("336", "330"), "Qwen/Qwen3-Next-80B-A3B-Thinking") == [False]
    with pytest.raises(NotDescribed, match="pools of its own kind"):
        check(states, load("deepseek-ai/DeepSeek-V4-Flash"))
    window = "KV Cache is allocated. #tokens: 300288, K size: 8.38 GB, V size: 5.59 GB"
    assert verdicts(window, "XiaomiMiMo/MiMo-V2-Flash", tp_size=4) == [True]


def test_llamacpp() -> None:
    # E27, E30, E31, E47 and E48 of truth/published.jsonl
    text = (
        "llama_context: n_seq_max     = 4\nllama_context: n_ctx         = 65536\nllama_context: kv_unified    = true\n"
        "llama_kv_cache: size = 2304.00 MiB ( 65536 cells,  18 layers,  4/1 seqs), K (f16): 1152.00 MiB, V (f16): 1152.00 MiB\n"
        "llama_kv_cache: size =   36.00 MiB (  1024 cells,  18 layers,  4/1 seqs), K (f16):   18.00 MiB, V (f16):   18.00 MiB\n"
    )
    assert verdicts(text, "openai/gpt-oss-120b") == [True, True]
    found = check(text.replace("= true", "= false"), load("openai/gpt-oss-120b"))
    assert [one.agrees for one in found] == [False, False]
    assert "would agree with kv_unified=True" in found[0].why
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
    assert verdicts(states, "Qwen/Qwen3-Next-80B-A3B-Thinking", **options) == [True]
