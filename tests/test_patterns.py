"""Patterns: N kind : N kind, with sizes from flags."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memcurve
from memcurve import BadConfig
from memcurve.patterns import KINDS, is_pattern


def test_three_to_one() -> None:
    model = memcurve.pattern("3gdn:1mha", emb_dim=2048, n_heads=16, n_layers=48)
    assert model.structure == "48 layers: 36 gated delta + 12 full attention"
    # 12 × T × 16 heads × 128 × 2 × 2 B; 36 × (3 columns × 3·2048 channels × 2 B + 16 × 128 × 128 × 4 B)
    assert model.curve(dtype="bf16").bytes(1000) == 12 * 1000 * 8192 + 36 * (3 * 6144 * 2 + 16 * 128 * 128 * 4)
    plain = memcurve.pattern("3gdn:1mha", emb_dim=2048, n_heads=16, n_layers=48, conv_kernel=0)
    # without convolution and with states in bf16: the seed's mix
    assert plain.curve(dtype="bf16", state_dtype="bf16").bytes(1000) == 12 * 1000 * 8192 + 36 * 16 * 128 * 128 * 2


def test_the_last_repeat_may_be_cut() -> None:
    model = memcurve.pattern("5 swa : 1 gqa", emb_dim=1024, n_heads=8, n_layers=62, n_kv_heads=2, window=64)
    assert model.structure == "62 layers: 52 sliding attention + 10 full attention"
    assert model.curve(dtype="fp8").bytes(1000) == (52 * 64 + 10 * 1000) * 2 * 128 * 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_curve_in_every_engine(kind: str) -> None:
    model = memcurve.pattern(f"1{kind}", emb_dim=256, n_heads=4, n_layers=3, dtype="bf16")
    assert len(model.layers) == 3
    for engine in ("logical", "transformers"):
        assert model.curve(engine).bytes(100) > 0


@pytest.mark.parametrize(
    ("text", "sizes", "message"),
    [
        ("3gdm:1mha", {}, "'gdm'; expected a kind among .*nearest: gdn"),
        ("", {}, "expected a number and a kind"),
        ("0mha", {}, "expected a number and a kind"),
        ("3gdn:", {}, "expected a number and a kind"),
        ("1mha", {"n_heads": 0}, "n_heads: 0; expected an integer of 1 or more"),
        ("1mha", {"emb_dim": 4, "n_heads": 8}, "n_heads: 8; expected at most emb_dim = 4"),
        ("1mha", {"n_layers": 10**9}, "expected at most 100,000"),
        ("1swa", {"window": 1.5}, "window: 1.5"),
    ],
)
def test_bad_patterns(text: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        memcurve.pattern(text, **sizes)


def test_what_counts_as_a_pattern() -> None:
    assert is_pattern("3gdn:1mha")
    assert is_pattern("mha")
    assert is_pattern("3gdn:1typo")
    assert not is_pattern("openai/gpt-oss-20b")
    assert not is_pattern("llama")


SIZES = st.fixed_dictionaries(
    {
        "emb_dim": st.integers(64, 4096),
        "n_heads": st.integers(1, 64),
        "n_kv_heads": st.integers(1, 16),
        "window": st.integers(1, 5000),
        "kv_lora_rank": st.integers(1, 1024),
        "rope_head_dim": st.integers(0, 128),
        "state_size": st.integers(1, 256),
        "conv_kernel": st.integers(0, 8),
    }
)
PARTS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(KINDS)), min_size=1, max_size=4)


@given(PARTS, SIZES, st.sampled_from(["logical", "transformers"]), st.integers(0, 9000), st.integers(0, 5))
def test_random_models(
    parts: list[tuple[int, str]], sizes: dict[str, Any], engine: str, context: int, batch: int
) -> None:
    """Additive in layers, never falling with context, linear in batch."""
    text = ":".join(f"{number}{kind}" for number, kind in parts)
    whole = memcurve.pattern(text, n_layers=sum(number for number, _ in parts), **sizes).curve(engine, "bf16")
    single = [memcurve.pattern(kind, n_layers=number, **sizes).curve(engine, "bf16") for number, kind in parts]
    assert whole.bytes(context, batch) == sum(curve.bytes(context, batch) for curve in single)
    assert whole.bytes(context, batch) == batch * whole.bytes(context)
    assert whole.bytes(context) <= whole.bytes(context + 1) <= whole.bytes(10 * context + 1)
    again = memcurve.MemoryCurve.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again.bytes(np.array([context, context + 7])).tolist() == [whole.bytes(context), whole.bytes(context + 7)]


@given(PARTS, SIZES, st.integers(0, 10**12), st.integers(1, 5))
def test_the_longest_context_of_random_models(
    parts: list[tuple[int, str]], sizes: dict[str, Any], memory: int, batch: int
) -> None:
    text = ":".join(f"{number}{kind}" for number, kind in parts)
    curve = memcurve.pattern(text, n_layers=12, **sizes).curve("transformers", "fp16")
    if curve.bytes(0, batch) > memory:
        with pytest.raises(BadConfig, match="an empty sequence"):
            curve.max_context(memory, batch)
        return
    longest = curve.max_context(memory, batch)
    if longest is None:
        assert curve.bytes(10**15, batch) <= memory
    else:
        assert curve.bytes(longest, batch) <= memory < curve.bytes(longest + 1, batch)
    most = curve.max_batch(memory, 1000)
    assert most is not None
    assert curve.bytes(1000, most) <= memory < curve.bytes(1000, most + 1)
