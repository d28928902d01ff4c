"""Lengths of requests: one number, a distribution in words, or a column of a CSV file.

    4096                   every request
    lognormal(1024,0.8)    median 1,024 tokens, sigma of the logarithm 0.8; rounded, at least 1
    requests.csv           the column of prompts or of outputs, row by row, again from the start when all are used

Distributions are drawn by `random.Random` of the standard library with a fixed seed, so that a number can be had again.
"""

from __future__ import annotations

import math
import random

from .base import BadConfig, BadFile, Record, show, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Lengths = int | str | Path

# Names of columns as traces have them, in lower case.
COLUMNS = {
    "prompt": (
        "prompt",
        "prompt_tokens",
        "prompt_len",
        "input",
        "input_tokens",
        "input_length",
        "contexttokens",
        "request tokens",
        "num_prefill_tokens",
    ),
    "output": (
        "output",
        "output_tokens",
        "output_len",
        "output_length",
        "generatedtokens",
        "response tokens",
        "num_decode_tokens",
    ),
}
MOST_ROWS = 10_000_000
MOST_SIGMA = 10.0
# The largest length that is drawn: far beyond any model's.
LONGEST = 1 << 40


class Lognormal(Record):
    """exp of a normal distribution with mean log(median)."""

    median: float
    sigma: float

    def draw(self, seed: str) -> Iterator[int]:
        """Lengths without end, the same for the same seed."""
        source = random.Random(f"memcurve {seed}")
        while True:
            yield min(max(1, round(source.lognormvariate(math.log(self.median), self.sigma))), LONGEST)


def lognormal(name: str, text: str) -> Lognormal:
    """Reads "lognormal(median,sigma)"."""
    numbers = text[len("lognormal(") : -1].split(",") if text.endswith(")") else []
    try:
        median, sigma = (float(number) for number in numbers)
        if not (1 <= median <= LONGEST and 0 <= sigma <= MOST_SIGMA):
            raise ValueError
    except ValueError:
        raise BadConfig(
            f"{name}: {show(text)}; expected lognormal(median,sigma), a median of 1 or more tokens and a sigma of 0 to "
            f"{MOST_SIGMA:g}, such as lognormal(1024,0.8)"
        ) from None
    return Lognormal(median=median, sigma=sigma)


def lengths(name: str, given: Lengths) -> tuple[Iterator[int], int | None]:
    """The lengths without end, and how many there are before they repeat; None where they are drawn. `name` is prompt or output."""
    if isinstance(given, int) or hasattr(given, "__index__"):
        return _again([whole(name, given, 1)]), 1
    text = str(given).strip()
    if text.isdecimal() and len(text) < 16:
        return _again([whole(name, int(text), 1)]), 1
    if text.lower().startswith("lognormal("):
        return lognormal(name, text.lower()).draw(name), None
    rows = column(name, text)
    return _again(rows), len(rows)


def _again(rows: list[int]) -> Iterator[int]:
    while True:
        yield from rows


def column(name: str, path: str) -> list[int]:
    """A column of a CSV file: by its name in the first line, or, without names, the first is prompts and the second outputs."""
    import csv

    found: list[int] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            first = [cell.strip().lower() for cell in next(rows, [])]
            index = next((first.index(one) for one in COLUMNS[name] if one in first), None)
            if index is None:
                index = 0 if name == "prompt" else 1
                if len(first) != 2 or not all(cell.isdecimal() for cell in first):
                    raise BadFile(
                        f"{name}: {show(path)} has the columns {show(', '.join(first))}; expected one named {name}, or two of "
                        "numbers, prompts and outputs"
                    )
                found.append(_length(name, path, 1, first[index]))
            for number, row in enumerate(rows, 2):
                if row:
                    found.append(_length(name, path, number, row[index] if index < len(row) else ""))
                if len(found) > MOST_ROWS:
                    raise BadFile(f"{name}: {show(path)} has more than {MOST_ROWS:,} rows")
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(
            f"{name}: {show(path)}: {show(str(error))}; expected a number of tokens, lognormal(median,sigma) or a CSV file"
        ) from None
    if not found:
        raise BadFile(f"{name}: {show(path)} has no row")
    return found


def _length(name: str, path: str, line: int, cell: str) -> int:
    text = cell.strip()
    if not (text.isdecimal() and 0 < len(text) < 16):
        raise BadFile(f"{name}: {show(path)} line {line}: {show(cell)}; expected a number of tokens")
    return int(text)
