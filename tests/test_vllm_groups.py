"""Replays over several groups of layers, against a plain oracle at every step."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import unquantised
from vllm_oracle import Asked, Group, Oracle, Rules

from memcurve import load
from memcurve.engines.vllm_blocks import VllmAllocator
from memcurve.engines.vllm_replay import Replayer

np = pytest.importorskip("numpy")
LONGEST = 4096
KINDS = {"full": "full", "latent": "full", "sliding": "window", "chunked": "chunk", "state": "state"}

# A name of the catalogue, changes to its keys, tokens of the longest request, and windows that groups are given instead of what they are:
# beside those of their like, as vLLM's planning has them.
Case = tuple[str, dict[str, Any], int, dict[int, int]]
LLAMA_4 = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
CASES: dict[str, Case] = {
    "window and full": ("openai/gpt-oss-20b", {}, 500, {}),
    "six windows and full": ("google/gemma-3-1b-it", {}, 1200, {}),
    "short windows and full": ("google/gemma-3-1b-it", {"sliding_window": 40}, 400, {}),
    "two lengths of windows": ("google/gemma-3-1b-it", {"sliding_window": 40}, 500, {0: 130, 1: 130}),
    "windows without full": ("google/gemma-3-1b-it", {"sliding_window": 40}, 500, {5: 130, 6: 130}),
    "a window alone": ("mistralai/Mistral-7B-v0.1", {"sliding_window": 70}, 400, {}),
    "windows of shorter blocks": ("XiaomiMiMo/MiMo-V2-Flash", {}, 600, {}),
    "windows of longer blocks": ("maxtext/gemma4_e2b", {}, 1500, {}),
    "states and full": ("LiquidAI/LFM2-1.2B", {}, 400, {}),
    "states, a window and full": ("LiquidAI/LFM2-1.2B", {}, 400, {1: 70}),
    "states and a window": ("LiquidAI/LFM2-1.2B", {}, 400, {2: 70}),
    "states in blocks of 80": ("ai21labs/AI21-Jamba-1.5-Mini", {}, 1200, {}),
    "states in blocks of 576": ("Qwen/Qwen3-Next-80B-A3B-Thinking", {}, 3500, {}),
    "chunks and full": (LLAMA_4, {"attention_chunk_size": 64}, 400, {}),
    "chunks, a window and full": (LLAMA_4, {"attention_chunk_size": 96}, 400, {2: 70}),
}


@functools.cache
def allocator_of(case: str, caching: bool, ahead: bool, most: int, budget: int) -> VllmAllocator:
    name, changes, _, windows = CASES[case]
    config = {**unquantised(name), **changes}
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], **changes}
    found = load(config).curve(
        "vllm", max_model_len=LONGEST, enable_prefix_caching=caching, async_scheduling=ahead, max_num_seqs=most,
        max_num_batched_tokens=budget,
    ).allocator  # fmt: skip
    assert isinstance(found, VllmAllocator)
    full = next((one.members[0][0] for one in found.groups if one.members[0][0].cache == "full"), None)
    groups = []
    for index, one in enumerate(found.groups):
        ((spec, layers),) = one.members
        # States that a prefill hands out on its way are no part of the oracle.
        spec = spec.replace(export=0, held=2) if spec.export else spec
        if index in windows:
            assert full is not None
            spec = full.replace(
                cache="sliding", window=windows[index], held=windows[index] - 1 + under_way(ahead, budget)
            )
        groups.append(one.replace(members=((spec, layers),)))
    return found.replace(groups=tuple(groups))


def under_way(ahead: bool, budget: int) -> int:
    """Tokens of one batch, or of two (VllmConfig.max_in_flight_tokens)."""
    return (2 if ahead else 1) * budget


def groups_of(allocator: VllmAllocator, ahead: bool, budget: int) -> tuple[Group, ...]:
    """As the oracle has them, with max_admission_blocks_per_request of SlidingWindowSpec and ChunkedLocalAttentionSpec."""
    found = []
    for one in allocator.groups:
        spec = one.members[0][0]
        kind, most = KINDS[spec.cache], 0
        if kind == "window":
            most = -(-min(spec.window - 1 + under_way(ahead, budget), LONGEST) // spec.block) + 1
        if kind == "chunk":
            most = -(-min(spec.window + under_way(ahead, budget), LONGEST) // spec.block)
        found.append(Group(kind, spec.block, spec.window if kind in ("window", "chunk") else 0, most))
    return tuple(found)


def least(rules: Rules, tokens: int) -> int:
    """Blocks that are enough for one request of so many tokens. Of states, the one written, the one before it, and one under way."""
    return sum(
        min(-(-tokens // one.block), one.most or tokens, 3 if one.kind == "state" else tokens) for one in rules.groups
    )


@st.composite
def runs(draw: st.DrawFn, case: str) -> tuple[VllmAllocator, Rules, list[tuple[int, int, int, list[int]]], int]:
    """An allocator, rules, requests of (arrival, prompt, output, hashes), and tokens of a hash."""
    caching, ahead = draw(st.sampled_from([True, True, False])), draw(st.booleans())
    most, budget = draw(st.sampled_from([1, 2, 3, 5, 8, 12])), draw(st.sampled_from([16, 40, 100, 200, 700, 2048]))
    allocator = allocator_of(case, caching, ahead, most, budget)
    groups = groups_of(allocator, ahead, budget)
    rules = Rules(
        blocks=0, block=0, budget=budget, most=most, caching=caching, ahead=ahead, step_ns=draw(st.sampled_from([1, 5, 1000])),
        prefill_tokens=draw(st.sampled_from([1, 7, 100])), groups=groups,
    )  # fmt: skip
    longest = draw(st.integers(2, CASES[case][2]))
    rules = rules._replace(blocks=least(rules, longest) + draw(st.integers(0, 3 * least(rules, longest))))
    size = max(one.block for one in groups if one.kind != "state" or caching)
    span = draw(st.sampled_from([size, 2 * size, size // 2 + 3, 11, size + 5]))
    found, time, fresh = [], 0, 0
    chains: list[list[int]] = [[]]
    for _ in range(draw(st.integers(1, 25))):
        time += draw(st.sampled_from([0, 0, 1, 50, 3000]))
        # What it shares, and then some; or a prompt of any length, that shares what of it there is room for.
        known = draw(st.sampled_from(chains[-3:]))
        hashes = known[: len(known) - draw(st.sampled_from([0, 0, 1, 2, 9]))]
        shared = len(hashes) * span
        prompt = draw(st.one_of(st.integers(1, longest - 1), st.integers(shared + 1, shared + 2 * size)))
        if draw(st.booleans()):
            prompt = -(-prompt // size) * size
        prompt = min(prompt, longest - 1)
        output = draw(st.integers(1, min(longest - prompt, 100)))
        hashes = hashes[: prompt // span]
        more = draw(st.integers(0, -(-prompt // span) - len(hashes)))
        hashes = hashes + list(range(fresh, fresh + more))
        fresh += more
        # An id that stands for less than a whole one ends a prompt, and so it is none of another's.
        chains.append(hashes[: prompt // span])
        found.append((time, prompt, output, hashes))
    return allocator, rules, found, span


def expected(rules: Rules, requests: list[tuple[int, int, int, list[int]]], span: int) -> tuple[list[Any], list[Any]]:
    """Rows of steps and of requests. A prompt has tokens of one number for each hash, and for what has none of one of its own."""
    asked = [
        Asked(arrival, ([10**6 + one for one in hashes for _ in range(span)] + [number] * prompt)[:prompt], output)
        for number, (arrival, prompt, output, hashes) in enumerate(requests)
    ]
    oracle = Oracle(rules, asked)
    steps = oracle.run()
    return steps, [[one.admitted, one.first, one.end, one.preemptions, one.hit] for one in oracle.requests]


def replayed(
    allocator: VllmAllocator, rules: Rules, requests: list[tuple[int, int, int, list[int]]], span: int
) -> tuple[list[Any], list[Any]]:
    replayer = Replayer(
        allocator, rules.blocks + 1, step_ns=rules.step_ns, prefill_tokens=rules.prefill_tokens, hash_tokens=span,
        interval_ns=0, compiled=False,
    )  # fmt: skip
    offsets = np.cumsum([0, *(len(one[3]) for one in requests)])
    ids = [number for one in requests for number in one[3]]
    arrival, prompt, output = ([one[column] for one in requests] for column in range(3))
    parts = [replayer.feed(arrival, prompt, output, (offsets, ids)), replayer.finish()]
    steps, ended = (
        [
            list(row)
            for part in parts
            for row in zip(*(one.tolist() for one in getattr(part, name).values()), strict=True)
        ]
        for name in ("series", "requests")
    )
    # The last row is the end.
    return [[*row[:2], row[2] + row[3], *row[4:8]] for row in steps[:-1]], [row[4:] for row in sorted(ended)]


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_plain_oracle_agrees_at_every_step(case: str, data: st.DataObject) -> None:
    allocator, rules, requests, span = data.draw(runs(case))
    assert replayed(allocator, rules, requests, span) == expected(rules, requests, span)
