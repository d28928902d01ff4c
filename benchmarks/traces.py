"""Speeds of replays within one run, on one core, and how much memory grows with the trace.

    python benchmarks/traces.py [requests]

The trace is made here: lognormal lengths (medians 1,100 and 150 tokens), 50 requests a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pyarrow import csv

import memcurve
from memcurve.traces.reading import Trace

MODEL = "Qwen/Qwen3-30B-A3B"
GIB = 2**30


def write(path: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    moment = np.datetime64("2023-11-16", "ns") + np.cumsum(rng.exponential(2e7, count)).astype("timedelta64[ns]")
    prompts, outputs = (np.maximum(rng.lognormal(np.log(one), 1, count), 1).astype(int) for one in (1100, 150))
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for text, prompt, output in zip(np.datetime_as_string(moment), prompts, outputs, strict=True):
            file.write(f"{text[:10]} {text[11:27]},{min(prompt, 30_000)},{min(output, 2_000)}\n")


def seconds(call: object) -> float:
    """Of the process's CPU, the least of three: other processes share the machine."""
    assert callable(call)
    found = []
    for _ in range(3):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def peak(path: Path) -> int:
    """KiB of a process that replays a trace."""
    code = f"import memcurve, resource; memcurve.replay({str(path)!r}, {MODEL!r}); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.csv", Path(folder) / "short.csv"
        write(long, count)
        write(short, count // 10)
        memcurve.replay(short, MODEL, memory=100 * GIB, prefill_rate=300_000)  # compiles
        memcurve.replay(short, MODEL)
        reading = seconds(lambda: sum(len(chunk) for chunk in Trace(str(long)).chunks()))
        one = csv.ReadOptions(use_threads=False)
        arrow = seconds(lambda: csv.read_csv(long, one))
        demand = seconds(lambda: memcurve.replay(long, MODEL))
        queue = seconds(lambda: memcurve.replay(short, MODEL, memory=100 * GIB, prefill_rate=300_000))
        print(f"{'read / as pyarrow reads it':<46} {reading / arrow:8.2f} ×  ({count / reading:,.0f} requests/s)")
        print(f"{'demand, reading included':<46} {count / demand:12,.0f} requests/s (at least 1,000,000)")
        print(f"{'with a queue, reading included':<46} {count // 10 / queue:12,.0f} requests/s (at least 100,000)")
        print(f"{'memory of ten times the trace':<46} {peak(long) / peak(short):8.2f} ×  (at most 1.2)")


if __name__ == "__main__":
    main()
