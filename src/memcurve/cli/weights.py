"""memcurve weights: what a checkpoint's parameters take, by dtype and part."""

from __future__ import annotations

from ..base import clean
from ..units import show_bytes
from .shared import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="a .safetensors or .gguf file, an index, a folder, or a hub id (org/name, org/name:Q4_K_M, org/name:FILE)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: schema, source, bytes, parameters, by_dtype, by_part, notes"
    )


def run(arguments: argparse.Namespace) -> None:
    from ..checkpoint.sources import weights

    found = weights(arguments.source)
    if arguments.json:
        import json

        print(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "source": found.source,
                    "bytes": found.bytes,
                    "parameters": found.parameters,
                    "tensors": len(found.tensors),
                    "by_dtype": found.by_dtype,
                    "by_part": found.by_part,
                    "notes": list(found.notes),
                }
            )
        )
        return
    print(f"{clean(found.source)} · {len(found.tensors):,} tensors · {found.parameters:,} numbers")
    print(f"{found.bytes:,} bytes ({show_bytes(found.bytes)})")
    for title, sizes in (("by dtype", found.by_dtype), ("by part", found.by_part)):
        print(title)
        for word, size in sizes.items():
            print(f"  {clean(word):<12} {size:>22,}  {show_bytes(size):>11}  {size / max(found.bytes, 1):>6.1%}")
    for note in found.notes:
        print(f"note: {clean(note)}")
