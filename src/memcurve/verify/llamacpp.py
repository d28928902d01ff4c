"""Asks llama.cpp itself what it allocates, and compares: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), a C compiler, Linux.

    memcurve verify --engine llamacpp SUBJECT...               # catalogue names, config.json paths, model types, GGUF files
    python -m memcurve.verify.llamacpp                         # in a checkout: every case of tests/truth/llamacpp.jsonl again
    python -m memcurve.verify.llamacpp llama jamba             # only the models whose names begin so
    python -m memcurve.verify.llamacpp --write                 # writes the file anew
    python -m memcurve.verify.llamacpp --add models.json       # records models of {name: GGUF metadata} as well, each under every tenth workload

Models are GGUF files of metadata alone, opened with no_alloc, so that no weights are needed. llama.cpp names every
tensor of its caches with ggml_format_name; a few lines of C, loaded before it, write down name and bytes. Each context
is made in a process of its own, since some combinations abort. LLAMA_PYTHON names the Python that has llama-cpp-python,
if that is another one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..base import MissingExtraError, NotDescribed, Refused
from ..curve import MemoryCurve
from ..gguf import Metadata
from ..model import Model, load
from . import Outcome, read_config, unrun

PINNED = "0.3.36 (llama.cpp 0c1e57098)"
STUBBED = (
    "stubbed: weights (none are read), and what says nothing of state in the metadata of a config.json (NEEDED).\n"
    "A config.json is turned into metadata by memcurve's own mapping of llama.cpp's converter; a GGUF file is opened as it is."
)
ROOT = Path(__file__).resolve().parents[3]  # in a checkout
SHIM = r"""
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void * ggml_format_name(void * tensor, const char * format, ...) {
    char name[128];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    void * base = dlopen(getenv("GGML_BASE"), RTLD_NOW);
    const char * path = getenv("CACHE_TENSORS");
    if (path && !strchr(name, 32) && (!strncmp(name, "cache_", 6) || !strncmp(name, "dsv4_", 5))) {
        FILE * file = fopen(path, "a");
        fprintf(file, "%s %zu\n", name, ((size_t (*)(void *)) dlsym(base, "ggml_nbytes"))(tensor));
        fclose(file);
    }
    return ((void * (*)(void *, const char *)) dlsym(base, "ggml_set_name"))(tensor, name);
}
"""
WIDE = ("ple.layer_multipliers", "ple.head_offsets", "ple.head_vocab_sizes")


def gguf_bytes(metadata: dict[str, Any]) -> bytes:
    """A GGUF v3 file of metadata alone: whole numbers as uint32 (int32 below zero), those of the n-gram hash as uint64."""

    def string(text: str) -> bytes:
        data = text.encode()
        return struct.pack("<Q", len(data)) + data

    def kind(value: Any, key: str) -> tuple[int, str]:
        if isinstance(value, bool):
            return 7, "<?"
        if isinstance(value, float):
            return 6, "<f"
        if isinstance(value, str):
            return 8, ""
        return (10, "<Q") if key.endswith(WIDE) else (5, "<i") if value < 0 else (4, "<I")

    def plain(value: Any, form: str) -> bytes:
        return struct.pack(form, value) if form else string(value)

    out = [b"GGUF", struct.pack("<IQQ", 3, 0, len(metadata))]
    for key, value in metadata.items():
        out.append(string(key))
        if isinstance(value, list):
            code, form = kind(min(value) if value and isinstance(value[0], int) else value[0] if value else 0, key)
            out.append(struct.pack("<IIQ", 9, code, len(value)))
            out.extend(plain(item, form) for item in value)
        else:
            code, form = kind(value, key)
            out.append(struct.pack("<I", code) + plain(value, form))
    return b"".join(out)

def recorded(answer: dict[str, Any]) -> list[Any]:
    """An answer as the file holds it: K, V, R, S, P and other bytes, or why there is no context."""
    if answer["status"] == "ok":
        return [answer[f"{word}_bytes"] for word in ("k", "v", "r", "s", "p", "other_state")]
    why = str((answer.get("why") or [""])[0])
    if ".cpp:" in why:
        # An assertion that failed: without file and line.
        return [why.partition(".cpp:")[2].partition(": ")[2]]
    return [why.removeprefix("llama_init_from_model: ")]
