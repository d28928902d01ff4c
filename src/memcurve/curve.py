"""Curves: terms summed, evaluated, inverted, crossed and explained with exact integers (terms.py says what a term is)."""

from __future__ import annotations

from functools import cached_property
from math import lcm

from .base import BadConfig, Record, Refused, TooLarge, show, whole
from .terms import (
    FALLING,
    INT64_MAX,
    SCHEMA,
    Allocator,
    Course,
    Limits,
    Pool,
    Refusal,
    Term,
    compile_expr,
    divides_by_batch,
    expr_data,
    kinks_of,
    period_of,
    put,
    read_expr,
    show_expr,
    uses,
    without_mod,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, overload

    import numpy as np
    from numpy.typing import NDArray

    from .lengths import Lengths
    from .steady import Steady
    from .terms import Expr, Function


class MemoryCurve(Record):
    """Bytes of one model's sequence state under one engine and dtype, as a function of context and batch."""

    name: str
    engine: str
    dtype: str
    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()
    allocator: Allocator | None = None
    limits: Limits | None = None
    refusals: tuple[Refusal, ...] = ()
    course: Course | None = None

    # -- evaluation -------------------------------------------------------------------------------------------

    def _plan(self, minimum: Callable[[Any, Any], Any]) -> tuple[int, int, list[tuple[int, Function, bool]]]:
        # A constant, a slope in T, and what is left: most curves need only the first two.
        weight: dict[tuple[Expr, bool], int] = {}
        for term in self.terms:
            key = (term.slots, term.shared)
            weight[key] = weight.get(key, 0) + term.layers * term.slot_bytes
        slope = weight.pop(("context", False), 0)
        constant = sum(weight.pop(key) * key[0] for key in list(weight) if isinstance(key[0], int) and not key[1])
        rest = [(w, compile_expr(slots, minimum), shared) for (slots, shared), w in weight.items()]
        return constant, slope, rest

    @cached_property
    def _scalar(self) -> tuple[int, int, list[tuple[int, Function, bool]]]:
        return self._plan(min)

    if TYPE_CHECKING:

        @overload
        def bytes(self, context: int, batch: int = 1, encoder_context: int = 0) -> int: ...
        @overload
        def bytes(
            self, context: NDArray[np.integer[Any]], batch: int = 1, encoder_context: int = 0
        ) -> NDArray[np.int64]: ...

    def bytes(self, context: Any, batch: int = 1, encoder_context: int = 0) -> Any:
        """Bytes held by `batch` sequences of `context` tokens each (cross-attention: over `encoder_context` positions).

        An integer for an integer; an int64 array of the same shape for a numpy array of contexts, which raises
        TooLarge (an OverflowError) where a value would not fit. BadConfig for negative or fractional arguments.
        """
        if type(context) is int and type(batch) is int and context >= 0 and batch >= 0 and encoder_context == 0:
            if self.limits is not None:
                context, batch = self.limits.admit(context, batch)
            if self.refusals:
                self._refuse(context, batch)
            constant, slope, rest = self._scalar
            total = (constant + slope * context) * batch
            for weight, slots, shared in rest:
                total += weight * slots(context, batch, 0) * (1 if shared else batch)
            return total
        return self._bytes(context, whole("batch", batch), whole("encoder_context", encoder_context))

    def _bytes(self, context: Any, batch: int, encoder: int) -> Any:
        if not hasattr(context, "ndim") or context.ndim == 0:
            context = whole("context", context)
            if self.limits is not None:
                context, batch = self.limits.admit(context, batch)
            self._refuse(context, batch)
            plan, held = self._scalar, context
        else:
            import numpy as np

            if context.dtype.kind not in "iu":
                raise BadConfig(f"contexts: an array of {context.dtype}; expected an array of integers")
            if context.size == 0:
                return np.zeros(context.shape, np.int64)
            if context.dtype != np.uint64:
                context = context.astype(np.int64, copy=False)
            if context.min() < 0:
                raise BadConfig(f"context: {context.min()}; expected 0 or more tokens")
            if self.limits is not None:
                for least in {int(context.min()), int(np.min(context, where=context > 0, initial=INT64_MAX))}:
                    zero, real = self.limits.admit(least, batch)
                    context = np.where(context == 0, zero, context)
                batch = real
            self._refuse(int(context.max()), batch)
            bound = self._upper(int(context.max()), batch, encoder)
            if bound > INT64_MAX:
                raise TooLarge(
                    f"{self.name}: up to {bound:,} bytes at context {context.max():,}; int64 holds {INT64_MAX:,}"
                )
            plan, held = self._plan(np.minimum), context.astype(np.int64, copy=False)
        constant, slope, rest = plan
        total = (constant + slope * held) * batch
        for weight, slots, shared in rest:
            total = total + weight * slots(held, batch, encoder) * (1 if shared else batch)
        return total

    def _refuse(self, context: int, batch: int) -> None:
        for refusal in self.refusals:
            if refusal.covers(context, batch):
                raise Refused(refusal.why)

    def peak(self, context: int, batch: int = 1) -> int:
        """The most bytes that `batch` sequences hold at any moment on the way to `context` tokens each, where an engine's
        caches grow beyond what they keep, or live twice while they are quantised; else what they hold there.
        """
        held: int = self.bytes(whole("context", context), whole("batch", batch))
        return held if self.course is None else max(held, self.course.peak(context, batch))

    def _upper(self, context: int, batch: int, encoder: int) -> int:
        # No value up to `context` is larger: a remainder is at most its operand, everything else never falls.
        return context + sum(
            term.layers * term.slot_bytes * int(compile_expr(without_mod(term.slots))(context, batch, encoder)) * batch
            for term in self.terms
        )

    # -- shape ------------------------------------------------------------------------------------------------

    @cached_property
    def breakpoints(self) -> tuple[int, ...]:
        """Contexts after which a sequence grows at another rate (a window is full). Between them a straight line, or a staircase."""
        return self.kinks()

    def kinks(self, batch: int = 1, encoder_context: int = 0) -> tuple[int, ...]:
        found = {kink for term in self.terms for kink in kinks_of(term.slots, batch, encoder_context)}
        return tuple(sorted(kink for kink in found if kink > 0))

    @cached_property
    def cap(self) -> int | None:
        """The context from which on more tokens take no more bytes; None where some layer grows without end, or none grows."""
        growing = [term for term in self.terms if term.grows]
        if not growing or not all(uses(term.slots, "min") for term in growing):
            return None
        last = max(self.breakpoints, default=0)
        return None if any(term.grows_after(last) for term in growing) else last

    @property
    def period(self) -> int:
        """After the last breakpoint the curve repeats every so many tokens, one slope higher: 1 is a straight line."""
        return self.period_at(1)

    def period_at(self, batch: int) -> int:
        return lcm(1, *(period_of(term.slots, batch) for term in self.terms))

    def first_context(self, batch: int) -> int:
        """The smallest context that stands for itself and is not refused."""
        if self.limits is None:
            return 0
        least = max(batch, 1) if self.limits.step_in_context else 1
        return 0 if self.limits.zero_context == 0 and least == 1 else least

    def step(self, batch: int = 1) -> int:
        """Tokens of the longest step of its staircase; 1 for a curve without steps."""
        return max((period_of(term.slots, batch) for term in self.terms), default=1)

    @property
    def monotone(self) -> bool:
        """Whether bytes can never fall with context. Only a tail of T mod r can fall, by a bounded amount."""
        return not any(uses(term.slots, word) for term in self.terms for word in FALLING)

    @property
    def formula(self) -> str:
        """The curve as text, with T for context, B for batch and E for the encoder's context."""
        batched = [term.formula for term in self.terms if not term.shared]
        parts = [f"B · ({' + '.join(batched)})"] if batched else []
        return " + ".join(parts + [term.formula for term in self.terms if term.shared]) or "0"

    def at_encoder(self, encoder_context: int) -> MemoryCurve:
        """The curve of context and batch alone, with the encoder's context fixed."""
        size = whole("encoder_context", encoder_context)
        return self.replace(terms=tuple(term.replace(slots=put(term.slots, "encoder", size)) for term in self.terms))

    def per_sequence(self, batch: int) -> MemoryCurve:
        """The curve of each sequence's own context, where an engine has one context that `batch` sequences share out.

        That context is batch times as long; a sequence holds at least one token.
        """
        times: Expr = ("mul", "context", whole("batch", batch, 1))
        terms = tuple(term.replace(slots=put(term.slots, "context", times)) for term in self.terms)
        limits = self.limits
        if limits is not None:
            limits = limits.replace(zero_context="a sequence of no tokens", step_in_context=False)
        return self.replace(terms=terms, limits=limits)

    # -- inverse ----------------------------------------------------------------------------------------------

    def max_context(self, memory_bytes: int, batch: int = 1, encoder_context: int = 0) -> int | None:
        """Largest context that fits: it fits and one more token does not. None where any context fits.

        BadConfig where not even the smallest context fits.
        """
        from .lines import Endless, Lines, last_at_most

        memory_bytes, batch = whole("memory_bytes", memory_bytes), whole("batch", batch)
        encoder = whole("encoder_context", encoder_context)
        first = self.first_context(batch)
        least = self.bytes(first, batch, encoder)
        weights = self.weights(batch)
        over = Lines(weights, -memory_bytes, batch, encoder)
        try:
            last, (slope, low, high) = over.settles(first)
        except Endless:
            raise TooLarge(f"{self.name}: grows by a factor that itself goes up and down; no largest context") from None
        most = min((one.context - 1 for one in self.refusals if batch >= one.batch), default=None)
        if slope == 0 and high <= 0:
            return most
        if slope == 0 and low <= 0:
            # A tail that repeats: does all of it fit, or some?
            end = last + over.period - 1
            under = Lines({slots: -weight for slots, weight in weights.items()}, memory_bytes + 1, batch, encoder)
            if last_at_most(under, last, end) is None:
                return None
            if last_at_most(over, last, end) is not None:
                raise BadConfig(
                    f"{self.name}: fits {memory_bytes:,} bytes at some contexts without end; no largest one"
                )
        found = last_at_most(over, first, last)
        if found is not None and most is not None:
            return min(found, most)
        if found is None:
            least_held = "an empty sequence" if first == 0 else f"a context of {first}"
            raise BadConfig(f"memory_bytes: {memory_bytes:,}; {least_held} of {self.name} already takes {least:,}")
        return found

    def weights(self, batch: int) -> dict[Expr, int]:
        """Bytes of a slot of all layers and sequences, by the expression of their slots."""
        found: dict[Expr, int] = {}
        for term in self.terms:
            size = term.layers * term.slot_bytes * (1 if term.shared else batch)
            found[term.slots] = found.get(term.slots, 0) + size
        return found

    def max_batch(self, memory_bytes: int, context: int, encoder_context: int = 0) -> int | None:
        """Most sequences of `context` tokens that fit: they fit and one more does not. None where any number fits."""
        found = self._most_sequences(whole("memory_bytes", memory_bytes), whole("context", context), encoder_context)
        most = min((one.batch - 1 for one in self.refusals if one.covers(context, one.batch)), default=None)
        return found if most is None else most if found is None else min(found, most)

    def _most_sequences(self, memory_bytes: int, context: int, encoder_context: int) -> int | None:
        def held(batch: int) -> int:
            return self.bytes(context, batch, encoder_context)

        if self.limits is not None:
            # At most some hundreds, and padding can make fewer sequences take more: all are tried.
            context, _ = self.limits.admit(context, 1)
            most = min(self.limits.most_batch, self.limits.step_tokens)
            most = min(most, context) if self.limits.step_in_context and context else most
            fitting = [one for one in range(1, most + 1) if held(one) <= memory_bytes]
            if not fitting:
                raise BadConfig(f"memory_bytes: {memory_bytes:,}; one sequence of {self.name} takes {held(1):,}")
            return fitting[-1]
        if held(0) > memory_bytes:
            raise BadConfig(f"memory_bytes: {memory_bytes:,}; {self.name} takes {held(0):,} before the first sequence")
        if not any(uses(term.slots, "batch") for term in self.terms):
            each = held(1) - held(0)
            return (memory_bytes - held(0)) // each if each else None
        if any(divides_by_batch(term.slots) for term in self.terms):
            raise BadConfig(f"max_batch: {self.name} shares a context out without limits; they say the most sequences")
        low, high = 0, 1
        while held(high) <= memory_bytes:
            low, high = high, high * 2
            if high > INT64_MAX:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if held(middle) <= memory_bytes else (low, middle)
        return low

    def pool(self, memory_bytes: int) -> Pool:
        """What a server makes of so many bytes for its caches: blocks or tokens, state slots, and what they hold.

        BadConfig where the engine makes no pool, Refused where it would not start with so little.
        """
        if self.allocator is None:
            why = (
                "was read from data"
                if self.engine in ("vllm", "sglang")
                else "reserves no pool; engines vllm and sglang do"
            )
            raise BadConfig(f"pool: this curve of engine {self.engine} {why}")
        return self.allocator.pool(whole("memory_bytes", memory_bytes))

    def steady_requests(
        self, memory_bytes: int, *, prompt: Lengths, output: Lengths, requests: int | None = None
    ) -> Steady:
        """How many requests run at once when the engine is kept full, as its scheduler admits and grows them.

        prompt, output: tokens, "lognormal(median,sigma)", or a CSV file. requests: how many wait at the start; without it
        so many that more change nothing. NotDescribed where the engine's scheduler is not described.
        """
        from .steady import steady_requests

        return steady_requests(self.engine, self.allocator, memory_bytes, prompt, output, requests)

    # -- explanation ------------------------------------------------------------------------------------------

    def breakdown(self, context: int, batch: int = 1, encoder_context: int = 0) -> list[dict[str, Any]]:
        """Per term: kind, tensors, layers, slots, bytes per slot, sequences, bytes (they add up to the total), and whether
        it still grows after this context.
        """
        if self.limits is not None:
            context, batch = self.limits.admit(whole("context", context), whole("batch", batch))
        return [
            {
                "kind": term.kind,
                "tensors": [name for name, _ in term.tensors],
                "layers": term.layers,
                "slots": term.slots_at(context, batch, encoder_context),
                "bytes_per_slot": term.slot_bytes,
                "sequences": 1 if term.shared else batch,
                "grows": term.grows_after(context, batch, encoder_context),
                "bytes": term.bytes_at(context, batch, encoder_context),
            }
            for term in self.terms
        ]

    def explain(self, context: int | None = None, batch: int = 1, encoder_context: int = 0) -> str:
        """The curve unfolded to layers × slots × bytes per slot: as formulas, or in numbers at a context."""
        lines = [f"{self.name} · {self.engine} engine · {self.dtype}"]
        if self.limits is not None and context is not None:
            context, batch = self.limits.admit(whole("context", context), whole("batch", batch))
        sizes = (0 if context is None else context, batch, encoder_context)
        growing = [term for term in self.terms if term.grows_after(*sizes)]
        for title, terms in (
            ("grows with context", growing),
            ("full: grows no more", [term for term in self.terms if term.grows and term not in growing]),
            ("constant", [term for term in self.terms if not term.grows]),
        ):
            if terms:
                lines.append(f"  {title}")
            lines += [f"    {term.explain(context, batch, encoder_context)}" for term in terms]
        if not self.terms:
            lines.append("  keeps nothing")
        elif context is not None:
            lines.append(f"  total {self.bytes(context, batch, encoder_context):,} B")
        if self.allocator is not None:
            lines.extend(f"  {line}" for line in self.allocator.explain(context))
        lines.extend(f"  note: {note}" for note in self.notes)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        def row(cells: Iterable[str], tag: str = "td") -> str:
            return (
                "<tr>" + "".join(f"<{tag} style='text-align:left'>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            )

        samples = sorted({1024, 32768, 131072, *self.breakpoints})[:8]
        rows = [row(("kind", "tensors", "layers", "slots", "bytes per slot"), "th")]
        for term in self.terms:
            tensors = ", ".join(name for name, _ in term.tensors)
            rows.append(row((term.kind, tensors, f"{term.layers}", show_expr(term.slots), f"{term.slot_bytes:,}")))
        rows.append(row(("T", *(f"{context:,}" for context in samples)), "th"))
        rows.append(row(("bytes", *(f"{self.bytes(context):,}" for context in samples))))
        title = f"<b>{escape(self.name)}</b> · {escape(self.engine)} · {escape(self.dtype)}"
        return f"{title}<br><code>{escape(self.formula)}</code><table>{''.join(rows)}</table>"

    # -- data -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, object]:
        """The curve as plain JSON data; `from_dict` gives the same curve back, without its allocator and its course."""
        return (
            {
                "schema": SCHEMA,
                "name": self.name,
                "engine": self.engine,
                "dtype": self.dtype,
                "terms": [
                    {
                        "kind": term.kind,
                        "layers": term.layers,
                        "tensors": [[name, size] for name, size in term.tensors],
                        "slots": expr_data(term.slots),
                        "shared": term.shared,
                    }
                    for term in self.terms
                ],
                "notes": list(self.notes),
            }
            | (
                {}
                if self.limits is None
                else {"limits": {name: getattr(self.limits, name) for name in self.limits.fields}}
            )
            | ({"refusals": [one.as_dict() for one in self.refusals]} if self.refusals else {})
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> MemoryCurve:
        """Reads what `to_dict` wrote, checked: BadConfig names the field that is not as expected."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise BadConfig(f"curve: expected a dict with schema {SCHEMA}, as MemoryCurve.to_dict writes it")
        terms = []
        for entry in _field(data, "terms", list):
            if not isinstance(entry, dict):
                raise BadConfig(f"terms: {show(entry)}; expected a dict")
            tensors = []
            for pair in _field(entry, "tensors", list):
                if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                    raise BadConfig(f"tensors: {show(pair)}; expected [name, bytes per slot]")
                tensors.append((pair[0], whole("tensors", pair[1])))
            terms.append(
                Term(
                    kind=_field(entry, "kind", str),
                    layers=whole("layers", entry.get("layers")),
                    tensors=tuple(tensors),
                    slots=read_expr(entry.get("slots")),
                    shared=_field(entry, "shared", bool),
                )
            )
        notes = _field(data, "notes", list)
        if not all(isinstance(note, str) for note in notes):
            raise BadConfig("notes: expected a list of strings")
        limits = None
        if "limits" in data:
            entry = _field(data, "limits", dict)
            zero = entry.get("zero_context")
            limits = Limits(
                zero_context=zero if isinstance(zero, str) else whole("zero_context", zero),
                most_batch=whole("most_batch", entry.get("most_batch"), least=1),
                step_tokens=whole("step_tokens", entry.get("step_tokens")),
                step_in_context=_field(entry, "step_in_context", bool),
                too_many=_field(entry, "too_many", str),
                too_short=_field(entry, "too_short", str),
            )
        refusals = []
        for entry in _field(data, "refusals", list) if "refusals" in data else ():
            if not isinstance(entry, dict):
                raise BadConfig(f"refusals: {show(entry)}; expected a dict")
            sizes = {name: whole(name, entry.get(name)) for name in ("context", "batch")}
            refusals.append(Refusal(why=_field(entry, "why", str), **sizes))
        return cls(
            name=_field(data, "name", str),
            engine=_field(data, "engine", str),
            dtype=_field(data, "dtype", str),
            terms=tuple(terms),
            notes=tuple(notes),
            limits=limits,
            refusals=tuple(refusals),
        )


def crossings(
    a: MemoryCurve, b: MemoryCurve, batch: int = 1, encoder_context: int = 0, *, until: int | None = None
) -> list[int]:
    """Contexts from which the cheaper of two curves is the other one: the first context of each new order.

    Exact. Where two staircases swap places again and again without end, one period of them is listed; with `until`
    every one up to that context. TooLarge where that would take too long.
    """
    return list(order(a, b, batch, encoder_context, until).crossings)


class Order(Record):
    """Which of two curves is cheaper where. first: before the first crossing, -1 for the first curve, 1 for the second, 0
    where both are equal throughout. period: where they swap places without end, the tokens after which it begins anew.
    ties: whether curves that never cross are equal somewhere, from one token on.
    """

    first: int
    crossings: tuple[int, ...]
    period: int | None = None
    ties: bool = False


def order(
    a: MemoryCurve,
    b: MemoryCurve,
    batch: int = 1,
    encoder: int = 0,
    until: int | None = None,
    steps: int | None = None,
) -> Order:
    """The order of two curves over all contexts, or up to one; TooLarge where it takes more than so many steps."""
    from .lines import MAX_STEPS, Endless, Lines, last_at_most, sign_changes

    for curve in (a, b):
        if not isinstance(curve, MemoryCurve):
            raise BadConfig(f"crossings: {show(curve)}; expected two curves, as Model.curve gives them")
    batch, encoder = whole("batch", batch), whole("encoder_context", encoder)
    first = max(a.first_context(batch), b.first_context(batch))
    weights: dict[Expr, int] = {}
    for curve, sign in ((a, 1), (b, -1)):
        curve.bytes(first, batch, encoder)  # refused here, if at all
        for slots, weight in curve.weights(batch).items():
            weights[slots] = weights.get(slots, 0) + sign * weight
    gap = Lines(weights, 0, batch, encoder)
    if until is not None:
        last = end = whole("until", until)
        repeats = False
    else:
        try:
            last, (slope, low, high) = gap.settles(first)
        except Endless:
            raise TooLarge(
                f"crossings of {a.name} and {b.name} have no end; expected a last context (until=, --max_ctx)"
            ) from None
        repeats = slope == 0 and low != high
        end = last + gap.period - 1 if repeats else last
    most = MAX_STEPS if steps is None else steps
    found, start = sign_changes(gap, first, end, most)
    if not found and start:
        # The dearer less the cheaper is zero or less only where they are equal.
        more = Lines({slots: start * weight for slots, weight in weights.items()}, 0, batch, encoder)
        return Order(first=start, crossings=(), ties=last_at_most(more, max(first, 1), end + repeats) is not None)
    again = repeats and bool(found) and found[-1] > last and bool(sign_changes(gap, last, end, most)[0])
    return Order(first=start, crossings=tuple(found), period=gap.period if again else None)


def _field(data: Mapping[str, object], name: str, kind: type) -> Any:
    value = data.get(name)
    if not isinstance(value, kind):
        raise BadConfig(f"{name}: {show(value)}; expected a {kind.__name__}")
    return value
