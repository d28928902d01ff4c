"""Traces of requests: what is read, what demand comes to at every step, what waits, and what is written."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memcurve
import memcurve.catalog
from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, load
from memcurve.base import BadFile, TooLarge
from memcurve.cli import run as command
from memcurve.engines.vllm_blocks import VllmAllocator
from memcurve.engines.vllm_replay import Replayer
from memcurve.traces import opening, reading
from memcurve.traces.bins import BUCKETS, EXACT, Counted, bucket, largest
from memcurve.traces.needs import filled_of, needs_of
from memcurve.traces.reading import Chunk, Counts, Trace
from memcurve.traces.search import smallest
from memcurve.traces.service import Service, service
from memcurve.traces.sweep import Sweep
from memcurve.traces.writing import write

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
DENSE = "Qwen/Qwen3-30B-A3B"
Requests = list[tuple[int, int, int]]
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04,3180,8\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def put(folder: Path, text: str | bytes, name: str = "trace.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def rows(path: str, **given: Any) -> tuple[list[tuple[int, int, int]], Counts]:
    trace = Trace(path, **given)
    found = [
        row
        for chunk in trace.chunks()
        for row in zip(chunk.time.tolist(), chunk.prompt.tolist(), chunk.output.tolist(), strict=True)
    ]
    return found, trace.counts


# -- reading --------------------------------------------------------------------------------------------------------------


def test_azure_has_seven_decimals(tmp_path: Path) -> None:
    found, counts = rows(put(tmp_path, AZURE))
    # date -u -d '2023-11-16 18:17:03' +%s
    assert found == [(1_700_158_623 * 10**9 + 979_960_000, 4808, 10), (1_700_158_624 * 10**9, 3180, 8)]
    assert (counts.lines, counts.requests, counts.broken) == (3, 2, 0)


def test_burstgpt_has_seconds_and_requests_that_failed(tmp_path: Path) -> None:
    text = (
        BURST
        + "5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,0,1087,API log\n118.25,ChatGPT,417,276,693,Conversation log\n"
    )
    found, counts = rows(put(tmp_path, text))
    assert found == [(5 * 10**9, 472, 18), (118_250_000_000, 417, 276)]
    assert counts.failed == 1


def test_mooncake_has_milliseconds_and_hashes(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 0, "input_length": 600, "output_length": 6, "hash_ids": [7, 8]},
        {"timestamp": 3000, "input_length": 512, "output_length": 1, "hash_ids": [7]},
    ]
    path = put(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), "t.jsonl")
    trace = Trace(path)
    (chunk,) = trace.chunks()
    assert chunk.time.tolist() == [0, 3 * 10**9]
    assert chunk.hashes is not None
    assert chunk.ends is not None
    assert (chunk.hashes.tolist(), chunk.ends.tolist()) == ([7, 8, 7], [2, 3])
    assert trace.columns.hashes == 512


def test_columns_by_name_and_unit(tmp_path: Path) -> None:
    path = put(tmp_path, "when;in;out\n1500;10;2\n2500.5;11;3\n")
    found, _ = rows(path, columns="time=when,prompt=in,output=out,unit=ms")
    assert found == [(1_500_000_000, 10, 2), (2_500_500_000, 11, 3)]
    assert rows(put(tmp_path, "arrival_us,prompt_tokens,output_tokens\n7,1,1\n", "b.csv"))[0] == [(7000, 1, 1)]
    with pytest.raises(BadConfig, match=r"columns: prompt='inn'; .* \(nearest: in\)"):
        Trace(path, "time=when,prompt=inn,output=out")
    with pytest.raises(BadFile, match="expected one for the time"):
        Trace(path)


@pytest.mark.parametrize(
    ("cells", "time"),
    [
        ("2024-02-29 23:59:59.999999999", 1_709_251_199 * 10**9 + 999_999_999),  # date -u -d '2024-02-29 23:59:59' +%s
        ("2024-05-10 00:00:00.009930+00:00", 1_715_299_200 * 10**9 + 9_930_000),
        ("2024-05-10T02:00:00Z", 1_715_306_400 * 10**9),
        ("2024-05-10 02:00:00+02:00", 1_715_299_200 * 10**9),
        ("1.5", 1_500_000_000),
        ("0.1234567899", 123_456_789),
        ("1e3", 1000 * 10**9),
        ("1e-05", 10_000),
        ('"7"', 7 * 10**9),
        (" 7 ", 7 * 10**9),
        ("-1.5", -1_500_000_000),
    ],
)
def test_times_are_exact(tmp_path: Path, cells: str, time: int) -> None:
    found, counts = rows(put(tmp_path, f"time,prompt,output\n{cells},5,6\n"))
    assert (found, counts.broken) == ([(time, 5, 6)], 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1,-5,6", "prompt: '-5'"), ("1,0,6", "prompt: '0'"), ("1,5,-6", "output: '-6'"), ("1,1e30,6", "prompt: '1e30'"),
        (f"1,{10**30},6", "prompt: '1000"), ("1,5,16777217", "output: '16777217'"), ("1,nan,6", "prompt: 'nan'"),
        ("nan,5,6", "time: 'nan'"), ("inf,5,6", "time: 'inf'"), ("1,5.5,6", "prompt: '5.5'"), ("1,5", "2 columns"),
        ("1,5,6,7", "4 columns"), ("2023-02-30 00:00:00,5,6", "expected a date"), ("1,,6", "prompt: ''"), ("x,5,6", "time: 'x'"),
        ("1e30,5,6", "time"), ("1e999999999,5,6", "time: '1e999999999'"), ("1,1e999999999,6", "prompt: '1e999999999'"),
        ("1,1e-999999999,6", "prompt: '1e-999999999'"), ("1700000000000,5,6", "columns=unit=ms"), ('1,"5,6', "unexpected end"), ("1,5,6\0", "output"), ("\xff,5,6", "time"),
    ],
)  # fmt: skip
def test_broken_lines_are_counted_with_their_numbers(tmp_path: Path, line: str, why: str) -> None:
    path = put(tmp_path, f"time,prompt,output\n0,1,1\n{line}\n2,1,1\n")
    found, counts = rows(path)
    assert [row[0] for row in found] == [0, 2 * 10**9]
    assert (counts.broken, counts.told[0][0]) == (1, 3)
    assert why in counts.told[0][1]
    with pytest.raises(BadFile, match="line 3: "):
        rows(path, strict=True)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"timestamp": 1}', "prompt: no 'input_length'"), ("[1, 2]", "expected an object"), ("{", "no JSON"), ("[" * 100_000, "no JSON"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "NaN"),
        ('{"timestamp": true, "input_length": 1, "output_length": 1}', "time: 'True'"),
        (f'{{"timestamp": 1, "input_length": {10**30}, "output_length": 1}}', "prompt"),
        ('{"timestamp": 1e999999999, "input_length": 1, "output_length": 1}', "time: '1E+999999999'"),
        ('{"timestamp": 1, "input_length": 1e999999999, "output_length": 1}', "prompt: '1E+999999999'"),
        ('{"timestamp": 1e9999999999999999999, "input_length": 1, "output_length": 1}', "no JSON"),
        ('{"timestamp": ' + "9" * 5000 + ', "input_length": 1, "output_length": 1}', "no JSON"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1, 2]}', "hash_ids"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [-1]}', "hash_ids"),
    ],
)  # fmt: skip
def test_broken_lines_of_json(tmp_path: Path, line: str, why: str) -> None:
    good = '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n'
    found, counts = rows(put(tmp_path, good + line + "\n" + good, "t.jsonl"))
    assert (len(found), counts.broken, counts.told[0][0]) == (2, 1, 2)
    assert why in counts.told[0][1]


NUMBERS = st.one_of(
    st.integers(-2, 2**25).map(str), st.sampled_from(["0", "1", "3", "600", "-0", "1.0", "1e2", "07", '"4"', "null", "true", "NaN", "-Infinity",
    "9223372036854775808", "99999999999999999999", "{}", "[1]", "nan", "1,", ""]),
)  # fmt: skip
IDS = st.lists(st.sampled_from(["0", "1", "5", "-1", "1.5", "null", "9223372036854775807"]), max_size=3).map(
    lambda ids: f"[{', '.join(ids)}]"
)
FIELDS = st.one_of(
    st.tuples(st.just("timestamp"), NUMBERS),
    st.tuples(st.just("input_length"), NUMBERS),
    st.tuples(st.just("output_length"), NUMBERS),
    st.tuples(st.just("hash_ids"), st.one_of(IDS, NUMBERS)),
    st.tuples(st.sampled_from(["x", "timestamp ", "\u00e9"]), st.sampled_from(['"a\\u0000"', "{}", '{"timestamp": 3}', "NaN", "[1, {}]", '"}{"'])),
)  # fmt: skip
GOOD = [("timestamp", "5"), ("input_length", "600"), ("output_length", "2"), ("hash_ids", "[3, 4]")]


def as_line(fields: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields) + "}"


@settings(max_examples=400, deadline=None)
@given(
    lines=st.lists(st.one_of(st.just(as_line(GOOD)), st.lists(FIELDS, max_size=2).map(lambda more: as_line([*GOOD, *more])),
    st.lists(FIELDS, max_size=5).map(as_line), st.sampled_from(["", " ", as_line(GOOD) * 2, as_line(GOOD) + "x", " " + as_line(GOOD)])),
    min_size=1, max_size=6),
)  # fmt: skip
def test_json_is_read_alike_both_ways(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """By Arrow, where it is plain, and line by line."""
    path = put(tmp_path_factory.mktemp("t"), "\n".join([as_line(GOOD), *lines]) + "\n", "t.jsonl")
    found = []
    for quick in (Trace._plain_json, lambda *_: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trace, "_plain_json", quick)
            trace = Trace(path)
            columns = []
            for chunk in trace.chunks():
                assert chunk.hashes is not None
                assert chunk.ends is not None
                every = (chunk.time, chunk.prompt, chunk.output, chunk.hashes, chunk.ends)
                columns.append([one.tolist() for one in every])
            found.append((columns, trace.counts.to_dict()))
    assert found[0] == found[1]


def test_plain_json_is_read_by_arrow(tmp_path: Path) -> None:
    text = "".join(as_line([*GOOD[:3], ("hash_ids", f"[{number}]"), ("x", '"y"')]) + "\n" for number in range(50))
    path = put(tmp_path, text, "t.jsonl")
    with Trace(path) as trace:
        chunk = trace._plain_json(text.encode())
        assert chunk is not None
        assert (len(chunk), chunk.hashes is not None and chunk.hashes.tolist()) == (50, list(range(50)))
        assert trace._plain_json(text.encode() + b" \n") is None
    # One column for two roles, which Arrow crashes on
    with Trace(path, columns="time=timestamp,prompt=input_length,output=input_length") as both:
        assert both._plain_json(text.encode()) is None


CELLS = st.one_of(
    st.integers(-2, 2**25).map(str), st.decimals(0, 10**6, places=3).map(str), st.sampled_from(["", "1.0", " 3", "x", '"4"', "1e2", "07"]),
    st.datetimes().map(str), st.text("0123456789-:. T", max_size=24),
)  # fmt: skip


@given(
    lines=st.lists(st.lists(CELLS, min_size=1, max_size=5), min_size=1, max_size=12),
    ending=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_the_compiled_reader_reads_what_the_careful_one_does(
    lines: list[list[str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = put(
        tmp_path_factory.mktemp("t"), "time,other,prompt,output\n" + "".join(",".join(line) + ending for line in lines)
    )
    with Trace(path) as trace:
        expected = []
        for line in lines:
            text = ",".join(line)
            try:
                values = trace._careful(text.encode()) if text else None
            except ValueError:
                values = None
            if values is not None and values[2]:
                expected.append(values[:3])
    try:
        found, _ = rows(path)
    except BadFile:
        found = []
    assert found == sorted(expected, key=lambda row: row[0])


def test_compressed_files(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    text = AZURE.encode() + b"".join(
        b"2023-11-16 18:17:%02d.5,%d,3\n" % (5 + index % 50, index + 1) for index in range(50)
    )
    plain = rows(put(tmp_path, text))[0]
    assert rows(put(tmp_path, gzip.compress(text), "a.gz"))[0] == plain
    assert rows(put(tmp_path, gzip.compress(text[:200]) + gzip.compress(text[200:]), "b.gz"))[0] == plain
    packed = zstandard.ZstdCompressor().compress
    assert rows(put(tmp_path, packed(text), "c.zst"))[0] == plain
    assert rows(put(tmp_path, packed(text[:200]) + packed(text[200:]), "d.zst"))[0] == plain


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_file_that_is_cut_keeps_its_whole_lines(tmp_path: Path, kind: str) -> None:
    zstandard = pytest.importorskip("zstandard")
    rng = np.random.default_rng(0)
    text = "time,prompt,output\n" + "".join(
        f"{index},{one},5\n" for index, one in enumerate(rng.integers(1, 10**6, 200_000))
    )
    packed = gzip.compress(text.encode()) if kind == "gz" else zstandard.ZstdCompressor().compress(text.encode())
    path = put(tmp_path, packed[: len(packed) * 3 // 4], f"t.csv.{kind}")
    found, counts = rows(path)
    assert 100_000 < len(found) < 200_000
    assert found[-1][0] == (len(found) - 1) * 10**9
    assert "end in the middle" in counts.ended
    with pytest.raises(BadFile):
        rows(path, strict=True)
    damaged = put(tmp_path, packed[:300_000] + b"\0" * 64 + packed[300_000:], f"u.csv.{kind}")
    assert "damaged" in rows(damaged)[1].ended


@pytest.mark.parametrize(
    "text", ["", "\n\n", "time,prompt,output\n", "\0\0\0", "time,prompt,output\nx,y,z\n", "{}\n", "[]"]
)
def test_files_without_a_request(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFile):
        rows(put(tmp_path, text))
    with pytest.raises(BadFile, match="no regular file"):
        Trace(str(tmp_path))


def test_a_long_line_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_LINE", 5000)
    monkeypatch.setattr(reading, "BLOCK", 1000)
    monkeypatch.setattr(opening, "FIRST", 1000)
    monkeypatch.setattr(reading, "MOST_SKIPPED", 100_000)
    path = put(tmp_path, "time,prompt,output\n0,1,1\n" + "9" * 50_000 + "\n5,1,1\n6,2,2")
    found, counts = rows(path)
    assert [row[0] // 10**9 for row in found] == [0, 5, 6]
    assert (counts.broken, counts.lines) == (1, 5)
    assert counts.told == [(3, "longer than 5,000 bytes")]
    with pytest.raises(BadFile, match="line 3: longer than 100,000 bytes"):
        rows(put(tmp_path, "time,prompt,output\n0,1,1\n" + "9" * 200_000))


def test_many_broken_lines_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BROKEN", 100)
    with pytest.raises(BadFile, match="more than 100 lines are no requests, line 2"):
        rows(put(tmp_path, "time,prompt,output\n" + "x,1,1\n" * 200))
    with pytest.raises(BadFile, match="more than 100 lines are empty"):
        rows(put(tmp_path, "time,prompt,output\n" + "\n" * 200))


def test_time_that_goes_back_is_put_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "time,prompt,output\n5,1,1\n3,2,1\n4,3,1\n9,4,1\n")
    found, counts = rows(path)
    assert [row[1] for row in found] == [2, 3, 1, 4]
    assert (counts.backwards, counts.first_backwards, counts.late) == (2, 3, 0)
    with pytest.raises(BadFile, match="line 3: earlier"):
        rows(path, strict=True)
    # Beyond the window it arrives with the last one given out.
    monkeypatch.setattr(reading, "WINDOW", 2)
    monkeypatch.setattr(reading, "BLOCK", 20)
    monkeypatch.setattr(opening, "FIRST", 20)
    lines = [*range(10, 40), 1, *range(40, 60)]
    found, counts = rows(put(tmp_path, "time,prompt,output\n" + "".join(f"{one},{one},1\n" for one in lines)))
    times = [row[0] for row in found]
    assert times == sorted(times)
    assert sorted(row[1] for row in found) == sorted(lines)
    assert (counts.backwards, counts.late) == (1, 1)


# -- demand ---------------------------------------------------------------------------------------------------------------

SUBJECTS = [
    ("Qwen/Qwen3-Next-80B-A3B-Thinking", "vllm"), ("openai/gpt-oss-120b", "vllm"), ("openai/gpt-oss-120b", "logical"),
    ("google/gemma-3-27b-it", "sglang"), ("google/gemma-3-27b-it", "transformers"), ("deepseek-ai/DeepSeek-V3.2", "vllm"),
    ("moonshotai/Kimi-Linear-48B-A3B-Instruct", "logical"),
]  # fmt: skip
CURVES = [load(name).curve(engine, "bf16") for name, engine in SUBJECTS]


def oracle(curve: MemoryCurve, requests: Requests, rates: Service) -> list[tuple[int, int]]:
    """(bytes, requests) of every step: each step asks each request."""
    begin = min(time for time, _, _ in requests)
    spans = []
    for time, prompt, output in requests:
        start = -(-(time - begin) // rates.step_ns)
        prefill = -(-prompt // rates.prefill_tokens)
        spans.append((start, prefill, prompt, output))
    found = []
    for step in range(max(start + prefill + output - 1 for start, prefill, _, output in spans)):
        held = [
            curve.bytes(prompt + max(step - start - prefill + 1, 0))
            for start, prefill, prompt, output in spans
            if start <= step < start + prefill + output - 1
        ]
        found.append((sum(held), len(held)))
    return found


def swept(
    curve: MemoryCurve, requests: Requests, rates: Service, *, bins: int, capacity: int | None = None, each: int = 3
) -> Any:
    sweep = Sweep(needs_of(curve), rates, capacity, bins)
    for first in range(0, len(requests), each):
        time, prompt, output = (np.array(column) for column in zip(*requests[first : first + each], strict=True))
        sweep.feed(Chunk(time=time, prompt=prompt, output=output))
    return sweep.finish()


REQUESTS = st.lists(
    st.tuples(st.integers(0, 3 * 10**9), st.integers(1, 3000), st.one_of(st.just(1), st.integers(1, 40), st.integers(1, 900))),
    min_size=1, max_size=8,
).map(sorted)  # fmt: skip


@given(
    requests=REQUESTS,
    index=st.integers(0, len(CURVES) - 1),
    rate=st.sampled_from([50.0, 1000.0, 100_000.0]),
    gap=st.sampled_from([1, 40]),
)
@settings(max_examples=120, deadline=None)
def test_demand_is_the_oracles_at_every_step(requests: Requests, index: int, rate: float, gap: int) -> None:
    curve, rates = CURVES[index], service(rate, 40.0)
    requests = [(time * gap, prompt, output) for time, prompt, output in requests]
    expected = oracle(curve, requests, rates)
    total = [held for held, _ in expected]
    capacity = sorted(total)[len(total) // 2]
    found = swept(curve, requests, rates, bins=2**13, capacity=capacity)
    assert found.width == 1
    assert list(zip(found.bins[:, 1].tolist(), found.bins[:, 2].tolist(), strict=True)) == expected
    assert (found.steps, found.peak, found.peak_step) == (len(total), max(total), total.index(max(total)))
    assert found.busy == sum(count > 0 for _, count in expected)
    assert found.over == sum(held > capacity for held in total)
    excess = [0, *(max(held - capacity, 0) for held in total)]
    assert found.moved == sum(max(after - before, 0) for before, after in pairwise(excess))
    assert found.mean == pytest.approx(sum(total) / len(total))
    # In few bins: the least and the most of each, and sums.
    few = swept(curve, requests, rates, bins=16, each=100)
    parts = [expected[first : first + few.width] for first in range(0, len(expected), few.width)]
    assert [row[0] for row in few.bins.tolist()] == [min(held for held, _ in part) for part in parts]
    assert [row[1] for row in few.bins.tolist()] == [max(held for held, _ in part) for part in parts]
    assert few.sums[:, 0].tolist() == [sum(held for held, _ in part) for part in parts]
    assert int(few.bins[:, 3].sum()) == len(requests)
    for share, value in zip((50.0, 99.0, 100.0), few.counted.percentiles(50.0, 99.0, 100.0), strict=True):
        exact = sorted(total)[max(1, -(-len(total) * int(share) // 100)) - 1]
        assert exact <= value <= exact * (1 + 2**-12) + few.counted.unit * (exact // few.counted.unit >= EXACT)


@pytest.mark.parametrize("index", range(len(CURVES)))
def test_needs_are_the_curve(index: int) -> None:
    curve = CURVES[index]
    contexts = np.arange(1, 40_000)
    need = needs_of(curve)
    assert (need.at(contexts) == curve.bytes(contexts)).all()
    steps = np.zeros(len(contexts) - 1, np.int64)
    for first, end, kind, rest, rise in need.rises.tolist():
        steps += rise * (
            (contexts[:-1] >= first) & (contexts[:-1] < end) & (contexts[:-1] % need.periods[kind] == rest)
        )
    assert (np.diff(curve.bytes(contexts)) == steps).all()


def test_what_has_no_bytes_of_its_own_is_not_described() -> None:
    with pytest.raises(NotDescribed, match="llamacpp allocates its whole context at the start"):
        needs_of(load(DENSE).curve("llamacpp"))


def test_filled_is_never_more_than_held() -> None:
    for curve in CURVES:
        filled = filled_of(curve)
        if filled is not None:
            contexts = np.arange(1, 20_000)
            assert (filled.at(contexts) <= needs_of(curve).at(contexts)).all()


def test_a_gap_of_a_century_takes_no_time() -> None:
    found = swept(CURVES[0], [(0, 100, 5), (100 * 365 * 86400 * 10**9, 100, 5)], service(None, None), bins=64)
    assert found.peak == CURVES[0].bytes(104)
    assert found.steps == -(-100 * 365 * 86400 * 10**9 // 25_000_000) + 5
    assert found.busy == 10


def test_a_request_of_too_many_steps_is_refused() -> None:
    with pytest.raises(TooLarge, match="are the rates as meant"):
        swept(CURVES[0], [(0, 2**24, 5)], service(0.5, 1000.0), bins=64)


@given(value=st.integers(0, 2**62))
def test_counts_are_of_values_near(value: int) -> None:
    index = bucket(value)
    assert 0 <= index < BUCKETS
    assert value <= largest(index) <= value + value * 2**-13
    assert bucket(largest(index)) == index
    if value < EXACT:
        assert largest(index) == value


def test_percentiles_of_few_values_are_exact() -> None:
    counted = Counted()
    counted.add(np.array([5, 1, 3, 2, 4]))
    assert counted.percentiles(0, 20, 50, 80.1, 100) == [1, 1, 3, 5, 5]
    assert Counted().percentiles(50) == [0]


# -- time -----------------------------------------------------------------------------------------------------------------


def test_rates_are_fitted_to_how_long_requests_took(tmp_path: Path) -> None:
    # 10,000 tokens/s of prefill and 50 of decode: 0.1 ms for each token of the prompt, 20 ms for each after the first.
    lines = [
        f"{index},{p},{o},{(p * 1 + (o - 1) * 200) / 10_000}\n"
        for index, (p, o) in enumerate([(100, 1), (2000, 50), (500, 400), (9000, 7)])
    ]
    path = put(tmp_path, "Timestamp,Request tokens,Response tokens,Elapsed time\n" + "".join(lines) + "9,5,5,\n")
    found = memcurve.replay(path, DENSE, fit_rates=True)
    assert (found.service.step_ns, found.service.prefill_tokens) == (20_000_000, 200)
    assert "fitted to 4 requests" in found.assumption
    with pytest.raises(BadConfig, match="does not say how long"):
        memcurve.replay(put(tmp_path, AZURE, "a.csv"), DENSE, fit_rates=True)
    same = put(tmp_path, "time,prompt,output,elapsed\n0,10,10,1\n1,20,19,2\n", "s.csv")
    with pytest.raises(Refused, match="can't be told apart"):
        memcurve.replay(same, DENSE, fit_rates=True)


# -- with a queue -----------------------------------------------------------------------------------------------------------


def burst(folder: Path, count: int = 60) -> str:
    rng = np.random.default_rng(3)
    lines = [
        f"{index * 0.02:.2f},{p},{o}\n"
        for index, (p, o) in enumerate(zip(rng.integers(50, 3000, count), rng.integers(1, 300, count), strict=True))
    ]
    return put(folder, "time,prompt,output\n" + "".join(lines))


def test_every_request_is_somewhere_at_every_step(tmp_path: Path) -> None:
    found, _ = rows(burst(tmp_path))
    curve = load(DENSE).curve("vllm", max_model_len=8192)
    assert isinstance(curve.allocator, VllmAllocator)
    replayer = Replayer(curve.allocator, 600, step_ns=25_000_000, prefill_tokens=500, interval_ns=0)
    time, prompt, output = (np.array(column) for column in zip(*found, strict=True))
    parts = [replayer.feed(time, prompt, output), replayer.finish()]
    series = {name: np.concatenate([part.series[name] for part in parts]) for name in parts[0].series}
    arrived = np.searchsorted(time, series["time_ns"], side="right")
    somewhere = series["running"] + series["waiting"] + series["preempted"] + series["finished"]
    # A request that arrives within a step is seen by the next.
    assert (somewhere <= arrived).all()
    before = np.searchsorted(time, np.concatenate(([0], series["time_ns"][:-1])), side="right")
    assert (somewhere >= before).all()
    assert series["finished"][-1] == len(found)
    assert int(series["blocks"].max()) <= 599
    assert int(series["preemptions"][-1]) > 0


def test_a_queue_under_a_small_memory(tmp_path: Path) -> None:
    path = burst(tmp_path)
    block = 48 * 2 * 4 * 128 * 2 * 16  # layers · (key, value) · heads · head_dim · bytes · tokens of a block
    small = memcurve.replay(path, DENSE, memory=600 * block, max_model_len=8192).runs[0]
    large = memcurve.replay(path, DENSE, memory=60_000 * block, max_model_len=8192).runs[0]
    assert (small.capacity_bytes, large.capacity_bytes) == (599 * block, 59_999 * block)
    assert small.queue is not None
    assert large.queue is not None
    assert (small.queue.finished, large.queue.finished) == (60, 60)
    assert small.peak_bytes <= 599 * block < large.peak_bytes
    assert small.queue.waited["p99"] > large.queue.waited["p99"]
    assert small.queue.preemptions > 0
    assert small.queue.kept_out["blocks"] > 0
    assert large.queue.preemptions == large.queue.dropped_tokens == large.queue.offload_bytes == 0
    # What is computed twice or found again is what was dropped, at 48 · 2 · 4 · 128 · 2 bytes a token.
    assert small.queue.dropped_tokens > 0
    assert small.queue.offload_bytes == small.queue.dropped_tokens * block // 16
    needed = sum(prompt + output - 1 for _, prompt, output in rows(path)[0])
    assert small.queue.computed_tokens + small.queue.hit_tokens - small.queue.dropped_tokens == needed
    assert int(small.series.columns["arrived"].sum()) == 60
    assert int(small.series.columns["finished"][-1]) == 60


@pytest.mark.parametrize("name", ["Qwen/Qwen3-Next-80B-A3B-Thinking", "openai/gpt-oss-120b"])
def test_hybrids_wait_too(tmp_path: Path, name: str) -> None:
    path = burst(tmp_path)
    given: dict[str, Any] = {"dtype": "bf16", "max_model_len": 8192}
    large = memcurve.replay(path, name, memory=60 * GIB, **given).runs[0]
    small = memcurve.replay(path, name, memory=large.peak_bytes // 3, **given).runs[0]
    assert small.queue is not None
    assert large.queue is not None
    assert large.queue.waited["p99"] < small.queue.waited["p99"]
    assert small.peak_bytes <= large.peak_bytes // 3
    assert large.queue.dropped_tokens == 0
    assert small.queue.dropped_tokens >= 0
    assert large.filled is not None
    assert 0 < large.filled < 1
    assert small.queue.finished == 60


def test_prompts_share_what_their_hashes_say(tmp_path: Path) -> None:
    line = {"input_length": 2048, "output_length": 4, "hash_ids": [1, 2, 3, 4]}
    text = "".join(json.dumps({"timestamp": 5000 * index, **line}) + "\n" for index in range(4))
    path = put(tmp_path, text, "t.jsonl")
    shared = memcurve.replay(path, DENSE, memory=GIB, max_model_len=8192).runs[0].queue
    alone = memcurve.replay(path, DENSE, memory=GIB, max_model_len=8192, prefix_sharing=False).runs[0].queue
    assert shared is not None
    assert alone is not None
    # Of each after the first all but the last block: the last token is computed for its logits.
    assert (shared.hit_tokens, alone.hit_tokens) == (3 * (2048 - 16), 0)
    assert shared.reusable_tokens == 3 * 2047
    assert alone.reusable_tokens is None


def test_the_least_memory_that_keeps_waits_short(tmp_path: Path) -> None:
    path = burst(tmp_path)
    given: dict[str, Any] = {"prefill_rate": 200_000.0, "max_model_len": 4096}
    limit = 2 * 10**9
    found = smallest(path, DENSE, max_queue_ns=limit, **given)

    def waits(memory: int) -> int:
        queue = memcurve.replay(path, DENSE, memory=memory, **given).runs[0].queue
        assert queue is not None
        return queue.waited["p99"]

    assert waits(found.memory_bytes) == found.waited_ns <= limit
    tried = {one.memory_bytes: one.waited_ns for one in found.tried}
    assert waits(int(found.memory_bytes * 0.97)) > limit or not found.monotone
    assert len(tried) >= 8
    with pytest.raises(Refused, match="no memory keeps it"):
        smallest(path, DENSE, max_queue_ns=0, **given)


def test_the_fewest_gpus(tmp_path: Path) -> None:
    path = burst(tmp_path)
    found = smallest(
        path, "meta-llama/Meta-Llama-3.1-70B", max_queue_ns=10**9, gpu="H100", prefill_rate=1e6, dtype="bf16"
    )
    # 141 GB of weights: not on one GPU of 80 GB, and on two with little room.
    assert found.gpus > 1
    assert found.tried[0].waited_ns is None
    assert found.to_dict()["replay"]["runs"][0]["gpus"] == found.gpus


def test_what_is_not_scheduled_says_what_would_work(tmp_path: Path) -> None:
    path = burst(tmp_path)
    with pytest.raises(NotDescribed, match="sglang schedules requests over time is not described; without a queue"):
        memcurve.replay(path, DENSE, engine="sglang", memory=GIB)
    run = memcurve.replay(path, DENSE, engine="sglang", memory=GIB, capped=False).runs[0]
    assert run.over is not None
    assert run.over > 0
    with pytest.raises(BadConfig, match="no memory is given"):
        memcurve.replay(path, DENSE, capped=True)
    with pytest.raises(BadConfig, match="beside gpu"):
        memcurve.replay(path, DENSE, gpu="H100", memory=GIB)
    with pytest.raises(BadConfig, match="gpus: 2; expected gpu"):
        memcurve.replay(path, DENSE, gpus=2)
    with pytest.raises(BadConfig, match=r"weights: 'x'; expected gpu"):
        memcurve.replay(path, DENSE, weights="x")
    with pytest.raises(BadConfig, match="of one model, and 2 are given"):
        memcurve.replay(path, [DENSE, DENSE], gpu="H100", weights="x")


def test_the_weights_of_a_checkpoint_take_room(tmp_path: Path) -> None:
    path, folder = burst(tmp_path), tmp_path / "model"
    folder.mkdir()
    config = memcurve.catalog.find("Qwen/Qwen3-8B")
    (folder / "config.json").write_text(json.dumps(config))
    # One tensor of 2 · 30 · 2³⁰ bytes, of which only the header is there to read.
    size = 60 * GIB
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    large = memcurve.replay(path, "Qwen/Qwen3-8B", gpu="H100").runs[0].capacity_bytes
    small = memcurve.replay(path, str(folder), gpu="H100").runs[0].capacity_bytes
    given = memcurve.replay(path, "Qwen/Qwen3-8B", gpu="H100", weights=str(folder)).runs[0].capacity_bytes
    assert small == given
    assert small is not None
    assert large is not None
    assert 40 * GIB < large - small < 50 * GIB  # 60 GiB instead of 8.2 billion parameters of two bytes, 15.3 GiB


def test_requests_too_long_are_turned_down(tmp_path: Path) -> None:
    path = put(tmp_path, "time,prompt,output\n0,4096,1\n1,100,5000\n2,4095,1\n3,9999,1\n")
    for capped in (False, True):
        run = memcurve.replay(path, DENSE, memory=4 * GIB, capped=capped, max_model_len=4096).runs[0]
        assert (run.turned_down, run.cut) == (2, 1)


# -- what is written --------------------------------------------------------------------------------------------------------


def test_series_as_parquet_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = burst(tmp_path)
    out = [str(tmp_path / name) for name in ("s.parquet", "s.csv", "f.png", "f.svg")]
    words = ["replay", path, "--model", DENSE, "--model", "openai/gpt-oss-120b@label=oss", "--dtype", "bf16"]
    assert command([*words, *(word for one in out for word in ("-o", one))]) == 0
    table = parquet.read_table(out[0]).to_pydict()
    lines = Path(out[1]).read_text().splitlines()
    assert set(table["model"]) == {DENSE, "oss"}
    assert len(lines) == len(table["model"]) + 1
    peak = memcurve.replay(path, DENSE, dtype="bf16").runs[0].peak_bytes
    assert max(value for value, name in zip(table["bytes_max"], table["model"], strict=True) if name == DENSE) == peak
    assert Path(out[2]).read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "assumed: 20,000 tokens/s of prefill and 40.0 of decode (prefill and decode assumed)" in shown
    with pytest.raises(BadConfig, match=r"ends in one of \.png"):
        command([*words, "-o", "x.gif"])


def test_a_disk_that_fills_keeps_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, figure = burst(tmp_path), tmp_path / "s.csv", tmp_path / "f.png"
    write, room = os.write, 8192

    def little(file: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(file, data[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", little)
    with pytest.raises(BadConfig, match=r"s\.csv: No space left on device; [\d,]+ whole rows of the series were kept"):
        command(["replay", path, "--model", DENSE, "-o", str(out), "-o", str(figure)])
    kept = out.read_bytes()
    assert 0 < len(kept) <= 8192
    assert kept.endswith(b"\n")
    assert "peak" in capsys.readouterr().out
    assert figure.read_bytes().startswith(b"\x89PNG")  # what comes after it is written all the same


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel takes no more bytes of any file, as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "least"), [(10_000, 200), (8_000, 40), (2_000, 0)])
def test_a_disk_that_fills_keeps_a_parquet_file_of_fewer_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, least: int
) -> None:
    """13 columns take more than 2,000 bytes to say what they are."""
    pq = pytest.importorskip("pyarrow.parquet")
    found = memcurve.replay(burst(tmp_path), DENSE)
    out, whole = tmp_path / "s.parquet", tmp_path / "w.parquet"
    count = write(found, str(whole))
    out.write_bytes(b"what was there before" * 1000)
    with files_of_at_most(size), pytest.raises(BadConfig, match=r"s\.parquet: File too large; ") as error:
        write(found, str(out))
    kept = int(str(error.value).split("; ")[1].split()[0].replace(",", ""))
    assert least <= kept < count
    assert out.exists() == (least > 0)
    if kept:
        assert pq.read_table(out).to_pydict() == pq.read_table(whole).slice(0, kept).to_pydict()


def test_a_figure_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out, path = tmp_path / "f.svg", burst(tmp_path)
    with files_of_at_most(4_096), pytest.raises(BadConfig, match=r"f\.svg: File too large; expected a place"):
        command(["replay", path, "--model", DENSE, "-o", str(out)])
    assert not out.exists()
    out.mkdir()
    with pytest.raises(BadConfig, match=r"f\.svg: Is a directory; expected a place"):
        command(["replay", path, "--model", DENSE, "-o", str(out)])


def test_json_and_search_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = burst(tmp_path)
    assert command(["replay", path, "--model", DENSE, "--memory", "4GiB", "-O", "max_model_len=8192", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["counts"]["requests"] == 60
    assert data["runs"][0]["queue"]["finished"] == 60
    assert "prompts of a batch" in data["service"]["assumption"]
    words = [
        "replay",
        path,
        "--model",
        DENSE,
        "--max-queue",
        "2s",
        "--prefill-rate",
        "200000",
        "-O",
        "max_model_len=4096",
    ]
    assert command(words) == 0
    assert "least memory: " in capsys.readouterr().out
    for extra, why in (("--gpus=2", "beside max_queue"), ("--max-queue=soon", "expected a time")):
        with pytest.raises(BadConfig, match=why):
            command([*words, extra])


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(AZURE.encode()))))
    assert memcurve.replay("-", DENSE).counts["requests"] == 2


def test_notes_say_what_was_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, BURST + "5,a,10,2,12,x\n4,a,10,2,12,x\n6,a,-1,2,1,x\n7,a,9,0,9,x\n")
    found = memcurve.replay(path, DENSE)
    assert [note.split(",")[0].split("(")[0] for note in found.notes] == [
        "left out 1 line without a request ", "left out 1 request without an output", "time goes back in 1 line",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("models", "given"),
    [
        ([DENSE], {"memory": 9 * GIB}),
        ([DENSE], {"memory": GIB, "capped": False, "decode_rate": 12.5}),
        ([DENSE, "openai/gpt-oss-20b"], {"memory": 3 * GIB, "prefill_rate": 200_000}),
        ([DENSE, "openai/gpt-oss-20b", "Qwen/Qwen3-Next-80B-A3B-Thinking"], {}),
    ],
)
def test_all_words_of_a_figure_are_inside_it_and_apart(
    tmp_path: Path, models: list[str], given: dict[str, Any]
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from memcurve.traces.drawing import draw

    requests = "".join(f"{100 + index % 7},1500,900,2400,x\n" for index in range(1500))
    lines = "Timestamp,Request tokens,Response tokens,Total tokens,Log Type\n" + requests
    path = put(tmp_path, lines, "a-trace-with-quite-a-long-name.csv")
    figure = draw(memcurve.replay(path, models, max_model_len=8192, **given))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    texts = [one for axes in figure.axes for one in axes.texts] + figure.texts
    texts += [axes.yaxis.label for axes in figure.axes]
    boxes = [one.get_window_extent() for one in texts if one.get_text()]
    width, height = canvas.get_width_height()
    for box in boxes:
        assert 0 <= box.x0 <= box.x1 <= width
        assert 0 <= box.y0 <= box.y1 <= height
    for index, box in enumerate(boxes):
        # Letters need not fill their boxes.
        assert not any(box.overlaps(other.padded(-1.5)) for other in boxes[:index])
    said = [one.get_text() for one in texts]
    capacities = [one for one in said if one.startswith("capacity ")]
    assert len(capacities) == ("memory" in given)


@pytest.mark.parametrize(
    "line",
    [
        '{"timestamp":1,"input_length":6,"output_length":3,"x":NaN}',
        '{"timestamp":1,"input_length":6,"output_length":3,"x":-Infinity}',
        '{"timestamp":-9223372036854775808,"input_length":6,"output_length":3}',
        '{"x":\n{"timestamp":1,"input_length":6,"output_length":3}} {"timestamp":2,"input_length":6,"output_length":3}',
    ],
)
def test_json_that_is_none_is_broken_whoever_reads_it(tmp_path: Path, line: str) -> None:
    good = '{"timestamp":0,"input_length":5,"output_length":2}\n'
    with Trace(put(tmp_path, (good + line + "\n").encode(), "a.jsonl")) as trace:
        assert sum(len(chunk) for chunk in trace.chunks()) == 1
    assert trace.counts.broken == line.count("\n") + 1


def test_one_column_may_have_two_roles(tmp_path: Path) -> None:
    path = put(tmp_path, b'{"timestamp":0,"n":5}\n{"timestamp":1,"n":7}\n', "a.jsonl")
    with Trace(path, "prompt=n,output=n") as trace:
        assert [(one.prompt.tolist(), one.output.tolist()) for one in trace.chunks()] == [([5, 7], [5, 7])]
