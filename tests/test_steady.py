"""How many requests run at once: vLLM 0.33.0's own scheduler driven with fake outputs, replayed step by step (tests/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import lines

from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, catalog, load
from memcurve.base import BadFile
from memcurve.engines.sglang_pools import SGLangPool
from memcurve.engines.sglang_scheduler import Run
from memcurve.engines.sglang_scheduler import Scheduler as SGLangScheduler
from memcurve.engines.vllm_blocks import VllmAllocator
from memcurve.engines.vllm_loop import run_of
from memcurve.lengths import lengths
from memcurve.steady import GENERATIONS, Steady

GIB = 2**30
CASES = list(lines("vllm_steady.jsonl"))


def curve_of(entry: dict[str, Any]) -> MemoryCurve:
    config: dict[str, Any] = entry["config"] if "config" in entry else catalog.find(entry["model"]) or {}
    return load({**config, **entry.get("changes", {})}).curve("vllm", **entry["options"])


def requests_of(entry: dict[str, Any]) -> list[tuple[int, int]]:
    prompts, outputs = (
        one if isinstance(one, list) else [one] * entry["requests"] for one in (entry["prompt"], entry["output"])
    )
    return list(zip(prompts, outputs, strict=True))


def test_every_recorded_run_step_by_step(count: Any) -> None:
    wrong = []
    for entry in CASES:
        curve = curve_of(entry)
        assert isinstance(curve.allocator, VllmAllocator)
        blocks = curve.allocator.pool(entry["memory"]).num_blocks
        run = run_of(curve.allocator, blocks, requests_of(entry))
        # num_blocks, the most requests at once, preemptions, steps, the most blocks in use, requests summed over steps
        found = [blocks, run.peak, run.preemptions, run.steps, run.blocks, run.area]
        if found != entry["recorded"]:
            wrong.append((entry.get("model"), entry["options"], found, entry["recorded"]))
    preempted = sum(entry["recorded"][2] > 0 for entry in CASES)
    count(f"vllm 0.33.0: {len(CASES)} runs of its scheduler, {preempted} with preemptions, {len(wrong)} wrong")
    assert wrong == []
    assert len(CASES) >= 170
    assert preempted >= 40


def steady(curve: MemoryCurve, memory: int, **given: Any) -> Steady:
    return curve.steady_requests(memory, **given)


def test_the_answer_is_the_recorded_one() -> None:
    for entry in CASES[:10]:
        found = steady(
            curve_of(entry), entry["memory"], prompt=entry["prompt"], output=entry["output"], requests=entry["requests"]
        )
        assert (found.running, found.preemptions, found.steps) == tuple(entry["recorded"][1:4])
        assert found.used == (("blocks", entry["recorded"][4], entry["recorded"][0] - 1),)
        assert found.requests == entry["requests"]


def test_a_prompt_alone_by_hand() -> None:
    # Llama-3.1-8B: 16 tokens of 32 layers of 2 · 8 · 128 · 2 bytes, 2 MiB a block. A prompt of 4,096 tokens and 3 outputs: prefill at
    # step 0 gives the first, steps 1 and 2 the others, which are in at the end of step 3: 4 steps, and
    # ceil((4,096 + 2) / 16) = 257 blocks at most.
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", max_model_len=8192)
    found = steady(curve, 600 * 2 * 2**20, prompt=4096, output=3, requests=1)
    assert (found.running, found.steps, found.used) == (1, 4, (("blocks", 257, 599),))
    assert found.bound_by == "requests"
    assert found.pessimistic == 600 / 512
    # Two such fit 599 blocks; the third waits for blocks.
    assert steady(curve, 600 * 2 * 2**20, prompt=4096, output=300).running == 2
    assert steady(curve, 600 * 2 * 2**20, prompt=4096, output=300).bound_by == "blocks"


def test_max_num_seqs_binds() -> None:
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", max_num_seqs=7)
    found = steady(curve, 40 * GIB, prompt=100, output=500)
    assert (found.running, found.bound_by) == (7, "max_num_seqs")


def test_max_num_batched_tokens_binds() -> None:
    # Every prompt fills a step, and is done two steps later: the step after the prefill is under way when the first token comes.
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm")
    found = steady(curve, 40 * GIB, prompt=8192, output=1)
    assert (found.running, found.bound_by) == (2, "max_num_batched_tokens")


@pytest.mark.parametrize(
    "name", ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-Next-80B-A3B-Thinking", "openai/gpt-oss-20b"]
)
@pytest.mark.parametrize(("prompt", "output"), [(1000, 300), (8192, 300), (300, 700)])
def test_more_requests_in_the_queue_change_nothing(name: str, prompt: int, output: int) -> None:
    curve = load(name).curve("vllm", max_model_len=32768)
    few = steady(curve, 5 * GIB, prompt=prompt, output=output)
    many = steady(curve, 5 * GIB, prompt=prompt, output=output, requests=3 * few.requests)
    assert few.requests >= GENERATIONS * few.running
    assert few.running == many.running
    assert abs(few.mean - many.mean) < 0.03 * many.mean


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.integers(2400, 6000),
    prompt=st.integers(1, 3000),
    output=st.integers(1, 600),
    name=st.sampled_from(
        ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-Next-80B-A3B-Thinking", "google/gemma-3-1b-it"]
    ),
    caching=st.booleans(),
    ahead=st.booleans(),
)
def test_bounds_that_hold_whatever_the_scheduler_does(
    blocks: int, prompt: int, output: int, name: str, caching: bool, ahead: bool
) -> None:
    curve = load(name).curve("vllm", max_model_len=4096, enable_prefix_caching=caching, async_scheduling=ahead)
    allocator = curve.allocator
    assert isinstance(allocator, VllmAllocator)
    memory = blocks * max(allocator.block_bytes)
    found = steady(curve, memory, prompt=prompt, output=output, requests=100)
    (_, used, there), *_ = found.used
    assert used <= there == blocks - 1
    assert 1 <= found.running <= 100
    assert 0 < found.mean <= found.running
    # A request of which nothing else is known holds its prompt: as many as run at once have at least a first chunk each.
    assert found.steps >= output + (1 if ahead else 0)


def test_more_memory_never_lowers_it_for_requests_of_one_length() -> None:
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", max_model_len=4096)
    block = 2 * 2**20
    for prompt, output in ((300, 900), (1000, 300)):
        sizes = range(400, 1400, 25)
        peaks = [steady(curve, size * block, prompt=prompt, output=output, requests=80).running for size in sizes]
        assert peaks == sorted(peaks)
        assert peaks[-1] > peaks[0]


def test_one_block_more_can_lower_it_where_lengths_differ() -> None:
    """The last two recorded cases: 12 requests, one block more, and at most 5 at once instead of 6. What is preempted, and so the
    order of the queue, depends on the blocks."""
    fewer, more = CASES[-2:]
    assert {**fewer, "memory": 0, "recorded": 0} == {**more, "memory": 0, "recorded": 0}
    assert more["recorded"][0] == fewer["recorded"][0] + 1
    assert (fewer["recorded"][1], more["recorded"][1]) == (6, 5)
    for entry in (fewer, more):
        blocks, *_ = entry["recorded"]
        allocator = curve_of(entry).allocator
        assert isinstance(allocator, VllmAllocator)
        assert run_of(allocator, blocks, requests_of(entry)).peak == entry["recorded"][1]


# -- lengths ------------------------------------------------------------------------------------------------------------


def take(given: Any, number: int, name: str = "prompt") -> list[int]:
    source = lengths(name, given)[0]
    return [next(source) for _ in range(number)]


def test_lengths_are_numbers_distributions_or_columns(tmp_path: Path) -> None:
    assert take(5, 3) == take("5", 3) == [5, 5, 5]
    assert take("lognormal(1024,0)", 3) == [1024] * 3
    drawn = take("lognormal(1024, 0.8)", 20_000)
    assert drawn == take("lognormal(1024,0.8)", 20_000)
    assert drawn != take("lognormal(1024,0.8)", 20_000, "output")
    # The median of 20,000 draws lies within 3 · 1.2533 · 0.8 / sqrt(20,000) = 2.1 % of the distribution's.
    assert abs(sorted(drawn)[10_000] / 1024 - 1) < 0.022
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,10,3\n2,20,4\n")
    assert take(path, 3) == [10, 20, 10]
    assert take(str(path), 3, "output") == [3, 4, 3]
    path.write_text("10,3\n20,4\n")
    assert take(path, 2, "output") == [3, 4]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (0, BadConfig, "prompt: 0; expected an integer of 1 or more"),
        (1.5, BadFile, "expected a number of tokens, lognormal"),
        ("lognormal(0,1)", BadConfig, "prompt: 'lognormal(0,1)'; expected lognormal(median,sigma)"),
        ("lognormal(5,99)", BadConfig, "a sigma of 0 to 10"),
        ("lognormal(5)", BadConfig, "such as lognormal(1024,0.8)"),
        ("lognormal(nan,1)", BadConfig, "expected lognormal"),
        ("no such file", BadFile, "a CSV file"),
    ],
)
def test_lengths_that_are_none(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words.replace("(", r"\(").replace(")", r"\)")):
        take(given, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "the columns 'a, b'"), ("prompt\nx\n", "line 2: 'x'"), ("prompt\n", "has no row"), ("", "columns")],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(BadFile, match=words):
        take(path, 1)


def test_requests_too_long_are_turned_down() -> None:
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", max_model_len=2048)
    with pytest.raises(Refused, match="prompt: 2,048 tokens; the engine takes fewer than 2,048"):
        steady(curve, 4 * GIB, prompt=2048, output=1)
    found = steady(curve, 4 * GIB, prompt="lognormal(1024,1)", output=10)
    assert found.turned_down > 0
    # Its outputs stop at the longest request: 2,047 + 1 tokens, and not one more block.
    assert steady(curve, 4 * GIB, prompt=2047, output=500, requests=1).used[0][1] == 128


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size 2"),
        ({"speculative_method": "ngram", "num_speculative_tokens": 3}, "num_speculative_tokens 3"),
    ],
)
def test_schedulers_that_are_not_described(options: dict[str, Any], words: str) -> None:
    curve = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", **options)
    with pytest.raises(NotDescribed, match=words):
        steady(curve, 40 * GIB, prompt=100, output=10)


def test_a_request_that_never_fits_ends_in_a_reason() -> None:
    # 19 blocks of 16 tokens: no prompt of 1,000; one of 100 grows to 19 · 16 + 1 = 305 tokens, and its blocks are not enough.
    allocator = load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm", max_model_len=4096).allocator
    assert isinstance(allocator, VllmAllocator)
    for request, words in (
        ((1000, 5), "1,000 tokens, is never scheduled"),
        ((100, 1000), "305 tokens, is never scheduled"),
    ):
        with pytest.raises(Refused, match=words):
            run_of(allocator, 20, [request])


# -- SGLang ---------------------------------------------------------------------------------------------------------------


def sglang(tokens: int, requests: list[tuple[int, int]], page: int = 1, most: int = 10**6, chunk: int = 8192) -> Run:
    return SGLangScheduler(tokens, page, most, "max_running_requests", chunk, ahead=True).run(requests)


def test_every_recorded_run_of_sglang(count: Any) -> None:
    entries = list(lines("sglang_steady.jsonl"))
    wrong = []
    for entry in entries:
        run = sglang(entry["tokens"], requests_of(entry), entry["page"], entry["most"], entry["chunk"])
        # the most requests at once, retractions, batches, the most tokens in use, requests that never end
        found = [run.peak, run.preemptions, run.steps, run.tokens, 0]
        if found != entry["recorded"]:
            wrong.append((entry, found))
    retracted = sum(entry["recorded"][1] > 0 for entry in entries)
    count(f"sglang 0.5.23: {len(entries)} runs of its scheduler, {retracted} with retractions, {len(wrong)} wrong")
    assert wrong == []
    assert len(entries) == 40
    assert retracted >= 5


def test_sglang_lets_in_what_it_expects_to_fit() -> None:
    # Admission (PrefillAdder.add_one_req): prompt + outputs + a page must be less than what is free beside what the batch took, a page
    # each and all outputs: 1,000 + 100 + 1 each. Five are 5,505, less than 5,506: one prefill, and 99 decodes for the other outputs.
    assert sglang(5_506, [(1000, 100)] * 5).steps == 1 + 99
    # One token fewer, and the fifth comes in a second prefill: 5,505 - 4 · 1,000 - 0.7 · 4 · 100 = 1,225 are left for its 1,101.
    run = sglang(5_505, [(1000, 100)] * 5)
    assert (run.steps, run.peak) == (2 + 99, 5)
    # A prompt with 4,096 outputs or more counts 4,096 of them.
    assert sglang(2 * 5_097 + 1 + 2_000, [(1000, 5000)] * 2).peak == 2


def test_sglang_waits_for_tokens_that_running_requests_will_take() -> None:
    # 20 prompts of 400 tokens take one prefill of 8,000. Their 1,000 outputs count in full in that batch: 20 · 1,401 = 28,020 of 28,021.
    # A pool of 15,000 lets 10 in at first (10 · 1,401 = 14,010); of the next, 400 + 1,000 + 1 must be less than what 10 · 400 tokens
    # and 0.7 · 10 · 1,000 leave, 4,000: two more, for one leaves 4,000 - 1,401 = 2,599, two 1,198.
    assert sglang(28_021, [(400, 1000)] * 20).steps == 1 + 999
    run = sglang(15_000, [(400, 1000)] * 20)
    assert run.peak >= 12
    assert run.bound.get("tokens", 0) > 0


def test_sglang_cuts_long_prompts() -> None:
    # 20,000 tokens in chunks of 8,192: three prefills, then 9 decodes.
    assert sglang(50_000, [(20_000, 10)]).steps == 3 + 9
    # Pages of 64: 20,009 tokens in 313 of them.
    assert sglang(64_000, [(20_000, 10)], page=64).tokens == 313 * 64


def test_sglang_retracts() -> None:
    # 6 · (100 + 2,000) tokens can't stand in 8,000; the estimate lets more in than end there.
    run = sglang(8_000, [(100, 2000)] * 30)
    assert run.preemptions > 0
    assert run.tokens <= 8_000
    assert run.peak > 8_000 // 2_100
    with pytest.raises(Refused, match="never enters a pool of 1,000 tokens"):
        sglang(1_000, [(999, 5)])


def test_sglang_runs_as_many_as_have_slots() -> None:
    curve = load("Qwen/Qwen3-Next-80B-A3B-Thinking").curve("sglang")
    pool = curve.pool(20 * GIB)
    found = steady(curve, 20 * GIB, prompt=1000, output=100)
    assert isinstance(pool, SGLangPool)
    assert pool.state_slots is not None
    assert (found.running, found.bound_by) == (pool.state_slots // 3, "state slots")
    assert (
        steady(load("Qwen/Qwen3-8B").curve("sglang", max_running_requests=5), 20 * GIB, prompt=9, output=50).running
        == 5
    )


def test_sglang_pools_that_are_not_described() -> None:
    with pytest.raises(NotDescribed, match="one of sliding layers"):
        steady(load("openai/gpt-oss-20b").curve("sglang"), 20 * GIB, prompt=1, output=1)
    with pytest.raises(NotDescribed, match="these pools"):
        steady(load("deepseek-ai/DeepSeek-V4-Flash").curve("sglang"), 80 * GIB, prompt=1, output=1)


def test_engines_without_a_scheduler() -> None:
    for engine in ("logical", "transformers", "llamacpp"):
        with pytest.raises(NotDescribed, match="max_batch"):
            steady(load("meta-llama/Llama-3.1-8B-Instruct").curve(engine), GIB, prompt=1, output=1)
    with pytest.raises(BadConfig, match="requests: 2,000,000; expected at most 1,000,000"):
        steady(load("meta-llama/Llama-3.1-8B-Instruct").curve("vllm"), 40 * GIB, prompt=1, output=1, requests=2_000_000)
