"""What commands share: subjects, engines and their options, as words of a command line."""

from __future__ import annotations

import os

from ..base import BadConfig, show
from ..units import parse_bytes, parse_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from ..model import Model

SCHEMA = 1
SEED_DTYPES = "fp32, bf16, fp16, fp8, int8"
ENCODER_HELP = (
    "positions of the encoder's output, or of the image, that cross-attention keeps (default: Whisper's 1500, else 0)"
)


def flag(parser: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """An option under its name with underscores and with hyphens."""
    names = [f"--{name}"] if "_" not in name else [f"--{name}", f"--{name.replace('_', '-')}"]
    parser.add_argument(*names, dest=name, **options)


def count(text: str) -> int:
    try:
        return parse_count(text)
    except BadConfig as error:
        import argparse

        raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from None


def add_engine(parser: argparse.ArgumentParser, default_dtype: str) -> None:
    parser.add_argument(
        "--engine",
        default="logical",
        help="whose memory: logical (the paper's count), transformers, vllm, sglang, llamacpp, mlx, or all (default: logical)",
    )
    parser.add_argument("--dtype", help=f"{SEED_DTYPES}, or a long name (default: {default_dtype})")
    add_options(
        parser,
        "such as state_dtype=bf16 (logical), max_cache_len=4096 (transformers), tensor_parallel_size=2 (vllm), kv_bits=4 (mlx)",
    )


def add_options(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "-O", "--option", action="append", default=[], metavar="KEY=VALUE", help=f"an engine's own option: {text}"
    )


def number(text: str, key: str) -> int | float:
    """A count, or a fraction such as 0.5."""
    whole, point, rest = text.partition(".")
    return float(text) if point and (whole + rest).isdigit() else parse_count(text, key)


def engine_options(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs: counts as `--context` takes them, true, false, none, or words; engine, dtype and label are words."""
    found: dict[str, Any] = {}
    words: dict[str, Any] = {"true": True, "false": False, "on": True, "off": False, "none": None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadConfig(f"option {show(pair)}: expected KEY=VALUE")
        if key in ("engine", "dtype", "label"):
            found[key] = value
        else:
            read = parse_bytes if key.endswith("_bytes") else number
            found[key] = read(value, key) if value[:1].isdigit() else words.get(value.lower(), value)
    return found


def subject_model(text: str, sizes: dict[str, Any]) -> Model:
    from ..model import load

    if "/" not in text and not os.path.exists(text):
        from ..patterns import is_pattern, pattern

        if is_pattern(text):
            return pattern(text, dtype="bf16", **sizes)
    return load(text)


def read_log(path: str) -> str:
    """The text of a start-up log; of standard input for -."""
    import sys

    from ..logs import MAX_LOG

    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_LOG + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_LOG + 1)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or error}; expected a log file") from None
    if len(data) > MAX_LOG:
        raise BadConfig(f"{path}: larger than {MAX_LOG:,} bytes; expected the log of a start")
    return data.decode("utf-8", "replace")
