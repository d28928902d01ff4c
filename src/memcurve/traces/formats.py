"""Formats of traces: which columns hold a request's time and lengths, and exact values of them.

    Azure LLM inference    TIMESTAMP,ContextTokens,GeneratedTokens         dates with up to nine decimals
                           (github.com/Azure/AzurePublicDataset)
    BurstGPT               Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type          seconds
                           (github.com/HPMLL/BurstGPT); newer files have Session ID and Elapsed time as well
    Mooncake               {"timestamp": ms, "input_length", "output_length", "hash_ids": [one for each 512 tokens]}
                           (github.com/kvcache-ai/Mooncake)
    anything else          a CSV file with a header, or lines of JSON, with columns of names that lengths.COLUMNS and
                           TIMES know, or that are given

Times are integers of nanoseconds, cut after the ninth decimal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal, InvalidOperation

from ..base import BadConfig, BadFile, Record, nearest, show
from ..lengths import COLUMNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
TIMES = (
    "timestamp", "time", "arrival", "arrival_time", "arrived_at", "arrival_timestamp", "request_time", "start_time", "ts",
)  # fmt: skip
ELAPSED = ("elapsed time", "elapsed_time", "elapsed", "latency", "e2e_latency")
HASHES = "hash_ids"
HASH_TOKENS = 512
# The most tokens of a prompt or an output: beyond any model's context.
MOST_TOKENS = 2**24
MOST_NS = 2**62
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROLES = ("time", "prompt", "output", "elapsed")


class Columns(Record):
    """Where a trace has what. name: of the format. Of each role the column's name, None where there is none; unit: nanoseconds of
    one unit of a time that is a number. hashes: of the prefix, one for each so many tokens; 0 where there are none."""

    name: str
    time: str
    prompt: str
    output: str
    elapsed: str | None = None
    unit: int = 10**9
    hashes: int = 0


class BrokenLine(ValueError):
    """Why a line is no request."""


def columns_of(header: Sequence[str], asked: str | None, path: str, json: bool) -> Columns:
    """The columns of a trace by its header, or the keys of its first line, and by what is asked: time=…,prompt=…,output=…,unit=ms."""
    given = read_columns(asked)
    found: dict[str, str | None] = {}
    for role, names in (
        ("time", TIMES),
        ("prompt", COLUMNS["prompt"]),
        ("output", COLUMNS["output"]),
        ("elapsed", ELAPSED),
    ):
        found[role] = given.get(role) or find(header, names)
        if role in given and given[role] not in header:
            hint = nearest(given[role], list(header), 1)
            raise BadConfig(
                f"columns: {role}={show(given[role])}; {path} has {show(', '.join(header))}"
                + (f" (nearest: {hint})" if hint else "")
            )
        if found[role] is None and role != "elapsed":
            raise BadFile(
                f"{path}: columns {show(', '.join(header))}; expected one for the {role}, such as {names[0]}: name it by "
                f"columns={role}=NAME"
            )
    time = str(found["time"])
    name = format_of(header, json)
    hashes = HASH_TOKENS if json and HASHES in header else 0
    unit = given.get("unit") or ("ms" if name == "mooncake" else unit_in(time))
    return Columns(
        name=name, time=time, prompt=str(found["prompt"]), output=str(found["output"]), elapsed=found["elapsed"],
        unit=NANOSECONDS[unit], hashes=hashes,
    )  # fmt: skip


def read_columns(asked: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, (asked or "").split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not value or key not in (*ROLES, "unit"):
            raise BadConfig(f"columns: {show(pair)}; expected time=NAME,prompt=NAME,output=NAME,unit=s (or ms, us, ns)")
        if key == "unit" and value not in NANOSECONDS:
            raise BadConfig(f"columns: unit={show(value)}; expected one of {', '.join(NANOSECONDS)}")
        found[key] = value
    return found


def find(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The column with the first of these names, with or without a unit behind it (arrival_ms)."""
    plain = {name.strip().lower(): name for name in reversed(header)}
    short = {key.rpartition("_")[0]: name for key, name in plain.items() if key.rpartition("_")[2] in NANOSECONDS}
    return next((known[name] for known in (plain, short) for name in names if name in known), None)


def unit_in(name: str) -> str:
    """Seconds, or what the name of a column ends in."""
    ending = name.strip().lower().rpartition("_")[2]
    return ending if ending in NANOSECONDS and "_" in name else "s"


def format_of(header: Sequence[str], json: bool) -> str:
    names = {name.strip().lower() for name in header}
    if json:
        return "mooncake" if {"timestamp", "input_length", "output_length"} <= names else "json lines"
    if {"timestamp", "contexttokens", "generatedtokens"} <= names:
        return "azure"
    if {"timestamp", "request tokens", "response tokens"} <= names:
        return "burstgpt"
    return "csv"


# -- values -----------------------------------------------------------------------------------------------------------


def decimal(text: str) -> Decimal | None:
    """The number that a text says, of bounded length; None for anything else."""
    try:
        return Decimal(text) if len(text) < 64 else None
    except InvalidOperation:
        return None


def tokens(role: str, value: Any, least: int) -> int:
    """A number of tokens: an integer, or one written with a fraction of zero. BrokenLine for anything else."""
    number = decimal(value.strip()) if isinstance(value, str) else value
    if isinstance(number, Decimal) and number.is_finite() and number.copy_abs() < MOST_NS and number == int(number):
        number = int(number)
    if type(number) is not int:
        raise BrokenLine(f"{role}: {told(value)}; expected a number of tokens")
    if not least <= number <= MOST_TOKENS:
        raise BrokenLine(f"{role}: {told(value)}; expected {least} to {MOST_TOKENS:,} tokens")
    return number


def nanoseconds(role: str, value: Any, unit: int) -> int:
    """A time: a number of units, or a date. BrokenLine for anything else, and for one that int64 does not hold."""
    number = value
    if isinstance(value, str):
        text = value.strip()
        number = date(role, text) if "-" in text[1:5] and "e" not in text.lower() else decimal(text)
        unit = 1 if isinstance(number, int) else unit
    if type(number) is int:
        number *= unit
    elif isinstance(number, Decimal) and number.is_finite() and number.copy_abs() < MOST_NS:
        number = int((number * unit).to_integral_value(rounding=ROUND_FLOOR))
    else:
        raise BrokenLine(f"{role}: {told(value)}; expected a date or a number")
    if not -MOST_NS < number < MOST_NS:
        smaller = next((name for name, size in NANOSECONDS.items() if abs(number) // unit * size < MOST_NS), None)
        hint = f"; if it is {smaller}: columns=unit={smaller}" if smaller else ""
        raise BrokenLine(f"{role}: {told(value)}; expected the years 1824 to 2116, or fewer than 146 years{hint}")
    return number


def told(value: Any) -> str:
    return show(str(value).strip()[:60])


def date(role: str, text: str) -> int:
    """2023-11-16 18:17:03.9799600 with up to nine decimals, without a zone in UTC."""
    head, point, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat(head + rest[len(digits) :])
    except ValueError:
        raise BrokenLine(f"{role}: {show(text)}; expected a date such as 2023-11-16 18:17:03.9799600") from None
    if point and not digits:
        raise BrokenLine(f"{role}: {show(text)}; expected digits after the point")
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return (moment - EPOCH) // timedelta(seconds=1) * 10**9 + int(f"{digits[:9]:0<9}")
