"""Accelerators by name, and the memory that an engine on one reckons with; gpus.toml has the figures, each with its source."""

from __future__ import annotations

from functools import cache

from .base import BadConfig, Record, nearest, show
from .units import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VENDORS = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "google": "Google", "apple": "Apple"}
# Words of a full name that tell no two devices apart.
IGNORED = {*VENDORS, "geforce", "tesla", "quadro", "instinct", "radeon", "gpu", "graphics", "rtx"}
APPLE_NOTE = "as macOS sets it; sudo sysctl iogpu.wired_limit_mb=MiB sets another"


class Gpu(Record):
    """A device as a process on it sees it: one die, tile or chip where a card has several.

    memory_bytes: the device's total, from which engines reckon (`gpu_memory_utilization` is a share of it).
    memory_from: "driver", as its driver reported it, or "data sheet". reported_by: who prints it, such as CUDA or Metal;
    nvidia-smi prints up to 3 % more than CUDA. driver_bytes: the total of nvidia-smi where it differs. unified_bytes: the
    memory of a machine whose CPU and GPU share it, of which memory_bytes is what a process may have of it on the GPU.
    capability: NVIDIA's compute capability.
    """

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str
    memory_bytes: int
    memory_from: str
    reported_by: str
    source: str
    driver_bytes: int | None = None
    unified_bytes: int | None = None
    capability: tuple[int, int] | None = None
    note: str = ""


def gpu(name: str) -> Gpu:
    """The device of a name or an alias, in any case and order of words: "H100", "A100-SXM4-80GB", "M4 Max 128GB".

    BadConfig for a name that several devices or sizes share (A100, M4 Max), which names them, and for an unknown one.
    """
    asked = words(name) if isinstance(name, str) else frozenset()
    if asked in by_words():
        return by_words()[asked]
    several = [one.name for one in table() if asked and any(asked < words(form) for form in forms(one))]
    if several:
        more = f" and {len(several) - 8} more" if len(several) > 8 else ""
        raise BadConfig(f"gpu: {show(name)}; not a device alone; expected one of {', '.join(several[:8])}{more}")
    known = {form: one.name for one in table() for form in forms(one)}
    hint = nearest(name, list(known), 1) if isinstance(name, str) else ""
    raise BadConfig(
        f"gpu: {show(name)}; expected a name of memcurve gpus" + (f" (nearest: {known[hint]})" if hint else "")
    )


def names() -> tuple[str, ...]:
    """All devices, in the order of the table."""
    return tuple(one.name for one in table())


@cache
def table() -> tuple[Gpu, ...]:
    """All devices. Reads gpus.toml, once."""
    import os
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "gpus.toml"), "rb") as file:
        data = tomllib.load(file)
    rows = [read(row, vendor) for vendor in VENDORS if vendor != "apple" for row in data[vendor]]
    return (
        *rows,
        *(mac(row["chip"], size, data["metal"][str(size)]) for row in data["apple"] for size in row["sizes"]),
    )


def read(row: dict[str, Any], vendor: str) -> Gpu:
    """A row of the table of a vendor."""
    capability = row.get("capability")
    return Gpu(
        name=row["name"],
        aliases=tuple(row["aliases"]),
        vendor=VENDORS[vendor],
        memory_bytes=parse_bytes(row["memory"]),
        memory_from="data sheet" if row["by"] == "data sheet" else "driver",
        reported_by=row["by"],
        source=row["source"],
        driver_bytes=parse_bytes(row["driver"]) if "driver" in row else None,
        unified_bytes=parse_bytes(row["unified"]) if "unified" in row else None,
        capability=(int(capability.split(".")[0]), int(capability.split(".")[1])) if capability else None,
        note=row.get("note", ""),
    )


def mac(chip: str, size: int, metal: dict[str, str]) -> Gpu:
    """A Mac with `size` GiB, by what Metal gives a process of that size."""
    return Gpu(
        name=f"{chip} {size}GB",
        vendor="Apple",
        memory_bytes=parse_bytes(metal["memory"]),
        memory_from="driver",
        reported_by="Metal",
        source=metal["source"],
        unified_bytes=size * 2**30,
        note=APPLE_NOTE,
    )


@cache
def by_words() -> dict[frozenset[str], Gpu]:
    return {words(form): one for one in table() for form in forms(one)}


def forms(one: Gpu) -> tuple[str, ...]:
    return (one.name, *one.aliases)


def words(name: str) -> frozenset[str]:
    """What tells a device apart: its words without the vendor's, sizes as 80gb, RTX 4090 and RTX4090 as 4090."""
    found: list[str] = []
    for word in "".join(char if char.isalnum() else " " for char in name[:200].lower()).split():
        if word in ("g", "gb", "gib") and found and found[-1].isdigit():
            found[-1] += "gb"
        elif word.endswith(("g", "gb", "gib")) and word.rstrip("gib").isdigit():
            found.append(word.rstrip("gib") + "gb")
        else:
            found.append(word.removeprefix("rtx") or word)
    return frozenset(found) - IGNORED
