"""Asks vLLM itself: its planning code on a CPU, for a few settings of each config (vllm_recorder says what is stubbed)."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ..base import MemcurveError, MissingExtraError
from ..model import load
from . import Outcome, find_source, read_config, unrun
from . import vllm_recorder as recorder

__all__ = ["PINNED", "STUBBED", "compare", "installed"]

PINNED = "0.33.0"
STUBBED = (
    "stubbed: the GPU (an H100), compiled kernels, process groups, tokenizers and weights; model classes, layer specs, grouping "
    "and planning are vLLM's."
)
# What is asked about a config.
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"tensor_parallel_size": 2},
    {"enable_prefix_caching": False},
    {"kv_cache_dtype": "fp8"},
)
_version = "?"


def installed() -> str:
    """The version that was asked."""
    return _version


def compare(subjects: Iterable[str], source: str | None = None) -> Iterator[Outcome]:
    """Per subject (a model type, a catalogue name, a config.json) what vLLM's planning and memcurve make of it."""
    global _version
    folder = find_source("vllm", source)
    if folder is None:
        found = importlib.util.find_spec("vllm")
        if found is None or found.origin is None:
            raise MissingExtraError(
                "verify --engine vllm needs vllm 0.33.0 (vllm): install it, or give --source DIR with its wheel unpacked"
            )
        folder, _version = str(Path(found.origin).parents[1]), metadata.version("vllm")
    else:
        _version = next((path.name.split("-")[1] for path in Path(folder).glob("vllm-*.dist-info")), PINNED)
    for subject in subjects:
        config = read_config(subject)
        load(config)
        yield compare_config(subject, config, folder)


def compare_config(name: str, config: dict[str, Any], folder: str) -> Outcome:
    try:
        load(config).curve("vllm")
    except MemcurveError as error:
        return unrun(name, error, "refused by memcurve")
    jobs = [{"id": f"{name} {index}", "config": config, "options": options} for index, options in enumerate(ASKED)]
    try:
        rows = recorder.recorded(folder, jobs)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        raise MissingExtraError(
            f"verify --engine vllm: vLLM does not import here ({said[-1] if said else error})"
        ) from None
    if all("error" in row for row in rows):
        return Outcome(name, 0, 0, None, f"can't be run: {' '.join(str(rows[0]['error']).split())[:160]}")
    pairs = [(job, row) for job, row in zip(jobs, rows, strict=True) if "error" not in row]
    found = ["; ".join(recorder.differences(job, row)[:1]) for job, row in pairs]
    return Outcome(name, len(found), found.count(""), None, next(filter(None, found), ""))
