"""Sweeps: rows equal the curves, refused points say why, and whatever stops a sweep, the same command ends with the same files."""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")

import pyarrow.parquet as pq  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import memcurve  # noqa: E402
from memcurve import BadConfig, MemcurveError, MemoryCurve, Refused, catalog, load, pattern  # noqa: E402
from memcurve.arrays import TOO_MANY, admit, evaluate, largest  # noqa: E402
from memcurve.cli.sweep import SPEC  # noqa: E402
from memcurve.schema import encoder_of  # noqa: E402
from memcurve.sweeps.files import FILE_ROWS, Place, begin, locked, replacing, write_chunk  # noqa: E402
from memcurve.sweeps.rows import Rows, rectangles  # noqa: E402
from memcurve.sweeps.spec import resolve  # noqa: E402
from memcurve.terms import INT64_MAX, Limits, Refusal, Term, compile_expr  # noqa: E402

QWEN = "Qwen/Qwen3-Next-80B-A3B-Thinking"
# Small chunks, so that little work has many of them. FILE is 0 for a folder of files.
RUN = """
import json, sys
import memcurve.sweeps.files as files, memcurve.sweeps.spec as specs
specs.CHUNK_ROWS, specs.CHUNK_CURVES, files.FILE_ROWS = 2048, 64, int(sys.argv[2])
from memcurve.cli import main
sys.argv = ["memcurve", "sweep", *json.loads(sys.argv[1])]
sys.exit(main())
"""
# 3 × 2 × 40 curves over 60 contexts and 3 batches: 43,200 rows in 22 chunks, more than Dask is given at once.
MANY = """
subjects = ["{n}gdn:1mha", "{n}swa:1mha"]
engines = ["logical", "vllm", "llamacpp"]
contexts = {from = 0, to = 59000, step = 1000}
batches = [1, 7, 300]
pareto = {column = "n", best = "most", batch = 7}
[sizes]
n = [1, 2, 3, 4, 5]
n_layers = [8, 12, 16, 20, 24, 28, 32, 48]
"""


def rows_of(spec: dict[str, Any], chunk: int = 2**21) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All rows of a spec and the notes of its chunks, made in this process."""
    resolved = resolve(spec)
    resolved.chunk_rows = chunk
    made = [Rows(resolved).chunk(number) for number in range(resolved.chunks)]
    return [row for table, _ in made for row in table.to_pylist()], [note for _, note in made]


def expected(row: dict[str, Any], curve: MemoryCurve | str, encoder: int = 0) -> tuple[int | None, str | None]:
    if isinstance(curve, str):
        return None, curve
    try:
        size = curve.bytes(row["context"], row["batch"], encoder)
    except MemcurveError as error:
        return None, str(error)
    return (size, None) if size <= INT64_MAX else (None, TOO_MANY)


contexts_of = st.one_of(
    st.lists(st.integers(0, 200_000), min_size=1, max_size=6),
    st.lists(st.sampled_from([0, 1, 2**40, 2**62, INT64_MAX]), min_size=1, max_size=3),
    st.integers(0, 3000).flatmap(
        lambda low: st.builds(
            lambda more, step: {"from": low, "to": low + more, "step": step},
            st.integers(0, 5000),
            st.integers(300, 900),
        )
    ),
)
grids_of = st.fixed_dictionaries(
    {
        "subjects": st.lists(
            st.sampled_from(["{n}gdn:1mha", "{n}swa:1gqa", "{n}mamba2:1mla"]), min_size=1, max_size=2, unique=True
        ),
        "engines": st.lists(st.sampled_from(memcurve.engines.NAMES), min_size=1, max_size=2, unique=True),
        "contexts": contexts_of,
        "batches": st.lists(st.integers(0, 400) | st.sampled_from([2**31, 2**62]), min_size=1, max_size=4),
        "sizes": st.fixed_dictionaries(
            {
                "n": st.lists(st.integers(0, 4), min_size=1, max_size=2),
                "n_layers": st.lists(st.integers(0, 9), min_size=1, max_size=2),
            }
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(grids_of, min_size=1, max_size=3), st.sampled_from([4, 12, 64, 2**20]), st.none() | st.integers(1, 60))
def test_rows_equal_the_curves(grids: list[dict[str, Any]], chunk: int, sample: int | None) -> None:
    spec = {"grids": grids} | ({} if sample is None else {"sample": sample, "seed": 5})
    rows, notes = rows_of(spec, chunk)
    resolved = resolve(spec)
    assert len(rows) == sum(note["rows"] for note in notes) == resolved.points
    curves: dict[tuple[Any, ...], MemoryCurve | str] = {}
    for row in rows:
        key = (row["subject"], row["n"], row["n_layers"], row["engine"])
        if key not in curves:
            # 0gdn:1mha has no gdn.
            text = row["subject"].replace("{n}", str(row["n"])) if row["n"] else row["subject"].partition(":")[2]
            try:
                curves[key] = pattern(text, n_layers=row["n_layers"], dtype="bf16").curve(row["engine"])
            except MemcurveError as error:
                curves[key] = str(error)
        assert (row["bytes"], row["reason"]) == expected(row, curves[key])
    assert sum(note["invalid"] for note in notes) == sum(row["bytes"] is None for row in rows)
    if sample is None:
        # In the order of nested loops, whatever the chunks.
        assert rows == rows_of(spec)[0]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(catalog.names()), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 300_000) | st.sampled_from([0, 1, 2, 256, 257, 2**40]), min_size=1, max_size=8),
    st.lists(st.integers(0, 5) | st.integers(250, 260), min_size=1, max_size=4),
    st.sampled_from([None, 0, 7, 1500]),
)
def test_every_engine_gives_the_catalogue_its_own_bytes(
    subjects: list[str], contexts: list[int], batches: list[int], encoder: int | None
) -> None:
    spec = {"subjects": subjects, "engines": "all", "contexts": contexts, "batches": batches}
    rows, _ = rows_of(spec if encoder is None else {**spec, "encoder_context": encoder}, 64)
    curves: dict[tuple[str, str], tuple[MemoryCurve | str, int]] = {}
    for row in rows:
        key = row["subject"], row["engine"]
        if key not in curves:
            try:
                model = load(key[0])
                positions = encoder_of(model, encoder)
                curves[key] = model.curve(key[1]), positions
            except MemcurveError as error:
                curves[key] = str(error), 0
        assert (row["bytes"], row["reason"]) == expected(row, *curves[key]), key


def test_what_an_engine_refuses_at_some_contexts_and_batches_is_a_row() -> None:
    # MLX-LM's words for a rotating cache that is quantised, from 5,000 tokens on (mlx_lm/models/cache.py), and for bits.
    spec = {
        "subjects": ["1gqa"],
        "engines": "mlx",
        "options": {"kv_bits": [8, 7, "none"], "max_kv_size": 4096},
        "contexts": [4096, 4999, 5000, 5001, 10**6],
    }
    rows, notes = rows_of(spec)
    reasons = [row["reason"] for row in rows]
    never = "NotImplementedError: RotatingKVCache Quantization NYI"
    assert [reason == never for reason in reasons[:5]] == [False, False, True, True, True]
    assert all("The requested number of bits 7 is not supported" in reason for reason in reasons[5:10])
    assert reasons[10:] == [None] * 5
    assert [row["bytes"] is None for row in rows] == [reason is not None for reason in reasons]
    assert notes[0]["reasons"][never] == 3
    # By context and by batch at once, and the first of two.
    refusals = (Refusal(why="late", context=5, last_context=7, batch=2), Refusal(why="many", batch=3, last_batch=3))
    term = Term(kind="attention", layers=1, tensors=(("key", 2),), slots="context")
    curve = MemoryCurve(name="two", engine="mlx", dtype="bfloat16", terms=(term,), refusals=refusals)
    held, many = np.arange(10)[:, None], np.arange(5)[None, :]
    found, whys = evaluate(curve, held, many)
    for context in range(10):
        for batch in range(5):
            row = {"context": context, "batch": batch}
            why = next((text for where, text in whys if where[context, batch]), None)
            assert expected(row, curve) == (None if why else found[context, batch], why)


@pytest.mark.parametrize("piece", [1, 3, 2047, 2**31 + 1, 2**55 + 1, 2**62 + 1, INT64_MAX])
def test_buffers_in_pieces_of_any_size(piece: int) -> None:
    # The cycle of pieces and steps of 256 leaves int64 long before the rows do.
    spec = {"subjects": "1mha", "engines": "mlx", "options": {"prefill_step_size": piece}}
    contexts = [0, 1, 255, 256, 257, 2049, 10**6, 2**40 + 3, 2**55 + 2, 2**61]
    curve = pattern("1mha", dtype="bf16").curve("mlx", prefill_step_size=piece)
    for row in rows_of({**spec, "contexts": contexts})[0]:
        assert (row["bytes"], row["reason"]) == expected(row, curve)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Limits, zero_context=st.sampled_from(["none at all", 0, 131_072]), most_batch=st.integers(1, 9), step_tokens=st.integers(0, 9),
        step_in_context=st.booleans(), too_many=st.just("many"), too_short=st.just("short"),
    )
)  # fmt: skip
def test_limits_of_arrays_are_those_of_integers(limits: Limits) -> None:
    held, many = np.arange(0, 14)[:, None], np.arange(0, 12)[None, :]
    contexts, batches, reasons = admit(limits, held, many)
    for context in range(14):
        for batch in range(12):
            why = next((text for where, text in reasons if np.broadcast_to(where, (14, 12))[context, batch]), None)
            try:
                found: object = limits.admit(context, batch)
            except Refused as error:
                found = str(error)
            assert found == (why or (contexts[context, 0], batches[0, batch]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_part_is_larger_than_the_bound(data: Any) -> None:
    leaves = st.integers(0, 300) | st.sampled_from(["context", "batch"])
    expr = data.draw(
        st.recursive(
            leaves,
            lambda inner: (
                st.tuples(st.sampled_from(["add", "mul", "min"]), inner, inner)
                | st.tuples(st.sampled_from(["past", "rows"]), inner, st.integers(1, 300))
                | st.tuples(
                    st.sampled_from(["floor", "ceil", "mod"]), inner, st.integers(1, 300) | st.just(("mul", 7, "batch"))
                )
            ),
            max_leaves=6,
        )
    )
    value, part = largest(expr, 1000, 9, 0, 2)
    slots = compile_expr(expr)
    assert part >= value >= max(slots(context, batch, 0) for context in (0, 1, 999, 1000) for batch in range(2, 10))


def test_int64_is_the_end() -> None:
    # Two bytes a slot: 2^62 - 1 of them are the last that fit, alone, and none with a sequence more.
    term = Term(kind="attention", layers=1, tensors=(("key", 2),), slots="context")
    curve = MemoryCurve(name="two", engine="logical", dtype="int8", terms=(term,))
    held = np.array([2**62 - 1, 2**62], np.int64)
    found, reasons = evaluate(curve, held[:, None], np.array([[1, 2]], np.int64))
    assert found[0, 0] == 2**63 - 2
    assert [(where.tolist(), why) for where, why in reasons] == [([[False, True], [True, True]], TOO_MANY)]
    # A part on the way may be larger than any result: a window of 4 tokens of T · 2^40.
    window = term.replace(slots=("min", ("mul", "context", 2**40), 4))
    found, reasons = evaluate(curve.replace(terms=(window,)), held, np.array([3], np.int64))
    assert found.tolist() == [24, 24]
    assert not reasons[0][0].any()


def test_what_all_sequences_share_is_counted_once() -> None:
    own = Term(kind="attention", layers=2, tensors=(("key", 3),), slots="context")
    both = Term(kind="states", layers=1, tensors=(("state", 100),), slots=("add", "batch", 1), shared=True)
    curve = MemoryCurve(name="shared", engine="logical", dtype="int8", terms=(own, both))
    found, _ = evaluate(curve, np.array([[0], [10]], np.int64), np.array([[0, 1, 5]], np.int64))
    # 2 layers × 10 tokens × 3 B a sequence, and 100 B for each sequence and one more.
    assert found.tolist() == [[100, 200, 600], [100, 260, 900]]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(str(path)) as hidden:
        Path(hidden).write_text("whole")
        written = os.stat(hidden).st_ino
        assert not path.exists()
    assert (os.listdir(tmp_path), path.stat().st_ino) == (["a"], written)

    def half(hidden: str) -> None:
        Path(hidden).write_text("half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), replacing(str(path)) as hidden:
        half(hidden)
    assert (os.listdir(tmp_path), path.read_text()) == (["a"], "whole")


def test_a_table_in_parts_of_rows_and_whole_rows() -> None:
    for width in range(1, 6):
        for first in range(12):
            for last in range(first, 24):
                parts = list(rectangles(first, last, width))
                assert [position for a, b in parts for position in range(a, b)] == list(range(first, last))
                assert all(a // width == (b - 1) // width or a % width == b % width == 0 for a, b in parts)
                assert len(parts) <= 3


def test_models_options_and_columns_of_ones_own() -> None:
    rows, _ = rows_of(
        {
            "contexts": ["4k"],
            "batches": [1, 2],
            "grids": [
                {
                    "subjects": [QWEN],
                    "engines": "vllm",
                    "options": {"tensor_parallel_size": [1, 2], "kv_cache_dtype": ["auto", "fp8"]},
                },
                {"subjects": [QWEN, "48mha"], "dtypes": ["bf16", "fp8"], "columns": {"loss": {"48mha": 2}, "run": "a"}},
                {
                    "subjects": [QWEN],
                    "sizes": {"num_hidden_layers": 24, "full_attention_interval": [2, 4]},
                    "columns": {"loss": 2.5},
                },
            ],
        }
    )
    model = load(QWEN)
    assert len(rows) == 8 + 8 + 4
    for row in rows[:8]:
        options = {name: row[name] for name in ("tensor_parallel_size", "kv_cache_dtype")}
        assert row["bytes"] == model.curve("vllm", **options).bytes(4096, row["batch"])
        assert row["loss"] is None
    assert [(row["subject"], row["dtype"], row["loss"], row["run"]) for row in rows[8:16:2]] == [
        (QWEN, "bfloat16", None, "a"), (QWEN, "float8_e4m3fn", None, "a"),
        ("48mha", "bfloat16", 2.0, "a"), ("48mha", "float8_e4m3fn", 2.0, "a"),
    ]  # fmt: skip
    # 12 and 6 of 24 layers attend: 2 heads of 256, key and value, in bf16; the others keep a state.
    state = 32 * 128 * 128 * 4 + 8192 * 3 * 2
    assert [row["bytes"] for row in rows[16::2]] == [
        attending * 4096 * 2 * 256 * 2 * 2 + (24 - attending) * state for attending in (12, 6)
    ]


def test_aliases_and_sections_of_configs(tmp_path: Path) -> None:
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "torch_dtype": "float16"}
    text = {"model_type": "gemma3_text", "num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16,
            "num_key_value_heads": 2}  # fmt: skip
    for name, config in (
        ("gpt2", gpt2),
        ("gemma", {"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    rows, _ = rows_of(
        {"subjects": str(tmp_path / "gpt2.json"), "sizes": {"num_hidden_layers": [12, 24]}, "contexts": 100}
    )
    # Layers × tokens × key and value × 768 × 2 B.
    assert [row["bytes"] for row in rows] == [12 * 100 * 2 * 768 * 2, 24 * 100 * 2 * 768 * 2]
    # Of two names that the file could have for it, the one that it has.
    own = {key: value for key, value in gpt2.items() if key != "n_layer"}
    (tmp_path / "gpt2.json").write_text(json.dumps({**own, "num_hidden_layers": 12}))
    rows, _ = rows_of({"subjects": str(tmp_path / "gpt2.json"), "sizes": {"n_layer": [6]}, "contexts": 100})
    assert [row["bytes"] for row in rows] == [6 * 100 * 2 * 768 * 2]
    rows, _ = rows_of(
        {"subjects": str(tmp_path / "gemma.json"), "sizes": {"num_key_value_heads": [2, 4]}, "contexts": 100}
    )
    assert [row["bytes"] for row in rows] == [6 * 100 * 2 * heads * 16 * 2 for heads in (2, 4)]


def test_a_list_of_points(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(
        "\ufeffsubject,sizes.n,engine, options.block_size ,context,batch,columns.loss\n"
        "{n}gdn:1mha,3,vllm,32,4k,2,2.5\n"
        "\n"
        "{n}swa:1gqa,1,,,100,,3\n"
        "8mha,,llamacpp,,1000,300,\n"
    )
    rows, _ = rows_of({"points": str(tmp_path / "points.csv"), "pareto": "loss"})
    gdn = pattern("3gdn:1mha", dtype="bf16").curve("vllm", block_size=32).bytes(4096, 2)
    swa = pattern("1swa:1gqa", dtype="bf16").curve().bytes(100)
    shown = [(row["n"], row["engine"], row["block_size"], row["loss"], row["batch"], row["bytes"]) for row in rows]
    assert shown == [
        (3, "vllm", 32, 2.5, 2, gdn),
        (1, "logical", None, 3, 1, swa),
        (None, "llamacpp", None, None, 300, None),
    ]
    # The same as tables, in TOML or of a data frame, which has NaN for nothing.
    points = [
        {"subject": "{n}gdn:1mha", "sizes": {"n": 3}, "engine": "vllm", "options": {"block_size": 32}, "context": "4k", "batch": 2,
         "columns.loss": 2.5},
        {"subject": "{n}swa:1gqa", "sizes.n": 1, "context": 100, "columns": {"loss": 3}, "engine": None, "options.block_size": math.nan},
        {"subject": "8mha", "engine": "llamacpp", "context": 1000, "batch": np.int64(300)},
    ]  # fmt: skip
    assert rows_of({"points": points, "pareto": "loss"})[0] == rows
    # What a point lacks is as in the axes, of which there may be several values.
    found, _ = rows_of(
        {"points": [{"subject": "1mha"}, {"subject": "1gqa", "batch": 9}], "contexts": [1, 2], "batches": 5}
    )
    assert [(row["subject"], row["context"], row["batch"]) for row in found] == [
        ("1mha", 1, 5), ("1mha", 2, 5), ("1gqa", 1, 9), ("1gqa", 2, 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"subject,context\n1mha,1,2\n", r"a\.csv:2: 3 cells; expected at most 2"),
        (b"subject,subject\n1mha,1\n", r"a\.csv:2: 2 cells; expected at most 2, each of a name of its own"),
        (b"subjekt,context\n1mha,1\n", r"a\.csv:2: subjekt: unknown; expected one of .* \(nearest: subject\)"),
        (b"subject,context,loss\n1mha,1,2\n", r"a\.csv:2: loss: unknown; .*or a name in sizes, options or columns"),
        (b"subject,context\n1mha,1\n1mha,-1\n", r"a\.csv:3: contexts: -1; expected an integer from 0"),
        (b"subject,context\n1mha,inf\n", r"contexts: inf; expected an integer"),
        (b"subject,context\n", "expected a header and a line for each point"),
        (b"", "expected a header and a line for each point"),
        (b"subject,context\n\xff,1\n", "'utf-8' codec"),
        (b"subject,context\n" + b"a" * 200_000, "field larger than field limit"),
        (b"subject,context\n" + b"1mha,1\n" * 100_001, "points: more than 100,000"),
        (None, "No such file"),
    ],
)
def test_bad_points(tmp_path: Path, data: bytes | None, error: str) -> None:
    if data is not None:
        (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(BadConfig, match=error):
        resolve({"points": str(tmp_path / "a.csv")})
    for points, why in (
        ([], "points: a list; expected a list of tables, or a CSV file"),
        ([3], "points: a list"),
        (["a.csv\0"], "points: a list"),
        ("a.csv\0", "embedded null"),
        (
            [{"subject": ["1mha"], "context": 1}],
            r"points\[0\]\.subject: a list; expected one value; grids take several",
        ),
        (
            [{"subject": "1mha", "sizes": 3, "context": 1}],
            r"points\[0\]\.sizes: unknown; expected .*such as sizes.n_layers",
        ),
        ([{"subject": "1mha", "context": 1}, {"context": 1}], r"points\[1\]\.subjects: missing"),
    ):
        with pytest.raises(BadConfig, match=why):
            resolve({"points": points})
    with pytest.raises(BadConfig, match="points: beside grids; expected one of both"):
        resolve({"points": "a.csv", "grids": [{}]})


def test_true_is_not_one() -> None:
    rows, _ = rows_of({"subjects": "{n}gdn:1mha", "sizes": {"n": [1, True, 1.0]}, "contexts": 1})
    assert rows[0]["bytes"] is not None
    assert [row["reason"] for row in rows[1:]] == [f"n: {n}; expected an integer of 0 or more" for n in ("True", "1.0")]


def test_what_is_refused_is_a_row() -> None:
    rows, notes = rows_of(
        {
            "contexts": [1024],
            "grids": [
                {"subjects": ["1mha"], "engines": ["llamacpp"], "batches": [1, 257]},
                {"subjects": ["1mha"], "engines": ["logical", "vllm"], "options": {"block_size": [16, 17]}},
                {"subjects": ["1mha", QWEN], "sizes": {"n_heads": [16, 4096]}},
            ],
        }
    )
    reasons = [row["reason"] for row in rows]
    assert all((row["bytes"] is None) == (row["reason"] is not None) for row in rows)
    assert reasons[:2] == [None, "n_seq_max must be <= 256"]
    assert "block_size" in reasons[2]
    assert "not an option of engine logical" in reasons[2]
    assert reasons[4] is None
    assert "block_size=17" in reasons[5]
    assert reasons[6] is None
    assert reasons[7] == "n_heads: 4096; expected at most emb_dim = 2048"
    assert "n_heads: not a key of this config (qwen3_next)" in reasons[8]
    assert notes[0]["invalid"] == sum(reason is not None for reason in reasons)


def test_a_sample_is_drawn_by_its_seed() -> None:
    spec = {"subjects": ["1mha"], "contexts": {"from": 0, "to": 9}, "batches": {"from": 0, "to": 9}, "sample": 20_000}
    rows, _ = rows_of(spec)
    again, _ = rows_of({**spec, "sample": 500}, 100)
    assert rows[:500] == again
    assert rows != rows_of({**spec, "seed": 1})[0]
    counts: dict[tuple[int, int], int] = {}
    for row in rows:
        counts[row["context"], row["batch"]] = counts.get((row["context"], row["batch"]), 0) + 1
    # 100 points, 200 draws each on average: the sum of squares over 200 is chi-squared with 99 degrees of freedom, mean 99,
    # deviation √198; five of them are never left.
    chi = sum((many - 200) ** 2 / 200 for many in counts.values())
    assert len(counts) == 100
    assert abs(chi - 99) < 5 * math.sqrt(198)


def test_the_front() -> None:
    spec: dict[str, Any] = {
        "contexts": [1024, "128k"],
        "grids": [
            {"subjects": "{n}gdn:1mha", "sizes": {"n": [0, 1, 3]}, "columns": {"loss": 2.0}},
            {"subjects": "48mha", "columns": {"loss": 1.5}},
            {"subjects": "48gqa", "sizes": {"n_kv_heads": 16}, "columns": {"loss": 1.0}},
        ],
        "pareto": "loss",
    }
    _, notes = rows_of(spec)
    # 3 : 1 takes least; without any gdn it is 48mha, which the last equals in bytes and beats in loss.
    shown = [(one["subject"], one.get("n"), one["loss"], one["bytes"]) for one in notes[0]["front"]]
    full = 48 * 131_072 * 2 * 2048 * 2
    least = 12 * 131_072 * 2 * 2048 * 2 + 36 * (16 * 128 * 128 * 4 + 3 * 3 * 2048 * 2)
    assert shown == [("{n}gdn:1mha", 3, 2.0, least), ("48gqa", None, 1.0, full)]
    spec["pareto"] = {"column": "loss", "best": "most", "context": 1024}
    assert [one["n"] for one in rows_of(spec)[1][0]["front"]] == [3]
    # Of the two that are equal in bytes the one with more.
    for grid, score in zip(spec["grids"], (1, 2, 3), strict=True):
        grid["columns"] = {"score": score}
    spec["pareto"] = {"column": "score", "best": "most"}
    assert [one["score"] for one in rows_of(spec)[1][0]["front"]] == [1, 3]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("subjects = 1\ncontexts = 1", "subjects: 1; expected a text"),
        ("subject = '1mha'", "subject: unknown; expected one of .*nearest: subjects"),
        ("contexts = 1", "subjects: missing"),
        ("subjects = '1mha'", "contexts: missing"),
        ("subjects = '1mha'\ncontexts = -1", "contexts: -1; expected an integer from 0"),
        ("subjects = '1mha'\ncontexts = []", r"contexts: a list; expected a value, or a list of at least one"),
        ("subjects = '1mha'\ncontexts = 1.5", "contexts: 1.5; expected an integer"),
        ("subjects = '1mha'\ncontexts = true", "contexts: True; expected an integer"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 10, stop = 1}", "contexts.stop: unknown; .*nearest: step"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 10, times = 1.0}", "contexts.times: 1.0; expected a number above 1"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 10, times = nan}", "contexts.times: nan; expected a number above 1"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 9e3}", "contexts.to: 9000.0; expected an integer"),
        ("subjects = '1mha'\ncontexts = {from = 5, to = 4}", "contexts.to: 4; expected at least from = 5"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 9000000000000000000, times = 1.0000000001}", "contexts.times: .* 1,000,000"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 9000000000000000000}", "points: 9,000,000,000,000,000,000; expected at most"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 1000000000000000}\nbatches = {from = 1, to = 1000000000000000}", "points: 1,0"),
        ("subjects = '1mha'\ncontexts = {from = 1, to = 1000000000000000}\nsample = 10\nbatches = {from = 1, to = 9000000}", "points: 9"),
        ("subjects = '1mha'\ncontexts = 1" + "0" * 30, "contexts: 10+; expected an integer from 0"),
        ("subjects = '1mha'\ncontexts = 1" + "0" * 5000, "expected a sweep in TOML"),
        ("subjects = " + "[" * 3000 + "]" * 3000, "expected a sweep in TOML"),
        ("subjects = '1mha'\ncontexts = 1\nengines = 'vlm'", "engine: 'vlm'; .*nearest: vllm"),
        ("subjects = '1mha'\ncontexts = 1\ndtypes = 'bf61'", "dtypes: 'bf61'; expected one of fp32.*nearest: bf16"),
        ("subjects = '1mha'\ncontexts = 1\noptions = {blok_size = 1}\nengines = 'vllm'", "options.blok_size: not an option of vllm.*nearest: block_size"),
        ("subjects = '1mha'\ncontexts = 1\nsizes = {n_layer = 1}", "sizes.n_layer: of no subject here; .*nearest: n_layers"),
        (f"subjects = '{QWEN}'\ncontexts = 1\nsizes = {{num_hidden_layer = 1}}", "sizes.num_hidden_layer: of no subject .*nearest: num_hidden_layers"),
        ("subjects = '{n}mha'\ncontexts = 1", "subjects: '{n}mha'; expected sizes.n"),
        ("subjects = 'Qwen/Qwen3-Nxt'\ncontexts = 1", "Qwen3-Nxt"),
        ("subjects = 'Qwen3-Nxt'\ncontexts = 1", "'Qwen3-Nxt' is no file, and not in the catalogue"),
        ("subjects = '1mha'\ncontexts = 1\npareto = 'loss'", "pareto.column: 'loss'; expected one of your own"),
        ("subjects = '1mha'\ncontexts = 1\npareto = 'run'\ncolumns = {run = 'a'}", "pareto.column: 'run'; expected a column of numbers"),
        ("subjects = '1mha'\ncontexts = 1\ncolumns = {loss = {'2mha' = 1}}", "columns.loss: '2mha'; expected a subject .*1mha"),
        ("subjects = '1mha'\ncontexts = 1\ncolumns = {loss = inf}", "columns.loss: inf; expected a number"),
        ("subjects = '1mha'\ncontexts = 1\ncolumns = {bytes = 1}", "column 'bytes': expected another name"),
        ("subjects = '1mha'\ncontexts = 1\ncolumns = {n_heads = 1}\nsizes = {n_heads = 4}", "column 'n_heads': expected a name of its own"),
        ("subjects = '1mha'\ncontexts = 1\nsample = 0", "sample: 0; expected an integer from 1"),
        ("subjects = '1mha'\ncontexts = 1\nseed = 1", "seed: 1; expected sample beside it"),
        ("grids = []", "grids: a list; expected a list of tables"),
        ("[[grids]]\nsample = 3", r"grids\[0\].sample: unknown"),
        ("sizes = 3\nsubjects = '1mha'\ncontexts = 1", "sizes: 3; expected a table"),
        ("sub", "expected a sweep in TOML"),
    ],
)  # fmt: skip
def test_bad_specs(tmp_path: Path, text: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "spec.toml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(MemcurveError, match=error) as found:
        memcurve.sweep(path, tmp_path / "out.parquet")
    assert "\n" not in str(found.value)
    assert time.perf_counter() - start < 5
    assert os.listdir(tmp_path) == ["spec.toml"]


def test_python_takes_ranges_and_arrays(tmp_path: Path) -> None:
    found = memcurve.sweep(
        subjects=["1mha"], contexts=range(0, 100, 7), batches=np.array([1, 2]), output=tmp_path / "a.parquet"
    )
    table = pq.read_table(tmp_path / "a.parquet")
    assert found.points == table.num_rows == 30
    assert table["context"].to_pylist() == [context for context in range(0, 100, 7) for _ in range(2)]
    assert table.schema.field("bytes").type == pa.int64()
    assert table.schema.field("subject").type == pa.dictionary(pa.int32(), pa.string())
    # Nothing is done twice, and nothing else is overwritten.
    before = os.stat(tmp_path / "a.parquet").st_mtime_ns
    again = memcurve.sweep(subjects=["1mha"], contexts=range(0, 100, 7), batches=[1, 2], output=tmp_path / "a.parquet")
    assert again == found
    assert os.stat(tmp_path / "a.parquet").st_mtime_ns == before
    with pytest.raises(BadConfig, match="exists and is of another spec"):
        memcurve.sweep(subjects=["1mha"], contexts=range(0, 100, 8), output=tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(BadConfig, match="exists and was not made by a sweep"):
        memcurve.sweep(subjects=["1mha"], contexts=1, output=tmp_path / "b.csv")
    (tmp_path / "c.csv.parts").mkdir()
    (tmp_path / "c.csv.parts" / "mine").touch()
    with pytest.raises(BadConfig, match=r"c.csv.parts exists and was not made by a sweep"):
        memcurve.sweep(subjects=["1mha"], contexts=1, output=tmp_path / "c.csv")
    with pytest.raises(BadConfig, match=r"expected a name that ends in one of \.parquet, \.csv, \.arrow"):
        memcurve.sweep(subjects=["1mha"], contexts=1, output=tmp_path / "c.xls")


# -- as commands: stopped, killed, in several processes, on Dask --------------------------------------------------------


class Command:
    """memcurve sweep with small chunks, in a process of its own."""

    def __init__(self, folder: Path, output: str, *words: str, rows: int = 0) -> None:
        (folder / "run.py").write_text(RUN)
        (folder / "spec.toml").write_text(MANY)
        self.words = [
            sys.executable,
            str(folder / "run.py"),
            json.dumps([str(folder / "spec.toml"), "-o", str(folder / output), *words]),
            str(rows),
        ]
        self.parts, self.output = folder / f"{output}.parts" / "rows", folder / output

    def start(self, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def run(self, **options: Any) -> tuple[int, str, str]:
        process = self.start(**options)
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    def done(self) -> int:
        return len([name for name in os.listdir(self.parts) if name[0] != "."]) if self.parts.exists() else 0

    def until(self, process: subprocess.Popen[str], parts: int) -> None:
        """Waits until the process has written so many parts."""
        end = time.monotonic() + 60
        while self.done() < parts:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.001)

    def files(self) -> dict[str, bytes]:
        """The output and its summary, by name."""
        assert not self.parts.parent.exists()
        found = {"summary": Path(f"{self.output}.sweep.json").read_bytes()}
        for path in [self.output] if self.output.is_file() else sorted(self.output.iterdir()):
            found[path.name if self.output.is_dir() else "output"] = path.read_bytes()
        return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a sweep that nothing stopped."""
    command = Command(tmp_path_factory.mktemp("whole"), "out.parquet")
    code, out, error = command.run()
    assert (code, error) == (0, "")
    assert out.startswith("43,200 points of 240 curves in ")
    assert "43,200" in out
    found = command.files()
    assert len(found) == 22 + 1
    return found


@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow"])
def test_one_file_of_several_chunks(tmp_path: Path, ending: str, whole: dict[str, bytes]) -> None:
    command = Command(tmp_path, f"out.{ending}", rows=10**6)
    assert command.run()[0] == 0
    parts = [pq.read_table(pa.BufferReader(data)) for name, data in sorted(whole.items()) if name != "summary"]
    rows = pa.concat_tables(parts).to_pylist()
    if ending == "csv":
        from pyarrow import csv

        assert csv.read_csv(command.output).num_rows == len(rows)
        lines = command.output.read_text().splitlines()
        assert len(lines) == len(rows) + 1
        for row, line in zip(rows[:2000], lines[1:], strict=False):
            plain = ",".join(
                "" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
                for value in row.values()
            )
            assert plain == line
        return
    table = pq.read_table(command.output) if ending == "parquet" else pa.ipc.open_file(command.output).read_all()
    assert table.to_pylist() == rows


def test_the_rows_of_one_file_are_those_that_texts_say() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "choose-a-layer-mix.md").read_text()
    for text in (guide, SPEC, memcurve.sweep.__doc__ or ""):
        assert re.findall(r"p to ([\d,]+) rows the output is one file", text) == [f"{FILE_ROWS:,}"]


def test_many_curves_of_few_points_are_shared_out_too() -> None:
    axes = {"subjects": "{n}gdn:1mha", "contexts": [1, 2, 3], "sizes": {"n": [1, 2], "n_layers": list(range(1, 1001))}}
    for spec, chunks in (
        (axes, 8),  # 2,000 curves, 256 in each
        ({**axes, "sample": 1000}, 4),
        ({**axes, "sizes": {"n": list(range(100)), "n_layers": list(range(2000))}}, 65),  # 200,000, 3,124 in each
        ({**axes, "sizes": {"n": list(range(1000)), "n_layers": list(range(2000))}}, 245),  # 8,192 in each
    ):
        resolved = resolve(spec)
        assert (resolved.chunks, resolved.chunk_rows % 4) == (chunks, 0)


def test_two_processes_write_the_same(tmp_path: Path, whole: dict[str, bytes]) -> None:
    command = Command(tmp_path, "out.parquet", "-j", "2")
    assert command.run()[0] == 0
    assert command.files() == whole


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("signals", [(signal.SIGKILL,) * 4, (signal.SIGINT,) * 2])
def test_stopped_anywhere_and_run_again(
    tmp_path: Path, processes: str, signals: tuple[signal.Signals, ...], whole: dict[str, bytes]
) -> None:
    command = Command(tmp_path, "out.parquet", "-j", processes)
    chosen = random.Random(f"{processes}{signals}")
    kept: dict[str, int] = {}
    for number in signals:
        process = command.start()
        # Ctrl-C once it is at work; before, it is Python's own start that stops.
        target = command.done() + chosen.randrange(number == signal.SIGINT, 4)
        wait = chosen.random() / 20
        while process.poll() is None and command.done() < target:
            time.sleep(0.001)
        time.sleep(wait)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (0, -number if number == signal.SIGKILL else 130)
        if process.returncode == 130:
            assert (
                re.fullmatch(r"memcurve: stopped; .*the same command goes on from there\n", error)
                or "parts" not in error
            )
        if command.parts.exists():
            # Helpers share stderr: once it has ended, so have they.
            standing = {path.name: path.stat().st_ino for path in command.parts.iterdir() if path.name[0] != "."}
            assert kept.items() <= standing.items()
            kept = standing
    assert command.run()[0] == 0
    assert command.files() == whole
    assert kept.items() <= {path.name: path.stat().st_ino for path in command.output.iterdir()}.items()


def test_a_process_that_is_killed_is_replaced(tmp_path: Path, whole: dict[str, bytes]) -> None:
    command = Command(tmp_path, "out.parquet", "-j", "2")
    process = command.start()
    command.until(process, 2)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    helpers = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    assert len(helpers) == 2
    os.kill(helpers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert command.files() == whole


@pytest.mark.parametrize("standing", [["lock"], ["lock", ".job.json.12"]])
def test_stopped_before_it_began(tmp_path: Path, standing: list[str]) -> None:
    # A full disk or a kill before there is a job.json; what is not a sweep's is left alone.
    parts = tmp_path / "a.csv.parts"
    parts.mkdir()
    for name in standing:
        (parts / name).touch()
    assert memcurve.sweep(subjects="1mha", contexts=1, output=tmp_path / "a.csv").points == 1
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.csv.sweep.json"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("memcurve.sweeps.files.write_json", full)
        with pytest.raises(MemcurveError, match=r"No space left on device; 0 of 1 parts are kept"):
            memcurve.sweep(subjects="1mha", contexts=2, output=tmp_path / "b.csv")
    assert memcurve.sweep(subjects="1mha", contexts=2, output=tmp_path / "b.csv").points == 1


def test_nothing_stands_beside_the_output_but_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Killed while it joins its parts: what is half written is in the folder of parts.
    monkeypatch.setattr("memcurve.sweeps.spec.CHUNK_ROWS", 4)
    seen: list[list[str]] = []

    def watched(parts: list[str], path: str, form: str) -> None:
        Path(path).write_text("half")
        seen.append(sorted(os.listdir(tmp_path)))

    monkeypatch.setattr("memcurve.sweeps.files.join", watched)
    memcurve.sweep(subjects="1mha", contexts={"from": 1, "to": 9}, output=tmp_path / "a.csv")
    assert seen == [["a.csv.parts", "a.csv.sweep.json"]]
    # Two machines of a cluster may write one part at once, as processes of one number.
    with replacing(str(tmp_path / "b")) as first, replacing(str(tmp_path / "b")) as second:
        assert first != second
        for path in (first, second):
            Path(path).touch()


def test_the_bar_counts_what_is_done_from_where_it_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr("memcurve.sweeps.spec.CHUNK_ROWS", 8)
    shown: list[Any] = []
    made = tqdm.tqdm

    def watched(**words: Any) -> Any:
        shown.append(made(**words))
        return shown[-1]

    monkeypatch.setattr(tqdm, "tqdm", watched)
    place, spec = Place(str(tmp_path / "a.csv")), {"subjects": "1mha", "contexts": {"from": 1, "to": 19}}
    begin(place, resolve(spec))
    for number in (0, 2):
        write_chunk(place.parts, number)
    memcurve.sweep(spec, place.output, progress=True)
    # 8 and 3 of 19 were there: the rate is that of the 8 that were left.
    assert [(bar.initial, bar.n, bar.total) for bar in shown] == [(11, 19, 19)]


def test_no_parts_are_left_of_a_sweep_that_could_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("memcurve.sweeps.workers.WAIT", 1)
    with pytest.raises(BadConfig, match="expected a scheduler that answers"):
        memcurve.sweep(subjects="1mha", contexts=1, output=tmp_path / "a.csv", dask="nowhere")
    assert os.listdir(tmp_path) == []


def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    command = Command(tmp_path, "out.parquet")
    with locked(Place(str(command.output))):
        code, _, error = command.run()
    assert code == 2
    assert "another process is at work on" in error
    assert command.run()[0] == 0


def test_a_full_disk_keeps_what_was_complete(tmp_path: Path, whole: dict[str, bytes]) -> None:
    # As if no part had room: each takes 9,000 bytes, the last 3,500, its note some hundred.
    assert min(len(data) for name, data in whole.items() if name != "summary") > 3000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    command = Command(tmp_path, "out.parquet")
    process = command.start()
    command.until(process, 3)
    process.kill()
    process.communicate(timeout=60)
    for words in ((), ("-j", "2")):
        command = Command(tmp_path, "out.parquet", *words)
        before = command.done()
        code, out, error = command.run(preexec_fn=limit)
        assert (code, out) == (1, "")
        kept = f"{before} of {len(whole) - 1} parts are kept, and the same command goes on from there"
        assert error == f"memcurve: {command.output}: File too large; {kept}\n"
        assert command.done() == before >= 3
    assert command.run()[0] == 0
    assert command.files() == whole


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers, each a process."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    log = (tmp_path / "dask.log").open("wb")

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *words, "--scheduler-file", str(file), "--no-dashboard"],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )

    processes = [start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        processes += [start("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
        end = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < end
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], processes[1:]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        log.close()


def test_on_dask_with_a_worker_killed(
    tmp_path: Path, scheduler: tuple[str, list[subprocess.Popen[bytes]]], whole: dict[str, bytes]
) -> None:
    address, workers = scheduler
    command = Command(tmp_path, "out.parquet", "--dask", address)
    process = command.start()
    command.until(process, 3)
    workers[0].kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert command.files() == whole


def test_no_scheduler_and_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memcurve.sweeps.workers.WAIT", 1)
    with pytest.raises(BadConfig, match=r"dask: 'tcp://127\.0\.0\.1:1'; expected a scheduler that answers"):
        memcurve.sweep(subjects="1mha", contexts=1, output=tmp_path / "a.csv", dask="tcp://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MemcurveError, match=r"sweeps need pyarrow: pip install 'memcurve\[sweep\]'"):
        memcurve.sweep(subjects="1mha", contexts=1, output=tmp_path / "a.csv")


def test_the_summary_in_words_and_as_json(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(MANY.replace("2, 3, 4, 5", "3").replace("12, 16, 20, 24, 28, 32, ", ""))
    words = [sys.executable, "-m", "memcurve", "sweep", "spec.toml", "-o", "a.csv"]
    shown = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    data = json.loads(
        subprocess.run([*words, "--json"], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    )
    assert shown.startswith("4,320 points of 24 curves in a.csv\n")
    # One batch of three is more than llama.cpp takes, of 8 curves at 60 contexts.
    assert "without an answer: 480\n  480: n_seq_max must be <= 256\n" in shown
    assert (data["points"], data["invalid"], data["files"], data["schema"]) == (4320, 480, 1, 1)
    assert data["pareto"] == {"column": "n", "best": "most", "context": 59000, "batch": 7}
    lines = (tmp_path / "a.csv").read_text().splitlines()
    for one in data["front"]:
        start = f'"{one["subject"]}",{one["n"]},{one["n_layers"]},"{one["engine"]}",'
        assert f'{start}"{one["dtype"]}",59000,7,{one["bytes"]},' in lines
