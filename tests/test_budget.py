"""What engines set aside beside weights and state: their rules on worked numbers, and assumptions against logs."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
from startups import H100, LLAMA, GiB, MiB, compute_ratios, lines, logged, over

from memcurve import BadConfig, NotDescribed, Refused, load, pattern
from memcurve.catalog import names
from memcurve.engines.budget import budget, given_pool
from memcurve.engines.budget_sglang import mem_fraction_static, prefill_graphs
from memcurve.engines.budget_vllm import captured
from memcurve.sizes import sizes_of
from memcurve.startup import read_startup


def by_name(engine: str, total: int = H100, **options: object) -> dict[str, int]:
    return {one.name: one.bytes for one in budget(engine, total, sizes=LLAMA, options=options)}


def test_vllm_leaves_what_utilisation_leaves() -> None:
    assert by_name("vllm")["left free"] == H100 - ceil(H100 * 0.92)
    # ⌈100 × 0.333⌉ is 34, where rounding would give 33
    assert by_name("vllm", 100, gpu_memory_utilization=0.333)["left free"] == 66
    # 75.23 GiB requested: logged by vLLM 0.19.0 with 0.95 on 79.19 GiB
    left = by_name("vllm", gpu_memory_utilization=0.95)["left free"]
    assert round((H100 - left) / GiB, 2) == 75.23


def test_vllm_samples_and_passes() -> None:
    # bf16 logits, fp32 logits, probabilities and noise of 1,024 samples; the hidden states; 256 MiB
    sampling = 1024 * 128256 * (2 + 4 + 4 + 4) + 8192 * 4096 * 2 + 256 * MiB
    assert by_name("vllm")["activations"] == sampling
    few = LLAMA.replace(sequences=8)
    passing = 8192 * 2 * (4 * 4096 + 3 * 14336) + 256 * MiB
    assert budget("vllm", H100, sizes=few)[1].bytes == passing


def test_vllm_keeps_the_workspaces_of_experts() -> None:
    # Mixtral on 2 ranks: each of 8,192 tokens for 2 experts, a half of 14,336 or a hidden state of 4,096, and both halves
    # of 7,168 side by side (workspace_shapes)
    mixtral = LLAMA.replace(vocabulary=32000, experts=2, expert_width=14336)
    plain = budget("vllm", H100, sizes=mixtral.replace(experts=0), tp=2)[1].bytes
    assert budget("vllm", H100, sizes=mixtral, tp=2)[1].bytes - plain == 8192 * 2 * (7168 + 14336) * 2


def test_vllm_expands_latents() -> None:
    # DeepSeek-V3 on 8 ranks with few requests: 65,536 latents for 16 heads of 128 + 128 beside four hidden states
    deepseek = LLAMA.replace(hidden=7168, intermediate=18432, sequences=8, latent_layers=61, latent_heads=128 * 256)
    expected = 65536 * 16 * 256 * 2 + 4 * 8192 * 7168 * 2 + 256 * MiB
    assert budget("vllm", H100, sizes=deepseek, tp=8)[1].bytes == expected


def test_vllm_runs_pictures() -> None:
    seen = LLAMA.replace(vision=(24, 1024))
    more = budget("vllm", H100, sizes=seen)[1].bytes - by_name("vllm")["activations"]
    assert more == 512 * MiB
    assert (
        budget("vllm", H100, sizes=seen, options={"language_model_only": True})[1].bytes
        == by_name("vllm")["activations"]
    )


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
    with pytest.raises(BadConfig, match=r"gpu_memory_utilisation: 0\.9; not an option of engine vllm"):
        by_name("vllm", gpu_memory_utilisation=0.9)
    with pytest.raises(BadConfig, match=r"gpu_memory_utilization: 1\.5; expected a number above 0 and up to 1"):
        by_name("vllm", gpu_memory_utilization=1.5)


def test_sizes_of_a_published_config() -> None:
    found = sizes_of(load("meta-llama/Llama-3.1-8B-Instruct"), "vllm")
    assert found == LLAMA


def test_sglang_fractions_are_those_of_its_own_code(count: Any) -> None:
    cases = lines("sglang_fraction.jsonl")
    for memory, tp, pp, model, options, theirs in cases:
        vision = model.get("vision")
        sizes = LLAMA.replace(
            latent_layers=60 if model.get("mla") else 0,
            multimodal=vision is not None,
            vision=tuple(vision) if vision else None,
            graphs_prefill=vision is None or model.get("graphs", False),
        )
        mine, _ = mem_fraction_static(memory, sizes, tp, pp, options)
        assert mine == theirs, (memory, tp, pp, model, options)
    count(f"mem_fraction_static: {len(cases):,} of SGLang's own answers, all equal")


def summary(errors: list[float]) -> str:
    """How many logs an assumption covers, and by how much it is over, in GiB."""
    ordered = sorted(errors)
    middle, most = ordered[len(ordered) // 2], ordered[-1]
    return (
        f"{sum(error >= 0 for error in errors)} of {len(errors)} covered, over by {middle:.2f} GiB in the middle "
        f"({ordered[0]:+.2f} to {most:+.2f})"
    )


def test_vllm_against_logs(count: Any) -> None:
    errors = over("vllm")
    count(f"vLLM start-ups: {summary(errors)}")
    assert len(errors) >= 50
    assert sum(error >= 0 for error in errors) >= 0.9 * len(errors)
    assert max(errors) < 1.5


def test_sglang_against_logs(count: Any) -> None:
    errors = over("sglang")
    count(f"SGLang start-ups: {summary(errors)}")
    assert len(errors) >= 10
    assert sum(error >= 0 for error in errors) >= 0.9 * len(errors)
    # 23.09 GiB before the weights, 8.62 of them, mem_fraction_static 0.85: the pools take what is left but (1 − 0.85) × 23.09
    # = 3.46 GiB, and 3.40 are free after them.
    (known,) = [line for line in logged("sglang") if "fraction" in line]
    slack = known["before"] * (1 - known["fraction"])
    assert abs(slack - known["end"]) < 0.1
    measured = read_startup("[2026-01-01 00:00:00] Load weight begin. avail mem=23.09 GB\n")
    options = {"mem_fraction_static": 0.85}
    runtime, mine = budget("sglang", round(23.53 * GiB), sizes=LLAMA, options=options, log=measured)
    assert abs(runtime.bytes / GiB - (23.53 - 23.09)) < 0.006
    assert abs(mine.bytes / GiB - slack) < 0.01


def test_llamacpp_against_logs(count: Any) -> None:
    errors = over("llamacpp")
    count(f"llama.cpp start-ups: {summary(errors)}")
    assert len(errors) >= 15
    assert sum(error >= 0 for error in errors) >= 0.9 * len(errors)


def test_llamacpp_against_its_own_reservations(count: Any) -> None:
    ratios = [ratio for ratio, _ in compute_ratios()]
    covered = sum(ratio >= 1 for ratio in ratios)
    count(
        f"llama.cpp's compute buffers: {covered} of {len(ratios)} covered, {ratios[len(ratios) // 2]:.2f} × in the middle"
    )
    assert len(ratios) > 200
    assert covered >= 0.97 * len(ratios)
    assert ratios[len(ratios) // 2] < 1.2


@pytest.mark.parametrize(
    ("name", "tokens", "cells", "reserved"),
    [
        # MiB that llama.cpp 0c1e57098 reserves for one sequence (verify/budget.py's worker). Decays of 64 heads × 2,048² are 1 GiB
        # each, and three live at once; scores, bias and their sum of 12 heads × 512 × 8,192 are 192 MiB each.
        ("MiniMaxAI/MiniMax-VL-01", 256, 8192, 114.19),
        ("MiniMaxAI/MiniMax-VL-01", 1024, 8192, 1032.77),
        ("MiniMaxAI/MiniMax-VL-01", 2048, 8192, 3601.55),
        ("google/t5-v1_1-base", 512, 4096, 314.01),
        ("google/t5-v1_1-base", 512, 8192, 620.01),
        ("google/t5-v1_1-base", 256, 8192, 318.26),
    ],
)
def test_llamacpp_holds_decays_and_biases(name: str, tokens: int, cells: int, reserved: float) -> None:
    options = {"n_ubatch": tokens, "n_ctx": cells, "n_outputs_max": 1}
    mine = budget("llamacpp", H100, sizes=sizes_of(load(name), "llamacpp"), options=options)[0].bytes / MiB
    # A sixteenth is added
    assert reserved <= mine < 1.08 * reserved


def test_llamacpp_leaves_a_margin() -> None:
    named = {one.name: one for one in budget("llamacpp", H100, sizes=LLAMA)}
    assert named["margin"].bytes == 1024 * MiB
    assert named["margin"].exact
    assert budget("llamacpp", H100, sizes=LLAMA, options={"fit_target": 512})[-1].bytes == 512 * MiB
    assert "margin" not in {one.name for one in budget("llamacpp", H100, sizes=LLAMA, options={"fit": False})}


def test_a_pool_that_is_given() -> None:
    assert given_pool("vllm", {"kv_cache_memory_bytes": 5 * GiB}) == 5 * GiB
    assert given_pool("vllm", {}) is None
    assert given_pool("sglang", {"kv_cache_memory_bytes": 1}) is None
    # gpu_memory_utilization is not respected then (determine_available_memory): the context counts instead
    names = set(by_name("vllm", kv_cache_memory_bytes=5 * GiB))
    assert names == {"CUDA context", "activations", "outside PyTorch", "CUDA graphs"}
    assert set(by_name("vllm", kv_cache_memory_bytes=GiB, estimate_cudagraphs=False)) == names
    assert "CUDA graphs" not in by_name("vllm", estimate_cudagraphs=False)


def test_absorbed_copies() -> None:
    # DeepSeek-V3: 61 layers of 512 × 128 heads · (128 + 128), in bf16, on 8 ranks
    deepseek = LLAMA.replace(latent_layers=61, latent_rank=512, latent_heads=128 * 256, quantised=True)
    copies = 61 * 512 * 128 * 256 * 2 // 8
    for engine in ("vllm", "sglang"):
        found = {one.name: one.bytes for one in budget(engine, H100, sizes=deepseek, tp=8)}
        assert found["MLA's copies of kv_b_proj"] == copies
    # vLLM's are views of a weight that is not quantised (split_kv_b_proj)
    names = {one.name for one in budget("vllm", H100, sizes=deepseek.replace(quantised=False), tp=8)}
    assert "MLA's copies of kv_b_proj" not in names
    assert sizes_of(load("deepseek-ai/DeepSeek-V3"), "vllm").absorbed(8) == copies


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp", "transformers", "logical"])
def test_every_published_config_has_sizes(engine: str) -> None:
    """Or says what it lacks. Larger models never need less of what grows with them."""
    seen = 0
    for name in names():
        model = load(name)
        try:
            sizes = sizes_of(model, engine, vocabulary=100_000)
        except (NotDescribed, Refused):
            continue
        found = budget(engine, H100, sizes=sizes)
        assert all(one.bytes >= 0 and one.why and "\n" not in one.why for one in found)
        wider = budget(engine, H100, sizes=sizes.replace(vocabulary=2 * sizes.vocabulary, hidden=2 * sizes.hidden))
        assert sum(one.bytes for one in wider) >= sum(one.bytes for one in found)
        seen += 1
    assert seen > 150


def test_a_pattern_has_no_sizes() -> None:
    with pytest.raises(NotDescribed, match="a pattern of layers has no weights"):
        sizes_of(pattern("3gdn:1mha"), "vllm")


def test_sizes_of_a_gguf_file() -> None:
    keys = {
        "general.architecture": "llama", "llama.block_count": 32, "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8,
        "llama.context_length": 8192, "llama.expert_count": 8, "llama.expert_used_count": 2,
    }  # fmt: skip
    found = sizes_of(load(keys), "llamacpp", vocabulary=128256)
    assert found == LLAMA.replace(experts=2, expert_width=14336, tokens=0, sequences=0)
    assert sizes_of(load({**keys, "llama.vocab_size": 32000}), "llamacpp").vocabulary == 32000
    with pytest.raises(BadConfig, match=r"llama\.vocab_size: missing"):
        sizes_of(load(keys), "llamacpp")
