"""Sweeps against the script's functions, against Polars, and by workers: ratios of paired runs, for machines that are shared.

python benchmarks/sweeps.py [runs]          # Polars wanted: pip install polars
python benchmarks/sweeps.py memory 1e8      # one sweep of so many points in a process of its own: time, rate, peak memory
python benchmarks/sweeps.py dask            # time by workers, and what 10^11 points would cost
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from baseline_plot import attention, delta

import memcurve
from memcurve.arrays import evaluate
from memcurve.sweeps.files import Place, begin, write_chunk
from memcurve.sweeps.spec import resolve

RUN = """
import json, resource, sys, time
from memcurve.sweeps.run import sweep
if __name__ == "__main__":
    spec, output, processes, dask = json.loads(sys.argv[1])
    start = time.perf_counter()
    sweep(spec, output, processes=processes, dask=dask)
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def spec_of(points: int) -> dict[str, Any]:
    """Three mixes under two engines, over contexts and 1 to 1,024 sequences: 6 curves."""
    contexts = max(1, points // (6 * 1024))
    return {
        "subjects": "{n}gdn:1mha",
        "sizes": {"n": [1, 3, 7]},
        "engines": ["logical", "vllm"],
        "contexts": {"from": 16, "to": 16 * contexts, "step": 16},
        "batches": {"from": 1, "to": 1024},
    }


def separate(
    spec: dict[str, Any], folder: str, processes: int = 1, dask: str | None = None
) -> tuple[float, float, float]:
    """Seconds of a sweep in a process of its own, its core seconds (of all processes, start included), and its peak in MiB."""
    path = Path(folder) / "run.py"
    path.write_text(RUN)
    output = os.path.join(folder, f"{time.monotonic_ns()}.parquet")
    words = json.dumps([spec, output, processes, dask])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, str(path), words], check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, peak = map(float, done.stdout.split())
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def script() -> None:
    """Points of the 3 : 1 mix by arrays against the script's own two functions, called as it calls them."""
    curve = memcurve.pattern("3gdn:1mha", dtype="bf16", conv_kernel=0).curve(state_dtype="bf16")
    contexts, batches = np.arange(128, 131_072, 64)[:, None], np.arange(1, 1025)[None, :]
    few = range(128, 131_072, 100)
    pairs = []
    for _ in range(7):
        ours = timeit.timeit(lambda: evaluate(curve, contexts, batches), number=1) / contexts.size / batches.size
        theirs = timeit.timeit(
            lambda: [attention(1, t, 2048, 12.0, 2, 16) + delta(1, 2048, 36.0, 2, 16) for t in few], number=20
        )
        pairs.append((ours, theirs / 20 / len(few)))
    assert int(evaluate(curve, contexts[:1], batches[:, :1])[0][0, 0]) == attention(1, 128, 2048, 12.0, 2, 16) + delta(
        1, 2048, 36.0, 2, 16
    )
    ratio, (a, b) = median(b / a for a, b in pairs), (1e9 * median(side) for side in zip(*pairs, strict=True))
    print(
        f"{'the script’s functions / points evaluated':<58} {ratio:6.0f} ×  (at least 100; {b:.0f} ns against {a:.2f} ns)"
    )


def polars(runs: int) -> None:
    """Chunks evaluated, encoded and on the disk against Polars writing the same columns, which it has in memory."""
    import polars as pl

    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = resolve(spec_of(3 * 2**21))
        place = Place(os.path.join(folder, "out.parquet"))
        begin(place, spec)
        write_chunk(place.parts, 0)
        frame = pl.read_parquet(place.part(0))
        pairs = []
        for number in range(runs):
            start = time.perf_counter()
            write_chunk(place.parts, number % spec.chunks)
            middle = time.perf_counter()
            frame.write_parquet(os.path.join(folder, "polars.parquet"))
            pairs += [(middle - start, time.perf_counter() - middle)]
        sizes = [os.path.getsize(path) for path in (place.part(0), os.path.join(folder, "polars.parquet"))]
    ratio, (a, b) = (
        median(a / b for a, b in pairs),
        (1e9 * median(side) / frame.height for side in zip(*pairs, strict=True)),
    )
    print(
        f"{'a sweep’s rows written / the same by Polars, one thread':<58} {ratio:6.2f} ×  (at most 3; {a:.0f} ns against {b:.0f} ns "
        f"a row, {sizes[0]:,} B against {sizes[1]:,} B)"
    )


def processes(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_of(10**8)
        pairs = [(separate(spec, folder), separate(spec, folder, 2)) for _ in range(runs)]
    ratio = median(one[0] / two[0] for one, two in pairs)
    (a, alone), (b, both) = ([median(run[i] for run in side) for i in (0, 1)] for side in zip(*pairs, strict=True))
    print(
        f"{'one process / two, 10^8 points':<58} {ratio:6.2f} ×  (at least 1.7; {a:.1f} s against {b:.1f} s; "
        f"{alone:.1f} core seconds against {both:.1f})"
    )


def on_dask() -> None:
    spec = spec_of(10**8)
    points = resolve(spec).points
    with tempfile.TemporaryDirectory() as folder:
        used = 0.0
        for workers in (1, 2):
            seconds, used, _ = separate(spec, folder, workers, "local")
            print(
                f"dask, {workers} worker{'s' * (workers > 1)}: {points:,} points in {seconds:.1f} s, {used:.1f} core seconds"
            )
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet") if path.is_file()) / 2 / points
    hours = 1e11 * used / points / 3600
    print(f"10^11 points: {hours:.1f} core hours, {1e11 * size / 1e9:.0f} GB in {-(-(10**11) // 2**21):,} files")


def memory(points: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds, used, peak = separate(spec_of(points), folder)
        points = resolve(spec_of(points)).points
        print(
            f"{points:,} points: {seconds:.1f} s, {used:.1f} core seconds, {used / points * 1e9:.0f} ns each, peak {peak:.0f} MiB"
        )


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["memory"]:
        memory(int(float(words[1])))
    elif words[:1] == ["dask"]:
        on_dask()
    else:
        runs = int(words[0]) if words and re.fullmatch(r"\d+", words[0]) else 7
        script()
        polars(runs)
        processes(max(3, runs // 3))


if __name__ == "__main__":
    main()
