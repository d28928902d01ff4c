"""Speeds of replays within one run, on one core, and how much memory grows with the trace.

    python benchmarks/traces.py [requests]

The trace is made here: lognormal lengths (medians 1,100 and 150 tokens), 50 requests a second. The one with hashes has prompts like Mooncake's, of
a median of 7,500 tokens, nine in ten of which go on from one before by hashes of 512 tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pyarrow import csv

import memcurve
from memcurve.traces.reading import Trace
from memcurve.traces.served import Served
from memcurve.traces.service import service

# Full attention; windows and full attention; states and full attention
MODEL, HYBRIDS = "Qwen/Qwen3-30B-A3B", ("google/gemma-3-27b-it", "Qwen/Qwen3-Next-80B-A3B-Thinking")
GIB = 2**30


def write(path: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    moment = np.datetime64("2023-11-16", "ns") + np.cumsum(rng.exponential(2e7, count)).astype("timedelta64[ns]")
    prompts, outputs = (np.maximum(rng.lognormal(np.log(one), 1, count), 1).astype(int) for one in (1100, 150))
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for text, prompt, output in zip(np.datetime_as_string(moment), prompts, outputs, strict=True):
            file.write(f"{text[:10]} {text[11:27]},{min(prompt, 30_000)},{min(output, 2_000)}\n")


def write_hashes(path: Path, count: int) -> None:
    rng = np.random.default_rng(2)
    chains: list[list[int]] = [[]]
    fresh = 0
    with path.open("w") as file:
        for number in range(count):
            prompt = int(min(rng.lognormal(np.log(7500), 0.7), 100_000)) + 1
            chain = chains[rng.integers(len(chains))] if rng.random() < 0.9 else []
            ids = chain[: prompt // 512]
            ids = ids + list(range(fresh, fresh - (-prompt // 512) - len(ids)))
            fresh += 256
            chains = [*chains[-999:], ids[: prompt // 512]]
            row = {
                "timestamp": number * 30,
                "input_length": prompt,
                "output_length": int(rng.integers(1, 400)),
                "hash_ids": ids,
            }
            file.write(json.dumps(row) + "\n")


def served(path: Path, model: str) -> tuple[int, float]:
    """Requests, and seconds of the scheduler alone."""
    chunks = list(Trace(str(path)).chunks())
    curve = memcurve.load(model).curve("vllm", enable_prefix_caching=True)

    def run() -> None:
        one = Served(curve, service(300_000, None), 100 * GIB, hashes=512)
        for chunk in chunks:
            one.feed(chunk)
        one.finish()

    return sum(map(len, chunks)), seconds(run)


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
        long, short, shared = (Path(folder) / name for name in ("long.csv", "short.csv", "shared.jsonl"))
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
        for name in HYBRIDS:
            queue = seconds(lambda name=name: memcurve.replay(short, name, memory=100 * GIB, prefill_rate=300_000))
            label = f"  {name.partition('/')[2]}"
            print(f"{label:<46} {count // 10 / queue:12,.0f} requests/s (at least 100,000)")
        write_hashes(shared, count // 20)
        for name in (MODEL, *HYBRIDS):
            requests, spent = served(shared, name)
            label = f"  prompts shared by hash: {name.partition('/')[2]}"
            print(f"{label:<46} {requests / spent:12,.0f} requests/s")
        print(f"{'memory of ten times the trace':<46} {peak(long) / peak(short):8.2f} ×  (at most 1.2)")


if __name__ == "__main__":
    main()
