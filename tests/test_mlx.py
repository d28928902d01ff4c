"""MLX-LM's caches: rows by the rules of mlx_lm/models/cache.py (0.32.2) replayed step by step, refusals, the peak, options."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import truth
from hypothesis import given, settings
from hypothesis import strategies as st

from memcurve import BadConfig, MemoryCurve, NotDescribed, Refused, load, pattern
from memcurve.buffers import growth
from memcurve.curve import crossings
from memcurve.engines.mlx_rows import Cache, Feed, Moments
from memcurve.terms import compile_expr

LLAMA = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 512, "vocab_size": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
ROW = 2 * 2 * 2 * 64 * 2  # bytes of a row: two layers, two heads of 64, keys and values, bf16
QWEN2 = {**LLAMA, "model_type": "qwen2"}  # its module has no make_cache
GEMMA = {**LLAMA, "model_type": "gemma3_text", "num_hidden_layers": 6, "head_dim": 64, "sliding_window": 300}


def pieces(piece: int | None, prompt: int, context: int) -> list[int]:
    """Tokens of each forward: generate_step's, or one of the whole prompt."""
    if piece is None:
        return [prompt, *[1] * (context - prompt)]
    left = prompt - 1
    return [*[piece] * (left // piece), *([left % piece] if left % piece else []), *[1] * (context - left)]


def replayed(form: str, size: int, forwards: list[int]) -> list[int]:
    """Rows after each forward, by what update_and_fetch of each class does."""
    rows, offset, found = 0, 0, []
    start = 0  # ChunkedKVCache: tokens cut in front
    for n in forwards:
        if form == "rotating" and n > 1:
            # _update_concat: the last size - 1 in temporal order, and the new ones
            rows = min(min(rows, offset), size - 1) + n
        elif form == "rotating":
            # _update_in_place: grow, else cut
            if offset >= rows and rows < size:
                rows += min(256, size - offset)
            rows = min(rows, size)
        else:
            if form == "chunked" and offset - start > size:
                start, rows = offset - size, size
            held = offset - start
            if held + n > rows:
                rows = (held if held % 256 else rows) + 256 * -(-n // 256)
        offset += n
        found.append(rows)
    return found


SIZES = st.one_of(st.integers(5, 1500), st.sampled_from([255, 256, 257, 512]))
PIECES = st.one_of(st.none(), st.integers(1, 700), st.sampled_from([1, 2, 100, 256, 512, 2048]))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["grown", "rotating", "chunked"]),
    SIZES,
    PIECES,
    st.integers(1, 2000),
    st.integers(0, 700),
    st.data(),
)
def test_rows_and_their_peak_follow_the_caches(
    form: str, size: int, piece: int | None, prompt: int, steps: int, data: Any
) -> None:
    context = prompt + steps
    held = replayed(form, size, pieces(piece, prompt, context))
    cache = Cache(form=form, size=size)
    said = [prompt, *([None, prompt + 7] if steps == 0 else [])]
    for given_prompt in said:
        slots = cache.slots(Feed(piece=piece, prompt=given_prompt))
        assert compile_expr(slots)(context, 1, 0) == held[-1]
        assert compile_expr(slots, np.minimum)(np.array([context]), 1, 0).tolist() == [held[-1]]
    # Ten bytes a row, three once quantised, and both at the forward that reaches `start`.
    start = data.draw(st.one_of(st.none(), st.integers(1, context + 10))) if form == "grown" else None
    moments = Moments(
        feed=Feed(piece=piece, prompt=prompt), held=((cache, 10, 3 if form == "grown" else None),), start=start
    )
    tokens, most, done = 0, 0, False
    for n, rows in zip(pieces(piece, prompt, context), held, strict=True):
        tokens += n
        late = start is not None and tokens >= start
        most, done = max(most, rows * (13 if late and not done else 3 if late else 10)), late
    assert moments.peak(context, 1) == most


def test_prompt_pieces_leave_rows_by_how_they_divide() -> None:
    # generate_step: 299 tokens in hundreds, 256 rows until 299 > 256, then 200 + 256; two more fit. All at once: 300 -> 512.
    curve = load(LLAMA).curve("mlx", "bf16", prompt=300, prefill_step_size=100)
    assert curve.bytes(302) == 456 * ROW
    assert load(LLAMA).curve("mlx", "bf16", prompt=300).bytes(302) == 512 * ROW
    # 456 rows are full at 456 tokens; each further 256 come at once.
    assert [curve.bytes(context) // ROW for context in (456, 457, 712, 713)] == [456, 712, 712, 968]


def test_a_window_holds_a_whole_forward_until_the_next_token() -> None:
    # 5 sliding layers of window 300, and one full; two heads of 64, keys and values in bf16: 512 bytes a row of a layer.
    model = load(GEMMA)
    once = model.curve("mlx", "bf16", schedule="forward", prompt=1000)
    assert once.bytes(1000) == 512 * (5 * 1000 + 1024)
    assert once.bytes(1001) == 512 * (5 * 300 + 1024)
    # 999 tokens in pieces of 256 and one of 231, each behind the last window - 1: 299 + 256 rows, then 299 + 231 beside 1,024.
    fed = model.curve("mlx", "bf16", prompt=1000, prefill_step_size=256)
    assert fed.bytes(1000) == 512 * (5 * 300 + 1024)
    assert fed.peak(1000) == fed.peak(1200) == 512 * (5 * 530 + 1024)
    assert fed.peak(1000, 3) == 3 * fed.peak(1000)
    assert f"at most {fed.peak(1000):,} B on the way there" in fed.explain(1000)


def test_quantising_holds_both_copies_for_a_moment() -> None:
    # 64 elements of 4 bits and two groups of 32 with a scale and a bias in bf16: 32 + 8 bytes, against 128.
    curve = load(LLAMA).curve("mlx", "bf16", prompt=100, kv_bits=4, kv_group_size=32, quantized_kv_start=400)
    packed = 2 * 2 * 2 * 40
    assert [curve.bytes(context) for context in (399, 400, 600)] == [512 * ROW, 512 * packed, 768 * packed]
    assert curve.peak(399) == 512 * ROW
    assert curve.peak(400) == curve.peak(600) == 512 * (ROW + packed)
    assert not curve.monotone


def test_a_piece_that_passes_the_start_is_quantised_with_the_rest() -> None:
    # 199 tokens in hundreds: the second piece reaches 199 >= 150; at 100 nothing happens.
    curve = load(LLAMA).curve("mlx", "bf16", prompt=200, kv_bits=8, quantized_kv_start=150, prefill_step_size=100)
    assert curve.peak(200) == 256 * (ROW + 2 * 2 * 2 * (64 + 4))
    assert curve.bytes(200) == 256 * 2 * 2 * 2 * 68


def test_max_kv_size_is_for_models_without_caches_of_their_own() -> None:
    # qwen2.py has no make_cache: RotatingKVCache(max_size=300, keep=4). llama.py has one, and ignores the option.
    rotating = load(QWEN2).curve("mlx", "bf16", max_kv_size=300)
    assert rotating.bytes(5000) == 300 * ROW
    assert not any("max_kv_size" in note for note in rotating.notes)
    # a batch keeps no first tokens, so that its window may be as small as they are
    batch = load(QWEN2).curve("mlx", "bf16", schedule="batch_generator", max_kv_size=4)
    assert batch.bytes(50, 2) == 2 * 4 * ROW
    own = load(LLAMA).curve("mlx", "bf16", max_kv_size=300)
    assert own.bytes(5000) == 5120 * ROW
    assert "max_kv_size: ignored, the model's module makes its own caches" in own.notes


def test_what_mlx_raises_is_refused_from_the_token_on_at_which_it_does() -> None:
    rotating = load(GEMMA).curve("mlx", "bf16", kv_bits=8)
    assert rotating.bytes(4999) == load(GEMMA).curve("mlx", "bf16").bytes(4999)
    for context in (5000, np.array([3, 5000])):
        with pytest.raises(Refused, match=r"^NotImplementedError: RotatingKVCache Quantization NYI$"):
            rotating.bytes(context)
    assert rotating.max_context(2**40) == 4999
    assert MemoryCurve.from_dict(rotating.to_dict()).refusals == rotating.refusals
    uneven = load({**LLAMA, "head_dim": 48}).curve("mlx", "bf16", kv_bits=4, quantized_kv_start=0)
    with pytest.raises(
        Refused, match=r"The last dimension, 48, needs to be divisible by the quantization group size 64"
    ):
        uneven.bytes(1)


def test_batches_of_chunked_caches_are_refused() -> None:
    llama4 = next(entry["config"] for entry in truth("mlx.jsonl") if entry.get("variant", "").startswith("llama4/"))
    for batch in (1, 2):
        with pytest.raises(Refused, match="ChunkedKVCache does not yet support batching with history"):
            load(llama4).curve("mlx", "bf16", schedule="batch_generator").bytes(10, batch)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schedule": "generate"}, BadConfig, "schedule: 'generate'; expected generate_step, batch_generator, forward"),
        ({"prompt": 0}, BadConfig, "prompt: 0; expected an integer of 1 or more"),
        ({"prefill_step_size": 0}, BadConfig, "prefill_step_size: 0; expected an integer of 1 or more"),
        ({"prefill_step_size": 2**70}, BadConfig, "prefill_step_size: 1180591620717411303424"),
        ({"max_kv_size": 4}, NotDescribed, "max_kv_size: 4; expected more than 4"),
        ({"kv_bits": 4, "schedule": "batch_generator"}, BadConfig, "kv_bits: 4; expected None with schedule batch_generator"),
        ({"kv_bits": 7}, Refused, "[quantize] The requested number of bits 7 is not supported"),
        ({"kv_bits": 4, "kv_group_size": 16}, Refused, "[quantize] The requested group size 16 is not supported"),
        ({"dtype": "fp8"}, BadConfig, "dtype: 'float8_e4m3fn'; expected one of bfloat16, float16, float32"),
        ({"page_size": 16}, BadConfig, "page_size: 16; not an option of engine mlx"),
    ],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        load(LLAMA).curve("mlx", **{"dtype": "bf16", **options})
    assert str(caught.value).startswith(message)


CURVES = st.fixed_dictionaries(
    {"schedule": st.sampled_from(["generate_step", "forward", "batch_generator"]), "prompt": st.integers(1, 900)},
    optional={"prefill_step_size": st.sampled_from([1, 100, 256, 300, 2048]), "max_kv_size": st.integers(5, 900)},
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gqa", "3swa:1gqa", "3gdn:1mha", "mla"]), CURVES)
def test_generating_takes_no_less_and_sequences_take_the_same(kinds: str, options: dict[str, Any]) -> None:
    curve = pattern(kinds, n_layers=4, dtype="bf16", window=300).curve("mlx", **options)
    # The first token after a single forward cuts windows that the forward overran.
    sizes = [curve.bytes(context) for context in range(options["prompt"] + 1, options["prompt"] + 700, 13)]
    assert all(before <= after for before, after in pairwise(sizes))
    assert curve.bytes(777, 5) == 5 * curve.bytes(777)
    assert curve.peak(777) >= curve.bytes(777)
    contexts = np.arange(0, 2000, 7)
    assert curve.bytes(contexts, 2).tolist() == [curve.bytes(int(one), 2) for one in contexts]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("start", [0, 400, 5000])
def test_quantised_caches_are_never_larger(bits: int, start: int) -> None:
    for piece in (100, 2048):
        options = {"prefill_step_size": piece, "prompt": 300}
        plain = load(LLAMA).curve("mlx", "bf16", **options)
        packed = load(LLAMA).curve("mlx", "bf16", kv_bits=bits, quantized_kv_start=start, **options)
        for context in range(1, 9000, 61):
            assert (packed.bytes(context) < plain.bytes(context)) == (context >= start)
            assert packed.bytes(context) <= plain.bytes(context)


def test_hostile_sizes_cost_no_time() -> None:
    began = time.perf_counter()
    for options in (
        {"prefill_step_size": 1, "prompt": 2**62},
        {"prefill_step_size": 3, "prompt": 2**62},
        {"prefill_step_size": 2**61 + 1},
        {"prefill_step_size": 7, "prompt": 2**62, "kv_bits": 4, "quantized_kv_start": 2**61},
    ):
        curve = load(LLAMA).curve("mlx", "bf16", **options)
        assert curve.bytes(2**60) >= 2**60 * (40 if "kv_bits" in options else ROW)
        assert curve.peak(2**60) >= curve.bytes(2**60)
        assert curve.max_context(2**40) is not None
    assert time.perf_counter() - began < 1


def test_the_peak_of_groups_that_wait_in_fp32() -> None:
    """DeepSeek-V4.1's LayerCache: a group of 4 is 2 · 32 · 4 B a token until it is full, and 32 · 2 B in all after that."""
    v41 = {
        "model_type": "deepseek_v41_text", "vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
        "head_dim": 32, "q_lora_rank": 48, "qk_rope_head_dim": 16, "sliding_window": 2, "compress_ratios": [4],
        "kv_source_layer_ids": [0], "index_source_layer_ids": [], "num_experts_per_tok": 2, "n_routed_experts": 4,
    }  # fmt: skip
    window, waiting, group = 2 * 32 * 2, 2 * 32 * 4, 32 * 2
    curve = load(v41).curve("mlx", "bf16", prompt=1)
    assert curve.bytes(7) == window + group + 3 * waiting
    assert curve.bytes(8) == window + 2 * group
    assert curve.peak(8) == curve.peak(10) == curve.bytes(7)
    # a prompt of 13 in pieces of 3 has 3 tokens waiting after the first of them, and at 9 + 3, 9 and 6 none, 1 and 2
    pieces = load(v41).curve("mlx", "bf16", prefill_step_size=3)
    assert pieces.peak(13) == window + 3 * waiting


def test_cuts_drift_through_the_offsets_and_come_round() -> None:
    # Pieces of 100 in steps of 256 grow every 200 tokens; 200·32 = 6,400 is a multiple of 256, where nothing is cut.
    assert growth(100).period == 6400
    for prompt in (6301, 6401, 6457, 6500, 6557, 6701, 13001):
        assert growth(100).rows(prompt) == replayed("grown", 0, pieces(100, prompt, prompt))[-1]
    # 6,200 is cut and gets 256; 6,400 is a whole number of steps, so that its 56 spare rows stay beside another 256.
    assert growth(100).rows(6401) == 6200 + 256
    assert growth(100).rows(6501) == 6200 + 2 * 256
    assert len(growth(3).offsets) < 600
    assert growth(2**61 + 1).rows(5) == 256


def test_curves_of_uneven_pieces_cross_and_are_inverted() -> None:
    uneven, even = (load(LLAMA).curve("mlx", "bf16", prefill_step_size=piece) for piece in (1000, 2048))
    found = crossings(uneven, even, until=3000)
    order = [uneven.bytes(context) - even.bytes(context) for context in range(3000)]
    signs, last = [], 0
    for context, gap in enumerate(order):
        if gap and last and (gap > 0) != (last > 0):
            signs.append(context)
        last = gap or last
    assert found == signs
    assert found
    for rows in (255, 256, 1300, 70000):
        most = uneven.max_context(rows * ROW)
        assert most is not None
        assert uneven.bytes(most) <= rows * ROW < uneven.bytes(most + 1)
    assert MemoryCurve.from_dict(uneven.to_dict()).bytes(2500) == uneven.bytes(2500)


def test_expressions_of_rows_are_read_with_a_piece() -> None:
    data = load(LLAMA).curve("mlx", "bf16", prefill_step_size=100).to_dict()
    for bad in (["rows", "context", 0], ["rows", "context", "context"], ["past", "context", "batch"]):
        data["terms"][0]["slots"] = bad  # type: ignore[index]
        with pytest.raises(BadConfig, match="expected a positive integer on its right"):
            MemoryCurve.from_dict(data)


def test_stages_are_not_described() -> None:
    with pytest.raises(NotDescribed, match=r"^engine mlx: how MLX-LM divides layers over machines is not described"):
        load(LLAMA).stages("mlx", "bf16", count=2)


def test_a_curve_is_built_in_less_than_a_millisecond() -> None:
    model = load(LLAMA)
    model.curve("mlx", "bf16")
    took = []
    for _ in range(50):
        began = time.perf_counter()
        model.curve("mlx", "bf16", prompt=1000, prefill_step_size=100, kv_bits=4)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.001
