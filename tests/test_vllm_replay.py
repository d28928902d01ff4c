"""Requests that arrive with time, through vLLM 0.33.0's scheduler: against its own recorded runs, a plain oracle, and itself
(tests/README.md)."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from replay import lines
from vllm_oracle import Asked, Oracle, Rules

from memcurve import BadConfig, NotDescribed, Refused, load
from memcurve.base import TooLarge
from memcurve.engines import vllm_loop, vllm_replay, vllm_scheduler
from memcurve.engines.vllm_blocks import VllmAllocator
from memcurve.engines.vllm_loop import has_numba, run_of
from memcurve.engines.vllm_replay import Replayer
from memcurve.engines.vllm_tables import ALIGNED, Tables
from memcurve.verify.vllm_replay import replayed, summary

np = pytest.importorskip("numpy")
CASES = list(lines("vllm_replay.jsonl"))
MODEL = "meta-llama/Llama-3.1-8B-Instruct"
WAYS = [False, True] if has_numba() else [False]


@functools.cache
def allocator_of(**options: Any) -> VllmAllocator:
    found = load(MODEL).curve("vllm", **{"max_model_len": 4096, **options}).allocator
    assert isinstance(found, VllmAllocator)
    return found


@pytest.mark.parametrize("compiled", WAYS)
def test_every_recorded_run_row_by_row(compiled: bool, count: Any) -> None:
    wrong = [
        entry.get("id", entry["options"]) for entry in CASES if summary(*replayed(entry, compiled)) != entry["recorded"]
    ]
    preempted = sum(entry["recorded"]["preemptions"] > 0 for entry in CASES)
    hits = sum(entry["recorded"]["sums"][4] > 0 for entry in CASES)
    count(
        f"vllm 0.33.0: {len(CASES)} runs over arrivals, {preempted} with preemptions, {hits} with hits, {len(wrong)} wrong"
    )
    assert wrong == []
    assert len(CASES) >= 102
    assert preempted >= 50
    assert hits >= 70


# -- the oracle -----------------------------------------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> tuple[Rules, list[tuple[int, int, int, list[int]]], int]:
    """Rules, requests of (arrival, prompt, output, hashes), and tokens of a hash."""
    span = draw(st.integers(1, 3))
    blocks = draw(st.integers(12, 60))
    rules = Rules(
        blocks=blocks, block=16, budget=draw(st.sampled_from([16, 40, 200, 2048])), most=draw(st.integers(1, 12)),
        caching=draw(st.booleans()), ahead=draw(st.booleans()), step_ns=draw(st.sampled_from([1, 5, 1000])),
        prefill_tokens=draw(st.sampled_from([1, 7, 100])),
    )  # fmt: skip
    rules = rules._replace(budget=max(rules.budget, rules.most))
    longest = blocks * 16
    found, time, fresh = [], 0, 0
    chains: list[list[int]] = [[]]
    for _ in range(draw(st.integers(1, 25))):
        time += draw(st.sampled_from([0, 0, 1, 50, 3000]))
        prompt = draw(st.integers(1, longest // 2))
        if draw(st.booleans()):
            prompt = -(-prompt // 16) * 16
        output = draw(st.integers(1, min(longest - prompt, 100)))
        known = draw(st.sampled_from(chains))
        hashes = known[: draw(st.integers(0, len(known)))][: prompt // (16 * span)]
        more = draw(st.integers(0, -(-prompt // (16 * span)) - len(hashes)))
        hashes = hashes + list(range(fresh, fresh + more))
        fresh += more
        # An id that stands for less than a whole one ends a prompt, and so it is none of another's.
        chains.append(hashes[: prompt // (16 * span)])
        found.append((time, prompt, output, hashes))
    return rules, found, span * 16


def asked(requests: list[tuple[int, int, int, list[int]]], hash_tokens: int) -> list[Asked]:
    """With tokens: one of its own for each hash, and for what has none one of the request's own."""
    return [
        Asked(
            arrival,
            ([10**6 + one for one in hashes for _ in range(hash_tokens)] + [number] * prompt)[:prompt],
            output,
        )
        for number, (arrival, prompt, output, hashes) in enumerate(requests)
    ]


def allocator_for(rules: Rules) -> VllmAllocator:
    return allocator_of(
        enable_prefix_caching=rules.caching, async_scheduling=rules.ahead, max_num_seqs=rules.most,
        max_num_batched_tokens=rules.budget,
    )  # fmt: skip


def replayer_of(rules: Rules, hash_tokens: int | None = None, **given: Any) -> Replayer:
    return Replayer(
        allocator_for(rules), rules.blocks + 1, step_ns=rules.step_ns, prefill_tokens=rules.prefill_tokens,
        hash_tokens=hash_tokens, **given,
    )  # fmt: skip


def feed(replayer: Replayer, requests: list[tuple[int, int, int, list[int]]], finish: bool = True) -> list[Any]:
    """Steps and requests, as rows."""
    offsets = np.cumsum([0, *(len(one[3]) for one in requests)])
    ids = [number for one in requests for number in one[3]]
    arrival, prompt, output = ([one[column] for one in requests] for column in range(3))
    parts = [replayer.feed(arrival, prompt, output, (offsets, ids) if replayer.hash_tokens else None)]
    parts += [replayer.finish()] if finish else []
    return parts


def rows_of(parts: list[Any], name: str) -> list[list[int]]:
    columns = [getattr(part, name) for part in parts]
    return [list(row) for part in columns for row in zip(*(one.tolist() for one in part.values()), strict=True)]


# A last block that is just full when its request ends, without asynchronous scheduling: it keeps its hash, and is taken last.
JUST_FULL: tuple[Rules, list[tuple[int, int, int, list[int]]], int] = (
    Rules(23, 16, 200, 10, True, False, 1, 1),
    [(0, 32, 81, []), (0, 16, 57, []), (1, 46, 12, []), (1, 44, 1, []), (1, 136, 47, []), (1, 130, 1, []), (1, 108, 14, []),
     (1, 59, 76, []), (1, 80, 49, []), (1, 91, 74, [])],
    16,
)  # fmt: skip


@pytest.mark.parametrize("compiled", WAYS)
@settings(max_examples=100, deadline=None)
@example(run=JUST_FULL)
@given(run=runs())
def test_a_plain_oracle_agrees_at_every_step(compiled: bool, run: Any) -> None:
    rules, requests, hash_tokens = run
    oracle = Oracle(rules, asked(requests, hash_tokens))
    expected = oracle.run()
    parts = feed(replayer_of(rules, hash_tokens, interval_ns=0, compiled=compiled), requests)
    steps = rows_of(parts, "series")
    assert [[*row[:2], row[2] + row[3], *row[4:8]] for row in steps[:-1]] == expected
    assert sorted(rows_of(parts, "requests")) == [
        [number, arrival, prompt, output, one.admitted, one.first, one.end, one.preemptions, one.hit]
        for (number, (arrival, prompt, output, _)), one in zip(enumerate(requests), oracle.requests, strict=True)
    ]
    # Conservation: what has arrived runs, waits, was put back, or is finished. The last row is the end.
    for time, running, waiting, back, used, tokens, _, finished, filled in steps:
        assert running + waiting + back + finished == sum(one[0] <= time for one in requests)
        assert 0 <= used <= rules.blocks
        assert tokens <= used * 16
        # Llama-3.1-8B: 32 layers of 2 · 8 · 128 · 2 bytes a token.
        assert filled == tokens * 32 * 2 * 8 * 128 * 2
    assert steps[-1][1:6] == [0, 0, 0, 0, 0]


def same_totals(one: Replayer, other: Replayer) -> bool:
    left, right = one.totals().as_dict(), other.totals().as_dict()
    return all(np.array_equal(left[name], right[name]) for name in left)


@settings(max_examples=60, deadline=None)
@given(run=runs(), size=st.integers(1, 9))
def test_how_it_is_fed_changes_nothing(run: Any, size: int) -> None:
    rules, requests, hash_tokens = run
    whole, pieces = (replayer_of(rules, hash_tokens, interval_ns=0, compiled=False) for _ in range(2))
    expected = feed(whole, requests)
    parts = []
    for first in range(0, len(requests), size):
        parts += feed(pieces, requests[first : first + size], finish=False)
    parts.append(pieces.finish())
    assert same_totals(whole, pieces)
    for name in ("requests", "series"):
        assert rows_of(parts, name) == rows_of(expected, name)


@pytest.mark.parametrize("compiled", WAYS)
@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_a_row_each_nanosecond_adds_up(compiled: bool, run: Any) -> None:
    rules, requests, hash_tokens = run
    rules = rules._replace(step_ns=min(rules.step_ns, 5))
    steps = rows_of(feed(replayer_of(rules, hash_tokens, interval_ns=0, compiled=compiled), requests), "series")
    replayer = replayer_of(rules, hash_tokens, interval_ns=1, compiled=compiled)
    rows = rows_of(feed(replayer, requests), "series")
    totals = replayer.totals()
    assert [row[0] for row in rows] == [*range(totals.now_ns), totals.now_ns]
    spent = np.array(rows[:-1]).reshape(-1, len(vllm_replay.SERIES))
    assert np.bincount(spent[:, 4], minlength=rules.blocks + 1).tolist() == totals.blocks_ns.tolist()
    assert np.bincount(spent[:, 1], minlength=len(totals.running_ns)).tolist() == totals.running_ns.tolist()
    assert spent[:, 5].sum() == totals.token_ns
    assert (totals.peak_blocks, totals.peak_tokens) == tuple(max(row[column] for row in steps) for column in (4, 5))
    assert totals.peak_running == max(row[1] for row in steps)
    assert totals.peak_waiting == max(row[2] + row[3] for row in steps)
    # The last row of the steps of a time is the state that lasts from there on.
    lasting = {row[0]: row[1:] for row in steps}
    for row in rows:
        assert row[1] + row[2] + row[3] + row[7] == sum(one[0] <= row[0] for one in requests)
        if row[0] in lasting and row[1]:
            assert row[1:] == lasting[row[0]]


# -- itself ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_steady_requests_agrees_where_all_wait_at_the_start(run: Any) -> None:
    rules, requests, _ = run
    replayer = replayer_of(rules, interval_ns=0, compiled=False)
    steps = rows_of(feed(replayer, [(0, prompt, output, []) for _, prompt, output, _ in requests]), "series")
    made = run_of(allocator_for(rules), rules.blocks + 1, [(one[1], one[2]) for one in requests])
    totals = replayer.totals()
    assert (totals.peak_running, totals.preemptions, totals.peak_blocks) == (made.peak, made.preemptions, made.blocks)
    assert (totals.steps, sum(row[1] for row in steps[:-1])) == (made.steps, made.area)


@pytest.mark.skipif(not has_numba(), reason="needs numba")
def test_turning_to_compiled_functions_in_the_middle_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from memcurve.engines import vllm_compiled

    entry = next(one for one in CASES if one.get("hash_tokens") and one["recorded"]["preemptions"])
    monkeypatch.setattr(vllm_loop, "PLAIN_STEPS", 100)
    monkeypatch.setattr(vllm_compiled, "kept", lambda: False)
    for seconds, told in ((10**9, []), (0.0, [vllm_loop.COMPILING])):
        monkeypatch.setattr(vllm_loop, "COMPILE_SECONDS", seconds)
        with caplog.at_level("INFO", logger="memcurve"):
            assert summary(*replayed(entry)) == entry["recorded"]
        assert caplog.messages == told


@pytest.mark.skipif(not has_numba(), reason="needs numba")
def test_links_to_shared_blocks_are_as_many_as_it_takes() -> None:
    # A prompt of 513 tokens; 31 of its first 17, 33, … 497 cut its blocks into pieces of one each, as they hold them; then 250 like it
    # arrive at once, and have 31 links each, 7,750 in all.
    times = [0] + [10**5] * 31 + [2 * 10**5] * 250
    prompts = [513] + [16 * one + 1 for one in range(1, 32)] + [513] * 250
    outputs = [1000] + [600] * 31 + [5] * 250
    ids = [7, 8] + [7] * 31 + [one for number in range(250) for one in (7, 100 + number)]
    offsets = np.cumsum([0, 2] + [1] * 31 + [2] * 250)
    found = []
    for compiled in (False, True):
        replayer = Replayer(
            allocator_of(max_num_seqs=256), 3000, step_ns=1, prefill_tokens=1, hash_tokens=512, interval_ns=0, compiled=compiled
        )  # fmt: skip
        parts = [replayer.feed(times, prompts, outputs, (offsets, ids)), replayer.finish()]
        found.append((rows_of(parts, "series"), rows_of(parts, "requests")))
        links = len(replayer.loop.tables.links)
    assert found[0] == found[1]
    assert links > vllm_loop.LINKS


def size_of(replayer: Replayer) -> int:
    return sum(len(one) for one in replayer.loop.tables)


def test_nothing_is_kept_of_what_ended() -> None:
    rules = Rules(100, 16, 2048, 8, True, True, 1000, 100)
    replayer = replayer_of(rules, 16, interval_ns=10**6, compiled=False)
    sizes, ended = [], 0
    for batch in range(40):
        first = batch * 50
        requests = [(20_000 * (first + one), 40 + one, 5, [first + one, 9**9 + first + one]) for one in range(50)]
        ended += sum(len(part.requests["number"]) for part in feed(replayer, requests, finish=False))
        sizes.append(size_of(replayer))
    assert ended > 1900
    # The same after 40 times as many requests, but for how much of the last batch waits.
    assert max(sizes[20:]) <= max(sizes[:20]) * 1.01


def test_by_hand() -> None:
    # 20 tokens of prompt and 3 outputs; a batch takes 10 ns a token of a prompt and 1,000 for decodes: the first token after 200 ns, the
    # third after 2,200. 2 blocks of 16 tokens hold 20 + 2 (the last output is never computed).
    replayer = Replayer(allocator_of(), 10, step_ns=1000, prefill_tokens=100, interval_ns=0)
    parts = [replayer.feed([500], [20], [3]), replayer.finish()]
    assert rows_of(parts, "requests") == [[0, 500, 20, 3, 500, 700, 2700, 0, 0]]
    # The first two batches are made at once: one is made while the other runs. The last is empty, for all is under way.
    steps = rows_of(parts, "series")
    assert [row[:6] for row in steps] == [
        [500, 1, 0, 0, 2, 20],
        [500, 1, 0, 0, 2, 21],
        [700, 1, 0, 0, 2, 22],
        [1700, 1, 0, 0, 2, 22],
        [2700, 0, 0, 0, 0, 0],
    ]
    totals = replayer.totals()
    assert totals.token_ns == 21 * 200 + 22 * 1000 + 22 * 1000
    assert totals.blocks_ns[:4].tolist() == [500, 0, 2200, 0]
    assert (totals.now_ns, totals.steps, totals.computed, totals.hits) == (2700, 4, 22, 0)


def test_requests_that_are_too_long_are_turned_down() -> None:
    replayer = Replayer(allocator_of(max_model_len=64), 10, step_ns=1, prefill_tokens=1, hash_tokens=16)
    parts = [replayer.feed([0, 0, 0], [64, 60, 99], [1, 50, 1], ([0, 4, 5, 6], [1, 2, 3, 4, 1, 7])), replayer.finish()]
    # An output stops at the longest request: 64 tokens.
    assert [row[:4] for row in rows_of(parts, "requests")] == [[1, 0, 60, 4]]
    totals = replayer.totals()
    assert (totals.fed, totals.turned_down, totals.finished, totals.arrived) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("arrival", "prompt", "output", "hashes", "words"),
    [
        ([0], [0], [1], None, "prompt: 0 tokens; expected 1 or more"),
        ([0], [5], [0], None, "output: 0 tokens; expected 1 or more"),
        ([-1], [5], [1], None, "arrival_ns: out of range"),
        ([5, 4], [5, 5], [1, 1], None, "arrival_ns: request 1 comes before"),
        ([0, 1], [5], [1], None, "2 arrivals, 1 prompts, 1 outputs"),
        ([0], [5], [1], ([0, 1, 2], [1, 2]), "hashes: offsets of 2 requests; expected 1"),
        ([0], [5], [1], ([0, 1], [-1]), "hashes: an id out of range"),
        ([0], [5], [1], ([0, 1], [2**62]), "hashes: an id out of range"),
    ],
)
def test_what_can_not_be_fed(arrival: Any, prompt: Any, output: Any, hashes: Any, words: str) -> None:
    replayer = Replayer(allocator_of(), 10, step_ns=1, prefill_tokens=1, hash_tokens=16)
    with pytest.raises(BadConfig, match=words):
        replayer.feed(arrival, prompt, output, hashes)


def of_model(name: str, **options: Any) -> VllmAllocator:
    found = load(name).curve("vllm", **options).allocator
    assert isinstance(found, VllmAllocator)
    return found


def test_layers_of_several_kinds_by_hand() -> None:
    # gpt-oss-20b: 12 layers keep 128 tokens at most, 12 all: of 1,000 + 9 tokens 12 · (128 + 1,009) rows of 2 · 8 · 64 · 2 bytes.
    replayer = Replayer(
        of_model("openai/gpt-oss-20b", max_model_len=4096), 1000, step_ns=1, prefill_tokens=1000, hash_tokens=512, interval_ns=0
    )  # fmt: skip
    replayer.feed([0], [1000], [10], ([0, 2], [7, 8]))
    alone = replayer.finish().series
    assert alone["filled_bytes"].max() == 12 * (128 + 1009) * 2048
    # Both groups' blocks of 16 tokens: all 1,000 of a prompt are in 63 blocks each at its prefill.
    assert alone["blocks"][0] == 126


def test_hybrids_share_prompts_by_hand() -> None:
    # A second prompt of the same 1,024 tokens and 200 others. gpt-oss-20b's full layers find 1,024 tokens of it, 64 blocks. Of its windows
    # of 128 tokens the first prompt left ceil(127 / 16) = 8 blocks before the last multiple of 16 below its end, 1,184: not those before
    # 1,024, so nothing is found, and the junction is kept. The third prompt finds them: 1,024 tokens.
    allocator = of_model("openai/gpt-oss-20b", max_model_len=4096)
    replayer = Replayer(allocator, 4000, step_ns=1, prefill_tokens=1, hash_tokens=512)
    hashes = [1, 2, 3, 1, 2, 4, 1, 2, 5]
    parts = [
        replayer.feed([0, 10**6, 2 * 10**6], [1200, 1224, 1224], [1, 1, 1], ([0, 3, 6, 9], hashes)),
        replayer.finish(),
    ]
    assert [row[8] for row in rows_of(parts, "requests")] == [0, 0, 1024]


def test_a_hash_may_cover_less_than_a_block() -> None:
    # Qwen3-Next under prefix caching has blocks of 576 tokens; hashes of 512: of 4 equal ones, 2,048 tokens, 3 blocks, 1,728 tokens, are
    # full, and the fourth ends within the fifth hash. States: none kept at 1,728, for the first prompt ends later; then at the junction.
    allocator = of_model("Qwen/Qwen3-Next-80B-A3B-Thinking", max_model_len=8192, enable_prefix_caching=True)
    replayer = Replayer(allocator, 400, step_ns=1, prefill_tokens=1, hash_tokens=512)
    hashes = [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4, 7]
    parts = [
        replayer.feed([0, 10**6, 2 * 10**6], [2500, 2500, 2500], [1, 1, 1], ([0, 5, 10, 15], hashes)),
        replayer.finish(),
    ]
    assert [row[8] for row in rows_of(parts, "requests")] == [0, 0, 1728]


BOOKS: list[tuple[str, int, dict[str, Any]]] = [
    (MODEL, 700, {}),
    ("openai/gpt-oss-20b", 1900, {}),
    ("openai/gpt-oss-20b", 900, {"enable_prefix_caching": False, "async_scheduling": False}),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", 130, {}),
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", 130, {"enable_prefix_caching": True}),
    ("LiquidAI/LFM2-1.2B", 600, {"enable_prefix_caching": True}),
]


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize(("name", "blocks", "options"), BOOKS)
def test_the_books_balance_at_every_step(
    monkeypatch: pytest.MonkeyPatch, name: str, blocks: int, options: dict[str, Any], hashes: bool
) -> None:
    """What is counted on the way, beside a count of all tables: tokens, blocks in use and free ones, uses of shared blocks."""
    allocator = of_model(name, **{"max_model_len": 4096, "max_num_seqs": 64, **options})
    steps = []
    lasting = vllm_scheduler.lasting

    def counted(k: Tables, after: int) -> None:
        run = k.run[0]
        running, slot = [], k.requests[0].younger
        while slot:
            running.append(slot)
            slot = k.requests[slot].younger
        assert run.running == len(running)
        assert run.tokens == sum(vllm_scheduler.tokens_of(k.requests[one], run.step) for one in running)
        assert run.prefilling == sum(k.requests[one].first < 0 for one in running)
        queue, piece = [], k.pieces[0].nxt
        while piece:
            queue.append(k.pieces[piece])
            piece = k.pieces[piece].nxt
        assert run.free == run.plain + sum(one.count for one in queue)
        assert all(one.count and not one.ref for one in queue)
        held = 0
        for one in running:
            for group in range(run.groups):
                cell = k.cells[one * run.kinds + k.kind_of[group]]
                states = k.kinds[k.kind_of[group]].form == ALIGNED
                held += cell.count if states else cell.held - cell.gone
        assert run.blocks - run.free == held - run.extra
        steps.append(run.step)
        lasting(k, after)

    monkeypatch.setattr(vllm_scheduler, "lasting", counted)
    replayer = Replayer(
        allocator, blocks, step_ns=25, prefill_tokens=500, interval_ns=0, hash_tokens=256 if hashes else None, compiled=False
    )  # fmt: skip
    number = np.arange(240)
    prompts = 20 + number * 991 % 1400
    # Every prompt begins like one of five others.
    ids = [
        [one % 5 * 100 + at for at in range(prompt // 256)] + [10**6 + one * 10] for one, prompt in enumerate(prompts)
    ]
    offsets = np.cumsum([0, *map(len, ids)])
    given = (offsets, np.array([one for row in ids for one in row])) if hashes else None
    replayer.feed(number * 40, prompts, 1 + number * 677 % 600, given)
    part = replayer.finish()
    totals = replayer.totals()
    assert totals.finished == 240
    assert totals.preemptions > 5
    assert totals.moved_bytes > 0
    assert len(steps) > 500
    if hashes and allocator.serving is not None and allocator.serving.prefix_caching:
        assert totals.hits > 0
    sizes = sum(allocator.block_bytes)
    assert all(
        filled <= used * sizes for filled, used in zip(part.series["filled_bytes"], part.series["blocks"], strict=True)
    )


def test_offloaded_bytes_by_hand() -> None:
    # 9 blocks of 16 tokens; two requests of 60 tokens and 30 outputs: at 64 tokens each has 4 blocks, and one is free; the older takes it for
    # its 65th token, and the younger is put back with 64 tokens, of 32 layers of 2 · 8 · 128 · 2 bytes.
    replayer = Replayer(allocator_of(async_scheduling=False), 10, step_ns=1, prefill_tokens=100)
    replayer.feed([0, 0], [60, 60], [30, 30])
    replayer.finish()
    totals = replayer.totals()
    assert totals.preemptions == 1
    assert totals.moved_bytes == 64 * 32 * 2 * 8 * 128 * 2


def test_what_a_replay_is_not_made_of() -> None:
    with pytest.raises(BadConfig, match="step_ns: 1,000,000,000,000,000; expected less, for a batch of 8,192 tokens"):
        Replayer(allocator_of(), 10**5, step_ns=10**15, prefill_tokens=1)
    late = Replayer(allocator_of(), 1000, step_ns=10**14, prefill_tokens=1, compiled=False)
    late.feed([0] * 99, [4000] * 99, [9] * 99)
    # A batch takes 8,192 · 10^14 ns, 26 years, and 396,000 tokens of prompts take 49 of them.
    with pytest.raises(TooLarge, match="for more than 146 years"):
        late.finish()
    with pytest.raises(BadConfig, match="hashes: given without hash_tokens"):
        Replayer(allocator_of(), 10, step_ns=1, prefill_tokens=1).feed([0], [16], [1], ([0, 1], [5]))
    with pytest.raises(NotDescribed, match="num_speculative_tokens 3"):
        Replayer(allocator_of(speculative_method="ngram", num_speculative_tokens=3), 10, step_ns=1, prefill_tokens=1)
    replayer = Replayer(allocator_of(), 10, step_ns=1, prefill_tokens=1)
    replayer.feed([5], [10], [1])
    with pytest.raises(BadConfig, match="arrival_ns: request 1 comes before"):
        replayer.feed([4], [10], [1])
    replayer.finish()
    with pytest.raises(BadConfig, match="after finish"):
        replayer.feed([9], [10], [1])


@pytest.mark.parametrize(("prompt", "output", "tokens"), [(1000, 5, "1,000"), (100, 1000, "145")])
def test_a_request_that_never_fits_ends_in_a_reason(prompt: int, output: int, tokens: str) -> None:
    # 9 blocks of 16 tokens hold 144; a prompt of 100 tokens is preempted for its 145th, and never comes back.
    replayer = Replayer(allocator_of(), 10, step_ns=1, prefill_tokens=1)
    with pytest.raises(Refused, match=f"request 0, of {tokens} tokens, is never scheduled, for blocks"):
        replayer.feed([0, 10**9], [prompt, 1], [output, 1])


def test_a_request_that_is_put_back_alone_time_and_again_ends_in_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    # Jamba under prefix caching, alone in 52 blocks: admission counts two states of a group, and its chunks hold more of them, so that it is
    # put back some times before enough of it is found cached.
    allocator = of_model(
        "ai21labs/AI21-Jamba-1.5-Mini", max_model_len=4096, max_num_batched_tokens=512, enable_prefix_caching=True
    )
    for patience in (8, 1):
        monkeypatch.setattr(vllm_scheduler, "PATIENCE", patience)
        replayer = Replayer(allocator, 53, step_ns=25, prefill_tokens=500, compiled=False)
        if patience == 8:
            replayer.feed([0], [3000], [20])
            assert replayer.finish().requests["preemptions"].tolist() == [5]
            continue
        replayer.feed([0], [3000], [20])
        with pytest.raises(Refused, match="request 0, of a prompt of 3,000 tokens, does not fit alone"):
            replayer.finish()
