"""memcurve cross: from which context on which of two takes fewer bytes."""

from __future__ import annotations

from ..base import clean, whole
from ..schema import bytes_of, cross_data
from ..units import show_bytes, show_count
from .shared import ENCODER_HELP, add_engine, count, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from ..crossed import Crossing
    from ..curve import Order
    from ..export import Subject

MAX_SAID = 12  # crossings of a pair that are said one by one


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subjects",
        nargs="+",
        metavar="SUBJECT",
        help="what `plot` takes, with @engine=…,dtype=…,label=… after it for that one; of more than two, all pairs",
    )
    flag(parser, "batch", type=count, default=1, help="sequences (default: 1)")
    flag(parser, "encoder_context", type=count, help=ENCODER_HELP)
    flag(
        parser, "max_ctx", type=count, help="largest context looked at; k and M are 1024-based (default: all that are)"
    )
    add_engine(parser, "bf16 for patterns, else the config's own")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: schema, batch, subjects, pairs, and every crossing with context, cheaper, dearer and their bytes",
    )


def run(arguments: argparse.Namespace) -> None:
    from ..crossed import compare_all
    from .plot import all_subjects

    batch = whole("batch", arguments.batch, 1)
    subjects = all_subjects(arguments, {})
    pairs = compare_all(subjects, batch, arguments.max_ctx)
    if arguments.json:
        import json

        print(json.dumps(cross_data(subjects, pairs, batch)))
        return
    until = "" if arguments.max_ctx is None else f" · up to {show_count(arguments.max_ctx, 'token')}"
    for index, (a, b, order, crossed) in enumerate(pairs):
        print(("\n" if index else "") + f"{clean(a.name)} and {clean(b.name)} · batch {batch:,}{until}")
        for line in sentences(a, b, order, crossed, batch):
            print(f"  {clean(line)}")


def sentences(a: Subject, b: Subject, order: Order, crossed: Sequence[Crossing], batch: int) -> Iterator[str]:
    """How two subjects compare, in words."""
    if order.first == 0:
        yield "take the same at every context"
        return
    cheaper = a if order.first < 0 else b
    if not crossed:
        if order.ties:
            yield f"{cheaper.name} never takes more; at some contexts both take the same"
        else:
            yield f"{cheaper.name} is cheaper at every context"
        return
    yield f"below {show_count(crossed[0].context, 'token')} {cheaper.name} is cheaper"
    said = crossed if len(crossed) <= MAX_SAID else crossed[: MAX_SAID - 2]
    for one in said:
        yield sentence(one, batch)
    if len(said) < len(crossed):
        rest = len(crossed) - len(said)
        yield f"then they change places {rest:,} more times, the last of them being (--json lists all)"
        yield sentence(crossed[-1], batch)
    if order.period is not None:
        yield f"and so on without end: the same again every {order.period:,} tokens"


def sentence(one: Crossing, batch: int) -> str:
    fewer, more = bytes_of(one.cheaper, one, batch), bytes_of(one.dearer, one, batch)
    return f"from {show_count(one.context, 'token')} on {one.cheaper.name} is cheaper: {fewer:,} B ({show_bytes(fewer)}) against {more:,} B"
