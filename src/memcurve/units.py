"""Data types and their bytes, and numbers as people write them."""

from __future__ import annotations

from .base import BadConfig, nearest, show

BYTES = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "int64": 8,
}  # fmt: skip
ALIASES = {
    "fp64": "float64", "double": "float64",
    "fp32": "float32", "f32": "float32", "float": "float32",
    "bf16": "bfloat16",
    "fp16": "float16", "f16": "float16", "half": "float16",
    "fp8": "float8_e4m3fn", "float8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn", "float8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}  # fmt: skip
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64", "float8_e4m3fn": "fp8"}
SUFFIXES = {"k": 1024, "m": 1024**2, "g": 1024**3}

# Longer units first: each ends in the shorter one. The empty one is bytes.
BYTE_UNITS = {
    "TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1, "": 1,
}  # fmt: skip


def dtype_name(value: object, key: str = "dtype") -> str:
    """The full name of a dtype in either spelling: bf16 and torch.bfloat16 are bfloat16."""
    word = value.lower().removeprefix("torch.") if isinstance(value, str) else ""
    name = ALIASES.get(word, word)
    if name in BYTES and name != "int64":
        return name
    hint = nearest(word, [name for name in (*BYTES, *ALIASES) if name != "int64"], 1)
    raise BadConfig(
        f"{key}: {show(value)}; expected one of fp32, bf16, fp16, fp8, int8 or their long names"
        + (f" (nearest: {hint})" if hint else "")
    )


def dtype_bytes(name: str) -> int:
    return BYTES[name]


def parse_count(text: str, what: str = "context") -> int:
    """A count with an optional suffix: 4096, 4k, 1M (k = 1024, M = 1024²); underscores between digits are allowed."""
    word = text.strip().replace("_", "").lower()
    factor = SUFFIXES.get(word[-1:], 1)
    digits = word[:-1] if factor > 1 else word
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise BadConfig(f"{what}: {show(text)}; expected a whole number such as 4096, 128k or 1M (k = 1024, M = 1024²)")
    return int(digits) * factor


def parse_bytes(text: str, what: str = "memory") -> int:
    """Bytes with a unit: 60GiB, 79.6GiB, 8GB (10⁹), 512MiB, or a plain number."""
    from fractions import Fraction

    word = text.strip().replace("_", "").lower()
    for unit, factor in BYTE_UNITS.items():
        if word.endswith(unit.lower()):
            digits = word.removesuffix(unit.lower()).strip()
            whole, _, rest = digits.partition(".")
            if digits.isascii() and (whole + rest).isdigit() and len(digits) <= 18:
                return int(Fraction(digits) * factor)
            break
    raise BadConfig(f"{what}: {show(text)}; expected bytes such as 60GiB, 512MiB or 80GB (10⁹)")


def parse_counts(text: str, what: str = "context") -> list[int]:
    """Counts with commas between them. BadConfig for 1,024, which could be one count or two."""
    words = text.split(",")
    if len(words) > 1 and all(word.isdigit() and len(word) == 3 for word in words[1:]) and words[0].isdigit():
        raise BadConfig(
            f"{what}: {show(text)}; expected {''.join(words)} for one count, or {', '.join(words)} with spaces for {len(words)}"
        )
    return [parse_count(word, what) for word in words]


def show_bytes(count: int) -> str:
    """Bytes for people: exact below 1 KiB, else the largest fitting unit of 1024 with three digits or more."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.2f} {unit}"


def show_count(count: int, word: str) -> str:
    """A number of things: 1 token, 2,048 tokens."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def show_tokens(count: int) -> str:
    """A context for people: 131072 is 128k, 1048576 is 1M, others in full."""
    for factor, suffix in ((1024**2, "M"), (1024, "k")):
        if count and count % factor == 0:
            return f"{count // factor}{suffix}"
    return f"{count:,}"
