"""What engines set aside beside weights and state: their rules on worked numbers, and assumptions against logs."""

from __future__ import annotations

from math import ceil

import pytest

from memcurve import BadConfig, load
from memcurve.engines.budget import Sizes, budget
from memcurve.engines.budget_sglang import prefill_graphs
from memcurve.engines.budget_vllm import captured
from memcurve.sizes import sizes_of

MiB, GiB = 2**20, 2**30
H100 = 85_031_714_816  # bytes that CUDA reports on an H100 of 80 GB: 79.19 GiB
# Llama 3.1 8B's shapes on an H100, 8,192 tokens and 1,024 sequences in a batch.
LLAMA = Sizes(hidden=4096, vocabulary=128256, layers=32, heads=32, intermediate=14336, tokens=8192, sequences=1024)


def by_name(engine: str, total: int = H100, **options: object) -> dict[str, int]:
    return {one.name: one.bytes for one in budget(engine, total, sizes=LLAMA, options=options)}


def test_vllm_leaves_what_utilisation_leaves() -> None:
    assert by_name("vllm")["left free"] == H100 - ceil(H100 * 0.92)
    # 75.23 GiB requested: logged by vLLM 0.19.0 with 0.95 on 79.19 GiB
    left = by_name("vllm", gpu_memory_utilization=0.95)["left free"]
    assert round((H100 - left) / GiB, 2) == 75.23


def test_vllm_samples_and_passes() -> None:
    # bf16 logits, fp32 logits, probabilities and noise of 1,024 samples; the hidden states; 192 MiB
    sampling = 1024 * 128256 * (2 + 4 + 4 + 4) + 8192 * 4096 * 2 + 192 * MiB
    assert by_name("vllm")["activations"] == sampling
    few = LLAMA.replace(sequences=8)
    passing = 8192 * 2 * (4 * 4096 + 3 * 14336) + 192 * MiB
    assert budget("vllm", H100, sizes=few)[1].bytes == passing


def test_vllm_graphs() -> None:
    # vLLM logs "PIECEWISE=51 (largest=512), FULL=35 (largest=256)" and "PIECEWISE=35 (largest=256), FULL=19 (largest=128)"
    assert [captured(size) for size in (512, 256, 128)] == [51, 35, 19]
    assert "CUDA graphs" not in by_name("vllm", enforce_eager=True)


def test_sglang_fraction_by_hand() -> None:
    # 81,559 MiB: 512 + 8,192 × 1.5 + 1/8 × 1,024 + 256 × 2 + 58 prefill graphs × 8
    assert prefill_graphs(4096) == 8 + 14 + 8 + 8 + 12
    reserved = 512 + 8192 * 1.5 + 128 + 512 + 8 * 58
    assert prefill_graphs(8192) == 50 + 8
    fraction = round((81559 - reserved) / 81559, 3)
    found = budget("sglang", 81559 * MiB, sizes=LLAMA)
    assert f"mem_fraction_static {fraction:g}," in found[1].why
    assert found[1].bytes == round((81559 * MiB - found[0].bytes) * (1 - fraction))


def test_unknown_options_are_named() -> None:
    with pytest.raises(BadConfig, match="gpu_memory_utilisation: 0.9; not an option of engine vllm"):
        by_name("vllm", gpu_memory_utilisation=0.9)
    with pytest.raises(BadConfig, match="gpu_memory_utilization: 1.5; expected a number above 0 and up to 1"):
        by_name("vllm", gpu_memory_utilization=1.5)


def test_sizes_of_a_published_config() -> None:
    found = sizes_of(load("meta-llama/Llama-3.1-8B-Instruct"), "vllm")
    assert found == LLAMA
