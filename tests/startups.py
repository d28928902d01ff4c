"""Recorded start-ups (truth/startup.jsonl, truth/llamacpp_compute.jsonl) beside what memcurve allows for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memcurve import load
from memcurve.engines.budget import Sizes, budget
from memcurve.sizes import sizes_of

TRUTH = Path(__file__).parent / "truth"
MiB, GiB = 2**20, 2**30
H100 = 85_031_714_816  # bytes that CUDA reports on an H100 of 80 GB: 79.19 GiB
# Llama 3.1 8B's shapes, 8,192 tokens and 1,024 sequences in a batch.
LLAMA = Sizes(hidden=4096, vocabulary=128256, layers=32, heads=32, intermediate=14336, tokens=8192, sequences=1024)


def lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (TRUTH / name).read_text().splitlines()]


def logged(engine: str) -> list[Any]:
    return [line for line in lines("startup.jsonl") if line["engine"] == engine]


def shapes(line: Any) -> Sizes:
    held = dict(line["sizes"])
    if held.pop("vision", False):
        held["vision"] = (24, 1024)
    return Sizes(**held, tokens=line.get("tokens", 0), sequences=line.get("sequences", 0))


def over(engine: str) -> list[float]:
    """By how many GiB each recorded start-up took less than is allowed; negative where it took more. Ascending."""
    kinds = {"vllm": over_vllm, "sglang": over_sglang, "llamacpp": over_llamacpp}
    return sorted(kinds[engine](line) for line in logged(engine))


def over_vllm(line: Any) -> float:
    """Activations and what lies outside PyTorch, or activations and graphs where the engine gave them as one."""
    gpu = {"RTX 3090": "A10"}.get(line["gpu"], line["gpu"])  # both of capability 8.6
    found = budget("vllm", H100, sizes=shapes(line), tp=line["tp"], pp=line["pp"], options={"gpu": gpu})
    mine = {one.name: one.bytes / GiB for one in found}
    if "peak" in line:
        return mine["activations"] + mine["CUDA graphs"] - float(line["peak"])
    took = line["beside"] if "beside" in line else line["activations"] + line["outside"]
    return mine["activations"] + mine["outside PyTorch"] - float(took)


def over_sglang(line: Any) -> float:
    """What is gone before the weights load."""
    found = budget("sglang", round(line["total"] * GiB), sizes=LLAMA, tp=line["tp"])
    return found[0].bytes / GiB - float(line["total"] - line["before"])


def over_llamacpp(line: Any) -> float:
    """The compute buffer."""
    found = budget("llamacpp", H100, sizes=shapes(line), options=line["options"])
    return (found[0].bytes / MiB - float(line["compute"])) / 1024


def compute_ratios() -> list[tuple[float, str]]:
    """llama.cpp's compute buffers as allowed over as its own scheduler reserves them (verify/budget.py), and the model. Ascending."""
    found = []
    for line in lines("llamacpp_compute.jsonl"):
        sizes = sizes_of(load(line["model"]), "llamacpp")
        for options, theirs in line["reserved"]:
            mine = budget("llamacpp", H100, sizes=sizes, options=options)[0].bytes / MiB
            found.append((mine / theirs, str(line["model"])))
    return sorted(found)
