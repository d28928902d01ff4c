"""Memory as data: a sum of terms in closed form, evaluated, inverted, crossed and explained with exact integers.

    bytes(T, B, E) = sum over terms of  layers * bytes_per_slot * slots(T, B, E) * (B, or 1 where all sequences share)

T is the context (tokens held per sequence), B the batch (sequences), E the encoder's context.

`slots` is a tiny expression of integers: a number, one of "context", "batch", "encoder", or ("op", a, b) with the
operations below. It prints as a formula, goes to JSON as nested lists, and means the same for Python integers and
for numpy arrays:

    add a+b   mul a*b   min   past max(a-b, 0)   floor a//b   ceil -(-a//b)   mod a%b
    rows  of a buffer that got a tokens in pieces of b, the last alone, and grows by whole 256s (buffers.py)

What divides is a number, or "batch" times a number (which counts as one sequence where there is none). past and rows
have a number on their right.
"""

from __future__ import annotations

from math import lcm

from .base import BadConfig, NotDescribed, Record, Refused, show, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeAlias

    Expr: TypeAlias = int | str | tuple[str, "Expr", "Expr"]
    # What requests of a pool share: its name, how much there is, and what a request takes, by its context.
    Share: TypeAlias = tuple[str, int, Expr]
    Function: TypeAlias = Callable[[Any, Any, Any], Any]

SCHEMA = 1
VARIABLES = ("context", "batch", "encoder")
OPERATIONS = ("add", "mul", "min", "past", "floor", "ceil", "mod", "rows")
DIVISIONS = ("floor", "ceil", "mod")
FALLING = ("mod", "rows")  # what more context can make less
INT64_MAX = 2**63 - 1


def compile_expr(expr: Expr, minimum: Callable[[Any, Any], Any] = min) -> Function:
    """The expression as a function of (context, batch, encoder), for integers or, with `numpy.minimum`, for arrays."""
    if isinstance(expr, int):
        return lambda T, B, E: expr
    if isinstance(expr, str):
        return {"context": lambda T, B, E: T, "batch": lambda T, B, E: B, "encoder": lambda T, B, E: E}[expr]
    op, left, right = expr
    a, b = compile_expr(left, minimum), compile_expr(right, minimum)
    if op == "add":
        return lambda T, B, E: a(T, B, E) + b(T, B, E)
    if op == "mul":
        return lambda T, B, E: a(T, B, E) * b(T, B, E)
    if op == "min":
        return lambda T, B, E: minimum(a(T, B, E), b(T, B, E))
    if op == "past":
        return lambda T, B, E: (held := a(T, B, E)) - minimum(held, right)
    if op == "rows":
        from .buffers import rows

        assert isinstance(right, int)
        piece = right
        return lambda T, B, E: rows(a(T, B, E), piece)
    if not isinstance(right, int):
        b = compile_expr(right)
        divisor: Function = lambda T, B, E: b(T, B + (B == 0), E)  # noqa: E731
    else:
        divisor = b
    if op == "floor":
        return lambda T, B, E: a(T, B, E) // divisor(T, B, E)
    if op == "ceil":
        return lambda T, B, E: -(-a(T, B, E) // divisor(T, B, E))
    return lambda T, B, E: a(T, B, E) % divisor(T, B, E)


def uses(expr: Expr, word: str) -> bool:
    """Whether a variable or an operation stands in the expression."""
    return expr == word or (isinstance(expr, tuple) and (expr[0] == word or uses(expr[1], word) or uses(expr[2], word)))


def show_expr(expr: Expr) -> str:
    """The expression as people write it: T, min(T, 4095), ⌈T/256⌉."""
    if not isinstance(expr, tuple):
        return {"context": "T", "batch": "B", "encoder": "E"}.get(
            str(expr), f"{expr:,}" if isinstance(expr, int) else ""
        )
    op, left, right = expr
    # Sums, remainders and quotients of sums are told apart by brackets.
    loose = {"add": (), "min": (), "past": (), "rows": (), "mul": ("add", "mod"), "mod": ("add", "mod", "mul")}.get(
        op, ("add", "mod")
    )
    tight = (*loose, "mul") if op in DIVISIONS else loose
    a, b = (
        f"({show_expr(side)})" if isinstance(side, tuple) and side[0] in words else show_expr(side)
        for side, words in ((left, loose), (right, tight))
    )
    return {
        "add": f"{a} + {b}",
        "mul": f"{a}·{b}",
        "min": f"min({a}, {b})",
        "past": f"max({a} − {b}, 0)",
        "rows": f"rows({a}, {b})",
        "floor": f"⌊{a}/{b}⌋",
        "ceil": f"⌈{a}/{b}⌉",
        "mod": f"{a} mod {b}",
    }[op]


def read_expr(data: object, depth: int = 0) -> Expr:
    if isinstance(data, int) and not isinstance(data, bool) and 0 <= data <= INT64_MAX:
        return data
    if isinstance(data, str) and data in VARIABLES:
        return data
    if isinstance(data, list) and len(data) == 3 and data[0] in OPERATIONS and depth < 16:
        op, left, right = str(data[0]), read_expr(data[1], depth + 1), read_expr(data[2], depth + 1)
        if op in DIVISIONS and not divides(right):
            raise BadConfig(f"slots: can't divide by {show(data[2])}; expected a positive integer, or one times batch")
        if op in ("past", "rows") and not (isinstance(right, int) and right >= (op == "rows")):
            raise BadConfig(f"slots: {op} {show(data[2])}; expected a positive integer on its right")
        if op == "mul" and _unbounded(left) and _unbounded(right):
            raise BadConfig("slots: a product of two sides that grow with context; expected one of them bounded")
        if op == "min" and uses(left, "context") and uses(right, "context"):
            raise BadConfig("slots: a minimum of two sides with context; expected one of them without")
        return (op, left, right)
    raise BadConfig(f"slots: {show(data)}; expected an integer, one of {', '.join(VARIABLES)}, or [op, a, b]")


def divides(expr: Expr) -> bool:
    if isinstance(expr, tuple):
        return expr[0] == "mul" and divides(expr[1]) and divides(expr[2])
    return expr == "batch" or (isinstance(expr, int) and expr > 0)


def divides_by_batch(expr: Expr) -> bool:
    """Whether sequences share something out, so that more of them can take less."""
    if not isinstance(expr, tuple):
        return False
    return (expr[0] in DIVISIONS and uses(expr[2], "batch")) or divides_by_batch(expr[1]) or divides_by_batch(expr[2])


def _unbounded(expr: Expr) -> bool:
    slots = compile_expr(without_mod(expr))
    return bool(slots(INT64_MAX, 1, 1) > slots(INT64_MAX // 2**20, 1, 1))


def expr_data(expr: Expr) -> object:
    return [expr[0], expr_data(expr[1]), expr_data(expr[2])] if isinstance(expr, tuple) else expr


class Term(Record):
    """`layers` equal layers that each keep the same tensors over the same slots.

    tensors: (name, bytes per slot) of one layer and one sequence; slots: how many slots at (T, B, E);
    shared: one copy serves all sequences of the batch.
    """

    kind: str
    layers: int
    tensors: tuple[tuple[str, int], ...]
    slots: Expr
    shared: bool = False

    @property
    def slot_bytes(self) -> int:
        return sum(size for _, size in self.tensors)

    @property
    def grows(self) -> bool:
        """Whether more context can mean more bytes."""
        return uses(self.slots, "context")

    @property
    def formula(self) -> str:
        slots = "" if self.slots == 1 else f"{show_expr(self.slots)} × "
        if isinstance(self.slots, tuple) and self.slots[0] in ("add", "mod"):
            slots = f"({show_expr(self.slots)}) × "
        return f"{self.layers} × {slots}{self.slot_bytes:,} B"

    def grows_after(self, context: int, batch: int = 1, encoder_context: int = 0) -> bool:
        """Whether tokens beyond `context` can still mean more bytes: no longer once a window is full."""
        if not self.grows:
            return False
        slots = compile_expr(without_mod(self.slots))
        return bool(slots(max(context, INT64_MAX), batch, encoder_context) > slots(context, batch, encoder_context))

    def explain(self, context: int | None = None, batch: int = 1, encoder_context: int = 0) -> str:
        """kind (tensors): layers × slots × bytes per slot, as a formula or in numbers at a context."""
        number = self.slots if context is None else self.slots_at(context, batch, encoder_context)
        slots = show_expr(number)
        text = f"{self.kind} ({', '.join(name for name, _ in self.tensors)}): {self.layers} {_plural('layer', self.layers)}"
        text += f" × {slots} {_plural('slot', number)} × {self.slot_bytes:,} B"
        if context is None:
            return text
        text += "" if batch == 1 or self.shared else f" × {batch:,} sequences"
        return f"{text} = {self.bytes_at(context, batch, encoder_context):,} B"

    def slots_at(self, context: int, batch: int = 1, encoder_context: int = 0) -> int:
        sizes = whole("context", context), whole("batch", batch), whole("encoder_context", encoder_context)
        return int(compile_expr(self.slots)(*sizes))

    def bytes_at(self, context: int, batch: int = 1, encoder_context: int = 0) -> int:
        slots = self.slots_at(context, batch, encoder_context)
        return self.layers * self.slot_bytes * slots * (1 if self.shared else batch)


def collect_terms(kept: Iterable[tuple[str, tuple[tuple[str, int], ...], Expr]]) -> tuple[Term, ...]:
    """One term for all layers that keep the same; `kept` yields (kind, tensors, slots) per layer. Nothing kept, no term."""
    count: dict[tuple[str, tuple[tuple[str, int], ...], Expr], int] = {}
    for key in kept:
        count[key] = count.get(key, 0) + 1
    return tuple(
        Term(kind=kind, layers=layers, tensors=tensors, slots=slots)
        for (kind, tensors, slots), layers in count.items()
        if any(size for _, size in tensors) and slots != 0
    )


def scarcest(shares: Iterable[Share], context: int) -> tuple[int, str] | None:
    """How many requests of so many tokens there is enough of everything for, and of what first not."""
    found = [
        (have // each, name) for name, have, slots in shares if (each := int(compile_expr(slots)(context, 1, 0))) > 0
    ]
    return min(found, key=lambda limit: limit[0], default=None)


class Allocator(Record):
    """How a serving engine cuts memory into the pool that requests share. Each such engine has its own."""

    def pool(self, memory_bytes: int) -> Pool:
        """The pool made of so many bytes."""
        raise NotImplementedError

    def most_requests(self, memory_bytes: int, context: int) -> tuple[int, str]:
        """How many requests of so many tokens run at once in so many bytes, and what keeps one more out."""
        return scarcest(self.shares(memory_bytes), context) or (INT64_MAX, "nothing")

    def shares(self, memory_bytes: int) -> Sequence[Share]:
        """What requests share in a pool of so many bytes. Refused where the engine would not start."""
        return self.pool(memory_bytes).shares

    def filled(self) -> Sequence[tuple[str, int, Expr]] | None:
        """What a request's tokens and states really fill of its reservation, where more is reserved: (kind, bytes, slots)."""
        return None

    def bounds(self) -> dict[str, tuple[str, int]]:
        """What the engine's own settings bound: of "context" and "batch" the setting's name and the most it allows."""
        raise NotImplementedError

    def split(self) -> Sequence[tuple[tuple[Term, ...], Allocator]] | None:
        """Terms and allocator of each pipeline stage, where the layers of all stages are grouped together."""
        return None

    def explain(self, context: int | None) -> list[str]:
        """Lines that say how the engine lays the layers out, and at a context what of the reservation is padding."""
        raise NotImplementedError

    def limited(self, context: int) -> Allocator:
        """The same with its longest request set, where the engine starts only if that one fits."""
        return self

    def longest_request(self) -> int:
        """Tokens of the longest request that the engine takes, prompt and output together."""
        raise NotDescribed("how these pools are shared by requests is not described")

    def serve(self, memory_bytes: int, requests: Sequence[tuple[int, int]]) -> Served:
        """Runs the engine's scheduler over requests of (prompt, output) tokens that all wait at the start."""
        raise NotDescribed("how these pools are shared by requests is not described")


def filled_data(allocator: Allocator | None) -> list[list[object]] | None:
    """What tokens and states really fill of what a pool reserves: [kind, bytes, slots]; none where all of it."""
    filled = None if allocator is None else allocator.filled()
    return None if filled is None else [[kind, size, expr_data(slots)] for kind, size, slots in filled]


class Served(Record):
    """What a run of an engine's scheduler came to, from the first step to the last.

    running: the most requests at once. mean: requests at once on average over the steps between the first end of a request and
    the last admission; `running` where nothing waited by then. preemptions: how often a request was put back. steps: of the scheduler.
    used: per resource the most that was in use, and how much there is. bound_by: what kept the next request out, at most of those
    steps: blocks, tokens, state slots, or the option that limits; "requests" where all ran at once. pessimistic: how many requests of
    `longest` tokens, the most that one may have, the engine reckons with.
    """

    running: int
    mean: float
    preemptions: int
    steps: int
    used: tuple[tuple[str, int, int], ...]
    bound_by: str
    pessimistic: float | None
    longest: int


class Pool(Record):
    """What comes of an amount of memory; each engine that pools adds its own counts."""

    pool_bytes: int

    @property
    def units(self) -> int:
        """Blocks or tokens in it, of which the fewest of all pipeline stages count."""
        raise NotImplementedError

    @property
    def shares(self) -> Sequence[Share]:
        """What its requests share; nothing where the counts say all."""
        return ()

    def binding(self, context: int) -> tuple[int, str] | None:
        """How many requests of so many tokens run at once, and what keeps one more out; None where the counts say all."""
        return scarcest(self.shares, whole("context", context, 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; None for a count without an end."""
        return {name: None if value == float("inf") else value for name, value in self.as_dict().items()}


class Limits(Record):
    """Sizes that an engine does not take as they stand.

    zero_context: the context that one of 0 stands for, or why it is refused. No sequences count as one; more than
    most_batch are refused as too_many, and more than step_tokens as too_short, or, with step_in_context, than the context.
    """

    zero_context: int | str
    most_batch: int
    step_tokens: int
    step_in_context: bool
    too_many: str
    too_short: str

    def admit(self, context: int, batch: int) -> tuple[int, int]:
        """The context and the batch that the engine goes by. Refused where it would."""
        if batch > self.most_batch:
            raise Refused(self.too_many)
        if context == 0:
            if isinstance(self.zero_context, str):
                raise Refused(self.zero_context)
            context = self.zero_context
        if (batch or 1) > (min(context, self.step_tokens) if self.step_in_context and context else self.step_tokens):
            raise Refused(self.too_short)
        return context, batch or 1


class Refusal(Record):
    """What an engine raises with so many tokens and sequences, from the first numbers to the last; None: without end."""

    why: str
    context: int = 0
    last_context: int | None = None
    batch: int = 0
    last_batch: int | None = None

    def covers(self, context: int, batch: int) -> bool:
        return _within(context, self.context, self.last_context) and _within(batch, self.batch, self.last_batch)


def read_limits(entry: Mapping[str, object]) -> Limits:
    zero = entry.get("zero_context")
    return Limits(
        zero_context=zero if isinstance(zero, str) else whole("zero_context", zero),
        most_batch=whole("most_batch", entry.get("most_batch"), least=1),
        step_tokens=whole("step_tokens", entry.get("step_tokens")),
        step_in_context=field(entry, "step_in_context", bool),
        too_many=field(entry, "too_many", str),
        too_short=field(entry, "too_short", str),
    )


def read_refusal(entry: object) -> Refusal:
    if not isinstance(entry, dict):
        raise BadConfig(f"refusals: {show(entry)}; expected a dict")
    sizes: dict[str, Any] = {name: whole(name, entry.get(name)) for name in ("context", "batch")}
    for name in ("last_context", "last_batch"):
        sizes[name] = None if entry.get(name) is None else whole(name, entry[name])
    return Refusal(why=field(entry, "why", str), **sizes)


def field(data: Mapping[str, object], name: str, kind: type) -> Any:
    """A field of a curve's data. BadConfig where it is not of its kind."""
    value = data.get(name)
    if not isinstance(value, kind):
        raise BadConfig(f"{name}: {show(value)}; expected a {kind.__name__}")
    return value


def _within(number: int, first: int, last: int | None) -> bool:
    return number >= first and (last is None or number <= last)


class Course(Record):
    """How an engine's memory goes up and down on the way to a context."""

    def peak(self, context: int, batch: int) -> int:
        """The most bytes held at any moment until so many tokens are in the cache."""
        raise NotImplementedError


class Kept(Record):
    """What an engine makes of a model's layers.

    dtype: the curve's, where the engine's options say it instead of the model's dtype. course: where more is held on the
    way to a context than at it.
    """

    terms: tuple[Term, ...]
    dtype: str | None = None
    notes: tuple[str, ...] = ()
    allocator: Allocator | None = None
    limits: Limits | None = None
    refusals: tuple[Refusal, ...] = ()
    course: Course | None = None


def _plural(word: str, count: Expr) -> str:
    return word if count == 1 else f"{word}s"


def without_mod(expr: Expr) -> Expr:
    """An expression that never falls, and is nowhere less."""
    if not isinstance(expr, tuple):
        return expr
    if expr[0] == "rows":
        return ("add", without_mod(expr[1]), spare(expr[2]))
    return without_mod(expr[1]) if expr[0] == "mod" else (expr[0], without_mod(expr[1]), without_mod(expr[2]))


def spare(piece: Expr) -> int:
    """No fewer rows than a buffer can have beyond its tokens: a piece that is not full, and two steps."""
    assert isinstance(piece, int)
    return piece + 2 * 256


def put(expr: Expr, variable: str, value: Expr) -> Expr:
    """The expression with something in a variable's place."""
    if isinstance(expr, tuple):
        return (expr[0], put(expr[1], variable, value), put(expr[2], variable, value))
    return value if expr == variable else expr


def period_of(expr: Expr, batch: int) -> int:
    if not isinstance(expr, tuple) or not uses(expr, "context"):
        return 1
    period = lcm(period_of(expr[1], batch), period_of(expr[2], batch))
    if expr[0] == "rows":
        from .buffers import growth

        assert isinstance(expr[2], int)
        return lcm(period, growth(expr[2]).period)
    return period * int(compile_expr(expr[2])(0, batch or 1, 0)) if expr[0] in DIVISIONS else period


def kinks_of(expr: Expr, batch: int, encoder: int) -> set[int]:
    """Contexts at which a `min` or `past` in the expression changes sides: the last one at which the growing side is the smaller."""
    if not isinstance(expr, tuple):
        return set()
    found = kinks_of(expr[1], batch, encoder) | kinks_of(expr[2], batch, encoder)
    if expr[0] in ("min", "past") and uses(expr, "context"):
        left, right = compile_expr(expr[1]), compile_expr(expr[2])

        def side(context: int) -> bool:
            return bool(left(context, batch, encoder) >= right(context, batch, encoder))

        first, low, high = side(0), 0, 1
        while high <= INT64_MAX and side(high) == first:
            low, high = high, high * 2
        if high <= INT64_MAX:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if side(middle) == first else (low, middle)
            found.add(high)
    return found
