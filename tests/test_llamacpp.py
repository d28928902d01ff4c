"""llama.cpp's options, refusals and limits, and what holds for every curve of its."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llamacpp_cases import cases

import memcurve
from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, crossings, load
from memcurve.terms import show_expr

LLAMA = {"general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 4096,
         "llama.embedding_length": 128, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}  # fmt: skip
CELL = 2 * 2 * 32 * 2  # bytes of a cell's keys in f16: two layers of two heads of 32; as many of values
METADATA = {case.model: case.metadata for case in cases() if len(case.recorded) == 6}


def curve(metadata: dict[str, Any] = LLAMA, **options: Any) -> MemoryCurve:
    return load(metadata).curve("llamacpp", **options)


def test_contexts_are_padded_and_shared_out() -> None:
    # llama-context.cpp: n_ctx padded to 256, divided by the sequences, padded again
    for context, batch, cells in (
        (1, 1, 256),
        (257, 1, 512),
        (1000, 3, 3 * 512),
        (4096, 5, 5 * 1024),
        (512, 4, 4 * 256),
    ):
        assert curve().bytes(context, batch) == 2 * CELL * cells
    assert curve(kv_unified=True).bytes(1000, 3) == 2 * CELL * 1024


def test_a_context_of_0_is_the_one_that_the_model_was_trained_on() -> None:
    line = curve()
    assert line.bytes(0) == line.bytes(4096) == 2 * CELL * 4096
    assert line.bytes(np.array([0, 256])).tolist() == [line.bytes(4096), line.bytes(256)]
    assert sum(row["bytes"] for row in line.breakdown(0)) == line.bytes(4096)
    assert line.explain(0) == line.explain(4096)
    # Whole or none: half a million bytes hold 2,048 cells
    assert line.max_context(2 * CELL * 2048) == 2048
    assert line.max_context(2 * CELL * 2048 + 1) == 2048
    with pytest.raises(BadConfig, match=r"a context of 1 of llama already takes"):
        line.max_context(2 * CELL * 256 - 1)


def test_a_context_of_0_needs_a_trained_one() -> None:
    line = load(
        {
            "model_type": "internlm2",
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
    ).curve("llamacpp")
    assert line.bytes(256) == 2 * 2 * 4 * 32 * 2 * 256
    for contexts in (0, np.array([0, 256])):
        with pytest.raises(Refused, match="no context_length is given"):
            line.bytes(contexts)


def test_sequences_have_limits() -> None:
    line = curve()
    assert line.bytes(65536, 256) > 0
    for batch, context, reason in ((257, 65536, "n_seq_max must be <= 256"), (3, 2, "n_outputs_max")):
        with pytest.raises(Refused, match=reason):
            line.bytes(context, batch)
        with pytest.raises(Refused, match=reason):
            line.breakdown(context, batch)
    with pytest.raises(Refused, match="n_outputs_max"):
        curve(n_batch=32).bytes(4096, 33)
    assert line.bytes(300, 0) == line.bytes(300, 1)
    # 4,096 cells are 16 paddings: more sequences than 16 take a padding each
    assert line.max_batch(2 * CELL * 4096, 4096) == 16
    assert line.max_batch(2 * CELL * 256 * 256, 4096) == 256
    with pytest.raises(BadConfig, match="one sequence of llama takes"):
        line.max_batch(100, 4096)


def test_a_model_that_is_not_causal_takes_more_sequences_than_tokens() -> None:
    # llama-context.cpp: only with causal attention is n_batch capped by n_ctx
    line = curve(
        {key.replace("llama", "rnd1"): value for key, value in LLAMA.items()} | {"general.architecture": "rnd1"}
    )
    assert line.bytes(1, 16) == 0
    with pytest.raises(Refused, match="n_outputs_max"):
        curve().bytes(1, 16)


def test_json_keeps_the_limits() -> None:
    line = curve(kv_unified=True)
    again = MemoryCurve.from_dict(line.to_dict())
    assert again == line
    assert again.bytes(0) == line.bytes(0)
    with pytest.raises(BadConfig, match="step_in_context"):
        MemoryCurve.from_dict({**line.to_dict(), "limits": {"zero_context": 1, "most_batch": 1, "step_tokens": 1}})


def test_formulas_name_the_batch() -> None:
    assert show_expr(curve().terms[0].slots) == "256·⌈T/(256·B)⌉"
    assert show_expr(curve(kv_unified=True).terms[0].slots) == "256·⌈T/256⌉"
    assert curve().kinks(3) == ()
    assert curve().period_at(3) == 768


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type_k": "q3_k"}, r"^type_k: 'q3_k'; expected one of f32, f16, "),
        ({"dtype": "fp8"}, r"^dtype: 'float8_e4m3fn'; expected one of f32, f16, "),
        ({"flash_attn": 1}, r'^flash_attn: 1; expected "auto", True or False$'),
        ({"swa_full": "yes"}, r"^swa_full: 'yes'; expected True or False$"),
        ({"kv_unified": 1}, r"^kv_unified: 1; expected True or False$"),
        ({"mtp_context": None}, r"^mtp_context: None; expected True or False$"),
        ({"n_batch": -1}, r"^n_batch: -1; expected an integer of 0 or more$"),
        ({"n_rs_seq": 1.5}, r"^n_rs_seq: 1.5; expected an integer of 0 or more$"),
        ({"n_threads": 1}, r"^n_threads: 1; not an option of engine llamacpp"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        curve(**options)


def test_types_of_keys_and_values() -> None:
    # ggml-common.h: a block of 32 takes 34 bytes in q8_0, 18 in q4_0 and iq4_nl, 20 in q4_1, 22 in q5_0, 24 in q5_1
    plain = curve().bytes(256)
    for word, size in {"q8_0": 34, "q4_0": 18, "iq4_nl": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "f32": 128}.items():
        assert curve(type_k=word, type_v=word).bytes(256) * 64 == plain * size
    assert curve(dtype="fp32").bytes(256) == 2 * plain
    assert curve(dtype="fp32", type_v="f16").dtype == "K f32, V f16"
    assert curve(type_k="bfloat16").dtype == "K bf16, V f16"


@pytest.mark.parametrize(
    ("metadata", "options", "reason"),
    [
        (LLAMA, {"type_v": "q8_0", "flash_attn": False}, "quantized V cache requires flash_attn to be enabled"),
        (LLAMA, {"n_batch": 0, "n_ubatch": 0}, "n_batch and n_ubatch cannot both be zero"),
        (LLAMA, {"mtp_context": True}, "context type MTP requested but model doesn't contain MTP layers"),
        ({**LLAMA, "llama.embedding_length": 96}, {"type_k": "q8_0"}, "block size 32 does not divide n_embd_head_k=24"),
        (
            {**LLAMA, "llama.embedding_length": 96},
            {"type_k": "q8_0", "flash_attn": False},
            "a row of 48 elements in blocks of 32",
        ),
        ({**LLAMA, "llama.rope.dimension_count": 16}, {}, "invalid n_rot: 16, expected 32"),
        (METADATA["R-deepseek-v3"], {"type_k": "q8_0"}, r"different K \(q8_0\) and V \(f16\) cache types"),
    ],
)
def test_what_llama_cpp_refuses(metadata: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        curve(metadata, **options)


def test_a_type_that_the_converter_lacks_is_named() -> None:
    with pytest.raises(NotDescribed, match=r"llama.cpp's converter has no zamba \(nearest: "):
        load({"model_type": "zamba", "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}).curve(
            "llamacpp"
        )
    with pytest.raises(NotDescribed, match=r"llama\.cpp has no cache for cross attention"):
        memcurve.model.Model(
            name="m",
            model_type="pattern",
            layers=(memcurve.layers.CrossAttention(kv_heads=1, head_dim=2, v_head_dim=2),),
        ).curve("llamacpp")


def test_a_pattern_is_taken_as_it_stands() -> None:
    line = memcurve.pattern("1swa:1gqa", emb_dim=128, n_heads=4, n_kv_heads=2, n_layers=2, window=512).curve("llamacpp")
    # a full layer of 8,192 cells, and 1,024 cells of window and step; keys and values of two heads of 32 in two bytes
    assert line.bytes(8192) == (8192 + 1024) * 2 * 2 * 32 * 2
    assert line.bytes(0) == 0


@given(st.sampled_from(sorted(METADATA)), st.booleans(), st.booleans(), st.integers(1, 9), st.data())
@settings(max_examples=150, deadline=None)
def test_more_context_is_never_less(name: str, unified: bool, whole: bool, batch: int, data: st.DataObject) -> None:
    line = curve(METADATA[name], kv_unified=unified, swa_full=whole)
    one, two = sorted(data.draw(st.lists(st.integers(batch, 70_000), min_size=2, max_size=2)))
    assert line.bytes(one, batch) <= line.bytes(two, batch)
    budget = line.bytes(two, batch)
    most = line.max_context(budget, batch)
    assert most is None or line.bytes(most, batch) <= budget < line.bytes(most + 1, batch)


@given(
    st.sampled_from(sorted(METADATA)),
    st.sampled_from(["q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]),
    st.integers(1, 9000),
)
@settings(max_examples=100, deadline=None)
def test_quantised_is_never_larger_than_f16(name: str, word: str, context: int) -> None:
    try:
        small = curve(METADATA[name], type_k=word, type_v=word)
    except Refused:
        return
    assert small.bytes(context) <= curve(METADATA[name]).bytes(context)


def test_crossings_start_where_contexts_stand_for_themselves() -> None:
    swa, full = curve(METADATA["gemma3-8l"]), curve(METADATA["gemma3-8l"], swa_full=True)
    assert crossings(swa, full) == []
    wide = curve({**LLAMA, "llama.block_count": 5})
    assert swa.bytes(1) > wide.bytes(1)
    assert crossings(swa, wide)[:1] == [next(t for t in range(1, 5000) if swa.bytes(t) < wide.bytes(t))]
