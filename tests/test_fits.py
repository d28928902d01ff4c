"""What fits in an amount of memory, by dtype of the cache: arithmetic, and the engines' own pools."""

from __future__ import annotations

import json

import pytest

import memcurve
from memcurve import BadConfig, fitting_dtypes, load
from memcurve.cli import run
from memcurve.engines import NAMES, module
from memcurve.fits import most_batch

GIB = 2**30


def test_the_widest_dtype_that_fits() -> None:
    # Qwen3-8B: 36 layers × 2 × 8 heads × 128 × 2 B = 147,456 B a token; 8 × 32,768 tokens are 36 GiB, in fp8 18 GiB
    model = load("Qwen/Qwen3-8B")
    for memory, widest in ((36 * GIB, "bfloat16"), (36 * GIB - 1, "dtype=float8_e4m3fn"), (18 * GIB - 1, None)):
        found = fitting_dtypes(model, memory, 32_768, 8)
        assert [one.bytes for one in found.tried] == [36 * GIB, 18 * GIB]
        assert (found.widest and found.widest.name) == widest
        assert [one.fits for one in found.tried] == [memory >= 36 * GIB, memory >= 18 * GIB]
    assert [one.why for one in found.tried] == [f"{18 * GIB + 1:,} B too many", "1 B too many"]


def test_a_pool_holds_less_than_its_bytes() -> None:
    # vLLM keeps one block of 16 tokens empty: 16 × 147,456 B, half of it in fp8
    model = load("Qwen/Qwen3-8B")
    block = 16 * 147_456
    assert fitting_dtypes(model, 36 * GIB, 32_768, 8, "vllm").tried[0].why == "7 at once, by tokens"
    assert fitting_dtypes(model, 36 * GIB + block, 32_768, 8, "vllm").tried[0].fits
    found = fitting_dtypes(model, 36 * GIB, 32_768, 8, "vllm")
    assert found.widest is not None
    assert found.widest.options == (("kv_cache_dtype", "fp8"),)
    assert found.widest.bytes == 18 * GIB
    # Refused where not one request of max_model_len fits, 40,960 tokens
    small = fitting_dtypes(model, GIB, 128, 1, "vllm").tried[0]
    assert small.why.startswith("To serve at least one request")


def test_blocks_of_ggml() -> None:
    # 32 elements in 34 B (q8_0), 24 (q5_1), 22 (q5_0), 20 (q4_1), 18 (q4_0), against 64 in 16 bits
    found = fitting_dtypes(load("Qwen/Qwen3-8B"), 3 * GIB, 32_768, 1, "llamacpp", "fp16")
    plain = 147_456 * 32_768
    assert [one.bytes for one in found.tried] == [plain * size // 64 for size in (64, 34, 24, 22, 20, 18)]
    assert found.widest is not None
    assert found.widest.name == "type_k=q8_0, type_v=q8_0"


def test_what_an_engine_refuses_is_said_and_the_rest_tried() -> None:
    found = fitting_dtypes(load("deepseek-ai/DeepSeek-V3.2"), 60 * GIB, 131_072, 8, "vllm")
    assert found.widest is not None
    assert found.widest.name == "kv_cache_dtype=fp8"
    refused = [one for one in found.tried if one.bytes is None]
    assert refused
    assert all("No valid attention backend" in one.why for one in refused)


def test_dtypes_that_save_nothing_are_left_out() -> None:
    # Mamba's states are fp32, its convolutions in the model's dtype: no cache of keys and values to narrow
    found = fitting_dtypes(load("mistralai/Mamba-Codestral-7B-v0.1"), GIB, 1000, 1, "llamacpp", "bf16")
    assert [one.name for one in found.tried] == ["bf16"]


@pytest.mark.parametrize("engine", NAMES)
def test_every_dtype_offered_is_one_that_the_engine_takes(engine: str) -> None:
    model = load("Qwen/Qwen3-32B")
    dtype = "bf16" if engine == "vllm" else "fp32"
    found = fitting_dtypes(model, 0 if engine == "logical" else 100 * GIB, 8192, 1, engine, dtype)
    assert all(one.bytes is not None for one in found.tried)
    sizes = [one.bytes for one in found.tried]
    assert sizes == sorted(sizes, key=lambda size: -(size or 0))
    assert len(sizes) == len(set(sizes)) > 1
    for asked in module(engine).CACHE_DTYPES:
        size = model.curve(engine, **{"dtype": dtype, **asked}).bytes(8192)
        # Named, or no fewer bytes than a wider one
        assert size in sizes or any(one is not None and one <= size for one in sizes)


def test_most_batch_of_pools_is_what_they_run_at_once() -> None:
    curve = load("openai/gpt-oss-20b").curve("sglang", "bf16")
    assert most_batch(curve, 5 * GIB, 30_000) == curve.pool(5 * GIB).binding(30_000)
    assert most_batch(load("Qwen/Qwen3-8B").curve(), 36 * GIB, 32_768) == (8, "memory")
    assert most_batch(load("Qwen/Qwen3-8B").curve("llamacpp"), 1, 32_768) == (0, "memory")


def test_fits_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["estimate", "Qwen/Qwen3-8B", "--context", "32k", "--batch", "8", "--memory", "20GiB", "--fits"]
    assert run(words) == 0
    text = capsys.readouterr().out
    assert "38,654,705,664 B (36.00 GiB)" in text
    assert f"{16 * GIB:,} B too many" in text
    assert text.endswith("widest that fits: dtype=float8_e4m3fn\n")
    assert run([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["widest"], data["memory"]) == (1, "dtype=float8_e4m3fn", 20 * GIB)
    assert [(one["bytes"], one["fits"]) for one in data["tried"]] == [(36 * GIB, False), (18 * GIB, True)]
    assert run([*words[:-3], "--memory", "1GiB", "--fits"]) == 0
    assert capsys.readouterr().out.endswith("none fits\n")
    for change, message in (
        (["--memory", "1GiB", "--fits", "--engine", "all"], "of one context and one engine"),
        (["--fits"], "expected --memory"),
        (["--fits", "--memory", "1GiB", "--engine", "vllm", "-O", "kv_cache_dtype=fp8"], "expected no kv_cache_dtype"),
    ):
        with pytest.raises(BadConfig, match=message):
            run(["estimate", "Qwen/Qwen3-8B", "--context", "1k", *change])


def test_it_is_a_public_name() -> None:
    assert memcurve.fitting_dtypes is fitting_dtypes
