"""Curves: evaluation, inverse, crossings and data, against brute force and against each other."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memcurve import BadConfig, MemcurveError, MemoryCurve, crossings, load
from memcurve.base import TooLarge
from memcurve.curve import Order, order
from memcurve.engines import NAMES
from memcurve.terms import Limits, Term, show_expr, uses

N = 400  # brute force looks at contexts up to here

SLOTS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 5),
    st.just("context"),
    st.builds(lambda cap: ("min", "context", cap), st.integers(1, 60)),
    st.builds(lambda plus, cap: ("min", ("add", "context", plus), cap), st.integers(0, 9), st.integers(1, 60)),
    st.builds(lambda per: ("floor", "context", per), st.integers(1, 9)),
    st.builds(lambda per, plus: ("add", ("ceil", "context", per), plus), st.integers(1, 9), st.integers(0, 3)),
    st.builds(lambda per, cap: ("ceil", ("min", "context", cap), per), st.integers(1, 9), st.integers(1, 60)),
)
TAILS = st.builds(lambda per: ("mod", "context", per), st.integers(2, 9))


def curves(slots: st.SearchStrategy[Any]) -> st.SearchStrategy[MemoryCurve]:
    term = st.builds(
        lambda layers, size, slots, shared: Term(
            kind="full attention", layers=layers, tensors=(("key", size),), slots=slots, shared=shared
        ),
        st.integers(1, 4),
        st.integers(1, 50),
        slots,
        st.booleans(),
    )
    return st.lists(term, min_size=1, max_size=4).map(
        lambda terms: MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=tuple(terms))
    )


RISING = curves(SLOTS)
ANY = curves(st.one_of(SLOTS, TAILS))


@given(ANY, st.integers(0, 3))
def test_array_and_scalar_and_json_agree(curve: MemoryCurve, batch: int) -> None:
    contexts = np.arange(N)
    values = curve.bytes(contexts, batch)
    assert values.dtype == np.int64
    assert values.tolist() == [curve.bytes(context, batch) for context in range(N)]
    again = MemoryCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    assert again == curve
    assert again.bytes(contexts, batch).tolist() == values.tolist()


@given(RISING)
def test_bytes_never_fall_without_a_tail(curve: MemoryCurve) -> None:
    assert curve.monotone
    values = curve.bytes(np.arange(N))
    assert (np.diff(values) >= 0).all()


@given(ANY, st.integers(1, 5), st.integers(0, 300))
def test_linear_in_batch_but_for_what_is_shared(curve: MemoryCurve, batch: int, context: int) -> None:
    shared = curve.bytes(context, 0)
    assert curve.bytes(context, batch) == shared + batch * (curve.bytes(context, 1) - shared)


@given(ANY, ANY, st.integers(0, 300))
def test_terms_add_up(a: MemoryCurve, b: MemoryCurve, context: int) -> None:
    both = MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=a.terms + b.terms)
    assert both.bytes(context) == a.bytes(context) + b.bytes(context)
    assert both.bytes(context) == sum(int(str(row["bytes"])) for row in both.breakdown(context))


@given(ANY, st.integers(0, 20_000), st.integers(1, 3))
def test_max_context_agrees_with_brute_force(curve: MemoryCurve, memory: int, batch: int) -> None:
    fits = [context for context in range(N) if curve.bytes(context, batch) <= memory]
    try:
        found = curve.max_context(memory, batch)
    except BadConfig:
        # Nothing fits, or something fits again and again without end.
        assert not fits or (curve.bytes(N * 10**6, batch) <= 10**7 and not curve.monotone)
        return
    if found is None:
        assert len(fits) == N or not curve.monotone
        assert curve.bytes(10**9, batch) <= memory
    elif found < N - 100:
        assert found == max(fits)
    if found is not None:
        assert curve.bytes(found, batch) <= memory < curve.bytes(found + 1, batch)


@given(ANY, st.integers(0, 20_000), st.integers(0, 300))
def test_max_batch_is_exact(curve: MemoryCurve, memory: int, context: int) -> None:
    if curve.bytes(context, 0) > memory:
        with pytest.raises(BadConfig):
            curve.max_batch(memory, context)
        return
    found = curve.max_batch(memory, context)
    if found is None:
        assert curve.bytes(context, 10**9) <= memory
    else:
        assert curve.bytes(context, found) <= memory < curve.bytes(context, found + 1)


def brute_crossings(a: MemoryCurve, b: MemoryCurve, stop: int) -> list[int]:
    found, order = [], 0
    for context in range(stop):
        gap = a.bytes(context) - b.bytes(context)
        sign = (gap > 0) - (gap < 0)
        if sign and sign != order:
            if order:
                found.append(context)
            order = sign
    return found


def test_crossings_repeat_up_to_a_kink() -> None:
    a, b = stairs((1, 1), (4, ("floor", "context", 2))), stairs((4, ("ceil", ("min", "context", 9), 2)))
    # 1 apart the one way at even tokens, 3 the other way at odd ones, up to the ninth
    assert crossings(a, b) == list(range(1, 11))


@settings(deadline=None)
@given(ANY, ANY)
def test_crossings_agree_with_brute_force(a: MemoryCurve, b: MemoryCurve) -> None:
    found = crossings(a, b)
    stop = 1500
    expected = brute_crossings(a, b, stop)
    period = np.lcm(a.period, b.period)
    last = max([0, *a.kinks(), *b.kinks()])
    if a.bytes(last + int(period)) - b.bytes(last + int(period)) == a.bytes(last) - b.bytes(last):
        # The gap repeats for ever: one period of it is listed.
        stop = last + int(period)
        expected = [context for context in expected if context < stop]
    assert [context for context in found if context < stop] == expected
    for context in found:
        before = a.bytes(context - 1) - b.bytes(context - 1)
        after = a.bytes(context) - b.bytes(context)
        assert after != 0
        assert before * after <= 0 or before == 0


def stairs(*terms: tuple[int, Any]) -> MemoryCurve:
    """A curve of (bytes per slot, slots)."""
    each = (Term(kind="k", layers=1, tensors=(("key", size),), slots=slots) for size, slots in terms)
    return MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=tuple(each))


def paged(page: int) -> tuple[int, Any]:
    return 1, ("mul", page, ("ceil", "context", page))


WIDE = curves(
    st.one_of(
        st.just("context"),
        st.integers(0, 2000),
        st.builds(lambda op, per: (op, "context", per), st.sampled_from(["floor", "ceil", "mod"]), st.integers(2, 300)),
        st.builds(lambda per, cap: ("min", ("ceil", "context", per), cap), st.integers(2, 300), st.integers(1, 20)),
        st.builds(lambda per: ("mul", "context", ("min", ("floor", "context", per), 1)), st.integers(2, 300)),
        st.builds(lambda per, cap: ("mul", per, ("floor", ("min", ("ceil", "context", per), cap), 3)), *[st.integers(2, 99)] * 2),
    )
)  # fmt: skip


@settings(deadline=None)
@given(WIDE, WIDE, st.integers(1, 3), st.integers(0, 4000))
def test_crossings_up_to_a_context_are_all_of_them(a: MemoryCurve, b: MemoryCurve, batch: int, until: int) -> None:
    both = a.bytes(np.arange(until + 1), batch) - b.bytes(np.arange(until + 1), batch)
    signs = np.sign(both)[np.sign(both) != 0]
    where = np.flatnonzero(both)
    expected = where[1:][signs[1:] != signs[:-1]].tolist()
    assert crossings(a, b, batch, until=until) == expected
    if np.lcm.reduce([curve.period_at(batch) for curve in (a, b)]) > 50_000:
        return  # the rest would be tried for one period
    found = order(a, b, batch)
    if not found.crossings and len(signs):
        equal = np.flatnonzero(both[1:] == 0)
        assert found.ties or not len(equal)
    assert found.first in signs[:1] if len(signs) else found.first in (-1, 0, 1)
    if found.period is not None:
        # Beyond the last one listed the gap does what it did a period before.
        last = np.arange(found.crossings[-1], found.crossings[-1] + 50)
        gap, later = (a.bytes(t, batch) - b.bytes(t, batch) for t in (last, last + found.period))
        assert gap.tolist() == later.tolist()
        assert crossings(a, b, batch, until=found.crossings[-1] + found.period)[len(found.crossings) :]


@settings(deadline=None)
@given(WIDE, st.integers(0, 10**6), st.integers(1, 3))
def test_the_longest_context_of_wide_stairs(curve: MemoryCurve, memory: int, batch: int) -> None:
    if curve.period_at(batch) > 50_000 and not curve.monotone:
        return  # a tail that long is tried only so far
    fits = np.flatnonzero(curve.bytes(np.arange(40_000), batch) <= memory)
    try:
        found = curve.max_context(memory, batch)
    except BadConfig:
        # Nothing fits, or a remainder comes back to what fits again and again.
        assert not len(fits) or curve.bytes(int(fits[-1]) + curve.period_at(batch), batch) <= memory
        return
    if found is None:
        assert len(fits) == 40_000
    else:
        assert (
            found == fits[-1] if found < 39_999 else curve.bytes(found, batch) <= memory < curve.bytes(found + 1, batch)
        )


def test_long_periods_take_no_longer() -> None:
    # A page of 1,000,003 tokens against ones of 3: the small pages are cheaper but for the last token or two of a page.
    a, b = stairs(paged(1_000_003)), stairs(paged(3))
    page = 1_000_003
    # ⌈page/3⌉·3 = page + 2 passes the page's own end, and 2·page is passed by ⌈2·page/3⌉·3 = 2·page + 1
    assert crossings(a, b) == [page, page + 1, 2 * page - 1, 2 * page + 1]
    assert a.max_context(10**9) == 10**9 // page * page
    # 2/3 against 1/2 a token: they part by 1/6 a token, 10⁹ is reached some 6·10⁹ tokens on
    assert crossings(stairs((2, ("floor", "context", 3))), stairs((1, ("floor", "context", 2)), (10**9, 1))) == [
        next(t for t in range(6 * 10**9 - 9, 6 * 10**9 + 9) if 2 * (t // 3) > t // 2 + 10**9)
    ]


def test_stairs_that_meet_too_often_are_refused_and_not_waited_for() -> None:
    a, b = stairs(paged(1_000_003)), stairs(paged(999_983))
    with pytest.raises(TooLarge, match="until="):
        crossings(a, b)
    # One page each, then two: the smaller page is used up first, and cheaper again in its second
    assert crossings(a, b, until=2_000_000) == [999_984, 1_000_004, 1_999_967]
    growing = stairs((1, ("mul", "context", ("min", ("mod", "context", 7), 3))))
    with pytest.raises(TooLarge, match="until="):
        crossings(growing, stairs((1, "context")))
    assert crossings(growing, stairs((1, "context")), until=9) == [
        7,
        9,
    ]  # 4 against 2 at two tokens, 0 against 7, 18 against 9
    with pytest.raises(TooLarge, match="no largest context"):
        growing.max_context(100)


def real_curves() -> list[MemoryCurve]:
    found = []
    for name in (
        "Qwen/Qwen3-Next-80B-A3B-Thinking", "google/gemma-3-27b-it", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V4-Flash",
        "deepseek-ai/DeepSeek-V3.2", "meta-llama/Llama-4-Maverick-17B-128E-Instruct", "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
    ):  # fmt: skip
        for engine in NAMES:
            with suppress(MemcurveError):
                found.append(load(name).curve(engine, "bf16"))
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_real_curves_cross_where_brute_force_finds(batch: int) -> None:
    curves, contexts = real_curves(), np.arange(batch, 20_000)
    assert {curve.engine for curve in curves} == set(NAMES)
    values = [curve.bytes(contexts, batch) for curve in curves]
    for (a, left), (b, right) in combinations(zip(curves, values, strict=True), 2):
        gap = left - right
        where = np.flatnonzero(gap)
        signs = np.sign(gap[where])
        expected = (where[1:][signs[1:] != signs[:-1]] + batch).tolist()
        first = max(a.first_context(batch), b.first_context(batch))
        found = crossings(a, b, batch, until=19_999)
        assert [context for context in found if context > batch] == [x for x in expected if x > batch], (a.name, b.name)
        if first >= batch:
            assert found == expected
        listed = [context for context in crossings(a, b, batch) if batch < context < 20_000]
        assert listed == [x for x in expected if x > batch][: len(listed)]


@pytest.mark.parametrize("memory", [2 * 10**7, 123_456_789, 10**9, 10**9 + 1, 2**34])
def test_real_inverses_agree_with_brute_force(memory: int) -> None:
    for curve in real_curves():
        for batch in (1, 3):
            first = curve.first_context(batch)
            fits = np.flatnonzero(curve.bytes(np.arange(first, 20_000), batch) <= memory)
            try:
                found = curve.max_context(memory, batch)
            except BadConfig:
                assert not len(fits)
                continue
            if found is not None and found < 19_999:
                assert found == fits[-1] + first
            elif found is not None:
                assert curve.bytes(found, batch) <= memory < curve.bytes(found + 1, batch)
        for context in (1, 40, 4096, 32_768):
            most = 300 if curve.limits is None else min(curve.limits.most_batch, context)
            held = [curve.bytes(context, batch) for batch in range(1, most + 1)]
            if held[0] <= memory < held[-1]:
                assert curve.max_batch(memory, context) == max(n for n, size in enumerate(held, 1) if size <= memory)


def test_curves_that_never_cross_say_whether_they_are_ever_equal() -> None:
    # Equal at every third token; three bytes apart at least; equal at no token but the empty sequence
    page, plain = stairs(paged(3)), stairs((1, "context"))
    assert order(plain, page) == Order(first=-1, crossings=(), ties=True)
    assert order(stairs((1, "context"), (3, 1)), plain) == Order(first=1, crossings=())
    assert order(stairs((2, "context")), plain) == Order(first=1, crossings=())
    assert order(plain, stairs((1, "context"))) == Order(first=0, crossings=())
    # 2 + ⌊T/2⌋·2 against ⌈T/3⌉·3: from 2 at 0; level, or off by one or two, in turns of six tokens
    swaps = order(stairs((2, ("floor", "context", 2)), (1, 1)), stairs(paged(3)))
    assert swaps.period == 6
    assert list(swaps.crossings) == brute_crossings(stairs((2, ("floor", "context", 2)), (1, 1)), stairs(paged(3)), 6)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_context_shared_out_seen_by_each_sequence(batch: int) -> None:
    for name in ("openai/gpt-oss-20b", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V4-Flash"):
        whole = load(name).curve("llamacpp", "bf16")
        own = whole.per_sequence(batch)
        for context in (1, 2, 31, 32, 33, 255, 257, 4096, 5000):
            assert own.bytes(context, batch) == whole.bytes(batch * context, batch)
        assert own.first_context(batch) == 1
        assert own.max_context(10**10, batch) == (whole.max_context(10**10, batch) or 0) // batch


def test_a_step_longer_than_the_context_holds_more_sequences_than_tokens() -> None:
    words = {"too_many": "many", "too_short": "short"}
    limits = Limits(zero_context=0, most_batch=9, step_tokens=512, step_in_context=False, **words)
    curve = stairs((10, 1)).replace(limits=limits)
    # 9 sequences of 10 B at one token: the most there may be, whatever the context
    assert curve.max_batch(95, 1) == 9
    assert curve.first_context(4) == 0
    assert curve.replace(limits=limits.replace(step_in_context=True)).first_context(4) == 4


def test_a_context_shared_out_without_limits_has_no_largest_batch() -> None:
    curve = stairs((1, ("mul", 256, ("ceil", "context", ("mul", 256, "batch")))))
    # One sequence of 257 tokens takes 512 cells, and so do two: more can take no more
    assert [curve.bytes(257, batch) for batch in (1, 2, 3)] == [512, 512, 768]
    with pytest.raises(BadConfig, match="without limits"):
        curve.max_batch(600, 257)


@given(ANY)
def test_between_breakpoints_growth_repeats(curve: MemoryCurve) -> None:
    ends = [0, *curve.breakpoints, curve.breakpoints[-1] + 200 if curve.breakpoints else 200]
    for start, end in pairwise(ends):
        steps = {curve.bytes(t + curve.period) - curve.bytes(t) for t in range(start, end - curve.period + 1)}
        assert len(steps) <= 1


def test_breakpoint_of_a_window_is_where_it_is_full() -> None:
    term = Term(kind="sliding attention", layers=1, tensors=(("key", 2),), slots=("min", "context", 4095))
    curve = MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=(term,))
    assert curve.breakpoints == (4095,)
    assert [curve.bytes(t) for t in (4094, 4095, 4096)] == [8188, 8190, 8190]


@given(ANY)
def test_cap_is_where_bytes_stop_growing(curve: MemoryCurve) -> None:
    plain = curve.replace(terms=tuple(term for term in curve.terms if not uses(term.slots, "mod")))
    values = [plain.bytes(t) for t in range(N)]
    if plain.cap is not None:
        assert len(set(values[plain.cap :])) == 1
        assert plain.cap in (0, *plain.breakpoints)
    else:
        assert values[0] == values[-1] or plain.bytes(10**6) > values[-1]


def test_a_full_window_grows_no_more() -> None:
    term = Term(kind="sliding attention", layers=1, tensors=(("key", 2),), slots=("min", "context", 100))
    assert [term.grows_after(context) for context in (0, 99, 100)] == [True, True, False]
    curve = MemoryCurve(name="a", engine="logical", dtype="bfloat16", terms=(term,))
    assert [curve.breakdown(context)[0]["grows"] for context in (99, 100)] == [True, False]
    assert "full: grows no more" in curve.explain(100)
    assert "grows with context" in curve.explain()


def test_the_encoders_context_can_be_fixed() -> None:
    slots: Any = ("add", ("mul", "encoder", 3), "context")
    term = Term(kind="cross attention", layers=2, tensors=(("key", 5),), slots=slots)
    curve = MemoryCurve(name="a", engine="logical", dtype="bfloat16", terms=(term,))
    assert curve.at_encoder(7).bytes(4) == curve.bytes(4, 1, 7) == 2 * 5 * (7 * 3 + 4)


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        (("floor", ("add", "context", 3), 4), "⌊(T + 3)/4⌋"),
        (("mul", 3, ("add", "context", 3)), "3·(T + 3)"),
        (("add", ("ceil", "context", 16), ("mod", "context", 2)), "⌈T/16⌉ + T mod 2"),
        (("min", ("add", "context", 1), 9), "min(T + 1, 9)"),
    ],
)
def test_formulas_read_as_they_are_computed(slots: Any, text: str) -> None:
    assert show_expr(slots) == text


def test_no_bound_is_none_and_not_a_number() -> None:
    term = Term(kind="mamba", layers=2, tensors=(("recurrent_state", 10),), slots=1)
    curve = MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=(term,))
    assert curve.max_context(20) is None
    with pytest.raises(BadConfig, match="already takes 20"):
        curve.max_context(19)


def test_overflow_raises_in_arrays_and_not_in_integers() -> None:
    term = Term(kind="full attention", layers=1, tensors=(("key", 2**40),), slots="context")
    curve = MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=(term,))
    assert curve.bytes(2**40) == 2**80
    with pytest.raises(TooLarge):
        curve.bytes(np.array([1, 2**40]))
    with pytest.raises(OverflowError):
        curve.bytes(np.array([2**24]))
    assert curve.bytes(np.array([2**22])).tolist() == [2**62]


@pytest.mark.parametrize("bad", [-1, 1.5, "4", None, True, [1]])
def test_bad_arguments_name_the_argument(bad: Any) -> None:
    term = Term(kind="full attention", layers=1, tensors=(("key", 2),), slots="context")
    curve = MemoryCurve(name="m", engine="logical", dtype="bfloat16", terms=(term,))
    for call in (
        lambda: curve.bytes(bad),
        lambda: curve.bytes(1, bad),
        lambda: curve.bytes(1, 1, bad),
        lambda: curve.max_context(bad),
        lambda: curve.max_batch(bad, 1),
    ):
        with pytest.raises(BadConfig, match="expected an integer of 0 or more"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 1"),
        ({"terms": 1}, "terms: 1"),
        ({"terms": [{"kind": "x", "layers": -1, "tensors": [], "slots": 1, "shared": False}]}, "layers: -1"),
        ({"terms": [{"kind": "x", "layers": 1, "tensors": [], "slots": ["pow", 1, 1], "shared": False}]}, "slots"),
        (
            {
                "terms": [
                    {
                        "kind": "x",
                        "layers": 1,
                        "tensors": [],
                        "slots": ["min", "context", ["ceil", "context", 2]],
                        "shared": False,
                    }
                ]
            },
            "minimum of two sides",
        ),
        (
            {"terms": [{"kind": "x", "layers": 1, "tensors": [], "slots": ["mod", 1, 0], "shared": False}]},
            "divide by 0",
        ),
        ({"terms": [{"kind": "x", "layers": 1, "tensors": [["k"]], "slots": 1, "shared": False}]}, "tensors"),
        ({"name": None}, "name: None"),
    ],
)
def test_from_dict_names_what_is_wrong(change: dict[str, Any], message: str) -> None:
    data: dict[str, Any] = {"schema": 1, "name": "m", "engine": "logical", "dtype": "bf16", "terms": [], "notes": []}
    assert MemoryCurve.from_dict(data).bytes(5) == 0
    with pytest.raises(BadConfig, match=message):
        MemoryCurve.from_dict(data | change)


def test_html_repr_escapes_names() -> None:
    term = Term(kind="full attention", layers=1, tensors=(("key", 2),), slots="context")
    curve = MemoryCurve(name="<script>", engine="logical", dtype="bfloat16", terms=(term,))
    page = curve._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "262,144" in page  # 131,072 tokens × 2 B
