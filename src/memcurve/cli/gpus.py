"""memcurve gpus: the accelerators known by name, and the memory that an engine on one reckons with."""

from __future__ import annotations

from ..units import show_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..gpus import Gpu


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one device, such as H100, 'RTX 4090' or M4-Max-128G (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    from .. import gpus

    found = gpus.table() if arguments.name is None else (gpus.gpu(arguments.name),)
    if arguments.json:
        import json

        from ..schema import gpus_data

        print(json.dumps(gpus_data(found)))
    elif arguments.name is None:
        print(f"{'device':<25} {'memory in bytes':>16} {'':>11}  {'reported by':<11} source")
        for one in found:
            size = f"{one.memory_bytes:>16,} {show_bytes(one.memory_bytes):>11}"
            print(f"{one.name:<25} {size}  {one.reported_by:<11} {one.source}")
        print(f"{len(found)} devices; a process sees the memory that CUDA, HIP, SYCL or Metal reports")
    else:
        print_one(found[0])


def print_one(one: Gpu) -> None:
    """All that is known of a device."""
    print(f"{one.vendor} {one.name}" + (f" (also: {', '.join(one.aliases)})" if one.aliases else ""))
    print(f"  memory      {one.memory_bytes:,} bytes ({show_bytes(one.memory_bytes)}), by {one.reported_by}")
    if one.driver_bytes is not None:
        print(f"  nvidia-smi  {one.driver_bytes:,} bytes ({show_bytes(one.driver_bytes)})")
    if one.unified_bytes is not None:
        share = one.memory_bytes / one.unified_bytes
        print(f"  unified     {one.unified_bytes:,} bytes ({show_bytes(one.unified_bytes)}), {share:.1%} of it above")
    if one.capability is not None:
        print(f"  capability  {one.capability[0]}.{one.capability[1]}")
    if one.note:
        print(f"  note        {one.note}")
    print(f"  source      {one.source}")
