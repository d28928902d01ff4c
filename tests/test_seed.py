"""The seed's figure: the three series equal, to the bit, what its float arithmetic gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memcurve import BadConfig
from memcurve.cli import run
from memcurve.crossed import find_crossings
from memcurve.export import sample
from memcurve.seed import LABELS, subjects

SIZE = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}


def by_hand(batch: int, emb: int, heads: int, layers: int, dtype: str, context: int) -> tuple[float, float, float]:
    """Full attention, DeltaNet, and a quarter of the layers of the one with three quarters of the other, as floats."""
    dim = emb // heads
    attention = batch * context * heads * dim * 2 * SIZE[dtype]
    delta = batch * heads * dim * dim * SIZE[dtype]
    quarter = layers / 4
    return float(attention * layers), float(delta * layers), attention * quarter + delta * (layers - quarter)


@given(
    batch=st.integers(0, 10**7),
    emb=st.integers(1, 10**6),
    heads=st.integers(1, 2000),
    layers=st.integers(0, 10**5),
    dtype=st.sampled_from(sorted(SIZE)),
    context=st.integers(0, 10**9),
)
def test_series_equal_to_the_bit(batch: int, emb: int, heads: int, layers: int, dtype: str, context: int) -> None:
    found = tuple(subject.values([context], batch)[0] for subject in subjects(emb, heads, layers, dtype))
    assert found == by_hand(batch, emb, heads, layers, dtype, context)
    assert all(isinstance(value, float) for value in found)


def test_default_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("memcurve.figures.hurry", lambda: None)  # the collector stays on in this process
    run(["plot"])
    assert (tmp_path / "deltanet_memory_plot.pdf").read_bytes().startswith(b"%PDF")
    run(["plot", "-o", "a.json"])
    data = json.loads((tmp_path / "a.json").read_text())
    contexts = list(range(128, 131_072 + 1, 100))
    assert data["contexts"] == contexts
    assert [subject["name"] for subject in data["subjects"]] == list(LABELS)
    for index, subject in enumerate(data["subjects"]):
        assert subject["bytes"] == [by_hand(1, 2048, 16, 48, "bf16", context)[index] for context in contexts]
        assert subject["engine"] == "logical"
        assert subject["formula"]
    # 48 × T × 8,192 B against 48 × 524,288 B: level at 64 tokens, below the figure.
    assert data["crossings"] == []
    run(["plot", "-o", "a.csv"])
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    assert rows[0] == ["context", *LABELS]
    assert len(rows) == len(contexts) + 1
    assert [float(cell) for cell in rows[1]] == [128.0, *by_hand(1, 2048, 16, 48, "bf16", 128)]


@pytest.mark.parametrize("flags", [["--emb_dim", "1000"], ["--emb-dim", "1000"]])
def test_layers_that_are_no_multiple_of_four(tmp_path: Path, flags: list[str]) -> None:
    target = tmp_path / "a.json"
    run(
        ["plot", "--n_layers", "7", "--n-heads", "3", *flags, "--dtype", "int8", "--max_ctx", "1000", "-o", str(target)]
    )
    data = json.loads(target.read_text())
    mix = data["subjects"][2]
    assert mix["bytes"] == [by_hand(1, 1000, 3, 7, "int8", context)[2] for context in data["contexts"]]
    assert mix["formula"].startswith("1/4 · ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_ctx", "100"], "max_ctx: 100; expected at least min_ctx = 128"),
        (["--n_heads", "0"], "n_heads: 0; expected an integer of 1 or more"),
        (["--batch", "-1"], "batch: '-1'"),
        (["--dtype", "fp12"], "dtype: 'fp12'"),
        (["--max_ctx", "100G"], "at most 1,000,000 points"),
        (["-o", "a.gif"], "expected a name that ends in one of"),
    ],
)
def test_bad_arguments(flags: list[str], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        run(["plot", *flags])


def test_crossings_of_scaled_curves() -> None:
    # 5 layers: the mix is 1.25 T a + 3.75 d, level with 5 T a at T = d / a = 64, with 5 d as well.
    parts: list[Any] = subjects(2048, 16, 5, "bf16")
    assert [one.context for one in find_crossings(parts, 1, 0, 1000)] == [65, 65, 65]


def test_sample_is_the_seeds_arange() -> None:
    assert sample(128, 331, 100) == [128, 228, 328]
    assert sample(5, 5, 100) == [5]
