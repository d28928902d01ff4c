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
from ..gguf import Metadata, is_gguf
from ..model import Model, load
from ..views.convert import metadata
from . import Outcome, read_config, unrun

PINNED = "0.3.36"
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
# What llama.cpp wants to read of some architectures, and what says nothing of their states: taken where a config.json is asked for.
NEEDED: dict[str, Any] = {
    "vocab_size": 64,
    "feed_forward_length": 96,
    "expert_count": 8,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 32,
    "expert_weights_scale": 1.0,
    "expert_weights_norm": True,
    "expert_gating_func": 2,
    "leading_dense_block_count": 1,
    "embedding_length_per_layer_input": 32,
    "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 32,
    "attention.output_lora_rank": 32,
    "attention.output_group_count": 2,
    "hash_layer_count": 1,
    "swiglu_clamp_exp": 7.0,
    "ssm.time_step_rank": 4,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.group_norm_epsilon": 1e-5,
    "attention.group_norm_groups": 2,
    "attention.clamp_kqv": 1.0,
    "attention.relative_buckets_count": 32,
    "attention.decay_lora_rank": 32,
    "attention.iclr_lora_rank": 32,
    "attention.value_residual_mix_lora_rank": 32,
    "attention.gate_lora_rank": 32,
    "attention.indexer.head_count": 4,
    "attention.indexer.top_k": 64,
    "time_mix_extra_dim": 32,
    "time_decay_extra_dim": 32,
    "use_parallel_residual": True,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
    "rope.dimension_sections": [4, 4, 4, 4],
    "rope.freq_base_swa": 10000.0,
    "attention.compress_rope_freq_base": 10000.0,
    "kda.gate_lower_bound": -5.0,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.sinkhorn_iterations": 2,
    "attn_res.block_size": 2,
    "activation_situ.beta": 1.0,
    "activation_situ.linear_beta": 1.0,
    "activation.situ_beta": 1.0,
    "activation.situ_linear_beta": 1.0,
}
WITHOUT_PREFIX: dict[str, Any] = {
    "xielu.alpha_n": 1.0,
    "xielu.alpha_p": 1.0,
    "xielu.beta": 1.0,
    "xielu.eps": 1.0,
    "tokenizer.ggml.model": "no_vocab",
}
# The parameters of a context, as llama.cpp's defaults have them (flash_attn -1: auto), and what is asked otherwise.
DEFAULTS: dict[str, Any] = {
    "n_ctx": 4096, "n_seq_max": 1, "n_batch": 2048, "n_ubatch": 512, "type_k": "f16", "type_v": "f16", "flash_attn": -1,
    "swa_full": 0, "kv_unified": 0, "n_rs_seq": 0, "ctx_type": 0,
}  # fmt: skip
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"n_ctx": 1000},
    {"n_ctx": 0},
    {"n_ctx": 65536},
    {"n_seq_max": 4},
    {"n_seq_max": 4, "kv_unified": 1},
    {"swa_full": 1},
    {"n_ubatch": 2048},
    {"type_k": "q8_0", "type_v": "q8_0"},
    {"type_k": "q8_0", "type_v": "q4_0", "flash_attn": 1},
    {"type_v": "q8_0", "flash_attn": 0},
    {"flash_attn": 0},
    {"ctx_type": 1},
    {"n_rs_seq": 2},
)
FLASH = {-1: "auto", 0: False, 1: True}
# llama.cpp's K, V, R, S and P, and the states of compressors.
ORDER = ("key", "value", "conv_state", "recurrent_state", "ple_state", "waiting")
OPTIONS = ("type_k", "type_v", "n_batch", "n_ubatch", "n_rs_seq")


# --- llama.cpp's answers ---


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


def ask(model: dict[str, Any] | Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers of a model (metadata, or a GGUF file); one refusal for all where it doesn't open it."""
    with tempfile.TemporaryDirectory() as folder:
        shim, file = Path(folder) / "shim.so", Path(folder) / "model.gguf"
        (Path(folder) / "shim.c").write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), f"{folder}/shim.c"], check=True)
        if isinstance(model, Path):
            file = model.resolve()
        else:
            file.write_bytes(gguf_bytes(model))
        done = subprocess.run(
            [python(), "-P", str(Path(__file__).with_name("llamacpp_worker.py"))],
            input=json.dumps({"file": str(file), "cases": cases}),
            capture_output=True,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(shim)},
            check=False,
        )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not answers or answers[0]["status"] != "loaded":
        said = [line for line in done.stderr.splitlines() if "GGML_" in line] or done.stderr.splitlines()[-1:]
        refused = answers[0] if answers else {"status": "load_aborted", "why": said[:1]}
        return [refused] * len(cases)
    return answers[1:]


def python() -> str:
    return os.environ.get("LLAMA_PYTHON", sys.executable)


def installed() -> str:
    """The version of llama-cpp-python. MissingExtraError where the Python that is asked has none."""
    code = "import llama_cpp; print(llama_cpp.__version__)"
    done = subprocess.run([python(), "-P", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingExtraError(
            f"verify --engine llamacpp needs llama-cpp-python {PINNED} ({' '.join(done.stderr.split()[-6:])}):"
            f" pip install llama-cpp-python=={PINNED}, or name the Python that has it by LLAMA_PYTHON"
        )
    return done.stdout.strip()


def recorded(answer: dict[str, Any]) -> list[Any]:
    """An answer as the file holds it: K, V, R, S, P and other bytes, or why there is no context."""
    if answer["status"] == "ok":
        return [answer[f"{word}_bytes"] for word in ("k", "v", "r", "s", "p", "other_state")]
    why = str((answer.get("why") or [""])[0])
    if ".cpp:" in why:
        # An assertion that failed: without file and line.
        return [why.partition(".cpp:")[2].partition(": ")[2]]
    return [why.removeprefix("llama_init_from_model: ")]


# --- memcurve's answers, and the comparison ---


def curve(model: Model, workload: dict[str, Any]) -> MemoryCurve:
    return model.curve(
        "llamacpp",
        **{name: workload[name] for name in OPTIONS},
        flash_attn=FLASH[workload["flash_attn"]],
        swa_full=bool(workload["swa_full"]),
        kv_unified=bool(workload["kv_unified"]),
        mtp_context=workload["ctx_type"] == 1,
    )


def found(model: Model, workload: dict[str, Any]) -> list[Any]:
    """Bytes per sort of tensor, or why there is no context: memcurve's answer in the form of `recorded`."""
    sizes = workload["n_ctx"], workload["n_seq_max"]
    try:
        answer = curve(model, workload)
        total, rows = answer.bytes(*sizes), answer.breakdown(*sizes)
    except Refused as error:
        return [str(error)]
    held = dict.fromkeys(ORDER, 0)
    for row in rows:
        (name,) = row["tensors"]
        held["waiting" if name.startswith("waiting") else name] += row["bytes"]
    assert total == sum(held.values())
    return list(held.values())


def same(mine: list[Any], theirs: list[Any]) -> bool:
    """Equal bytes; or both refuse, whatever their words."""
    return mine == theirs or len(mine) == len(theirs) == 1


def metadata_of(model: Model) -> dict[str, Any]:
    """The metadata of a config.json, as its converter would write them, with NEEDED beside them."""
    if model.config is None or isinstance(model.config, Metadata):
        raise NotDescribed(f"{model.name}: has no config.json")
    keys = metadata(model.config)
    needed = {f"{keys.architecture}.{name}": value for name, value in NEEDED.items()}
    return {**needed, **WITHOUT_PREFIX, **keys.data}


def compare(subjects: Iterable[str], source: str | None = None) -> Iterator[Outcome]:
    """Per subject (a model type, a catalogue name, a config.json, a GGUF file) what llama.cpp allocates under ASKED."""
    installed()
    for subject in subjects:
        own = os.path.isfile(subject) and is_gguf(subject)
        model = load(subject) if own else load(read_config(subject))
        try:
            asked: dict[str, Any] | Path = Path(subject) if own else metadata_of(model)
            found(model, DEFAULTS)
        except NotDescribed as error:
            yield unrun(subject, error, "refused by memcurve")
            continue
        yield compare_model(subject, model, asked)


def compare_model(name: str, model: Model, asked: dict[str, Any] | Path) -> Outcome:
    workloads = [{**DEFAULTS, **change} for change in ASKED]
    equal, difference = 0, ""
    answers = ask(asked, workloads)
    if answers[0]["status"].startswith("load") and isinstance(asked, dict) and len(found(model, DEFAULTS)) > 1:
        why = RuntimeError(" ".join(answers[0].get("why") or ["no reason given"]))
        return unrun(name, why, "not opened with the metadata that memcurve makes of it")
    for change, workload, answer in zip(ASKED, workloads, answers, strict=True):
        mine, theirs = found(model, workload), recorded(answer)
        equal += same(mine, theirs)
        if not same(mine, theirs) and not difference:
            words = ", ".join(f"{key} {value}" for key, value in change.items()) or "defaults"
            difference = f"{words}: memcurve {mine}, llama.cpp {theirs}"
    return Outcome(name, len(ASKED), equal, None, difference)


# --- recording, in a checkout ---


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    cases_of = importlib.import_module("llamacpp_cases")
    path = ROOT / "tests" / "truth" / "llamacpp.jsonl"
    first, *entries = (json.loads(line) for line in path.read_text().splitlines())
    every = cases_of.workloads(first)
    if asked.add:
        tenth = [[number] for number in range(0, len(every), 10)]
        for name, keys in json.loads(asked.add.read_text()).items():
            entries.append({"model": name, "metadata": keys, "cases": tenth})
    cases = changed = wrong = 0
    for entry in entries:
        if asked.names and not entry["model"].startswith(tuple(asked.names)):
            continue
        keys = cases_of.metadata(entry, first["drawn"])
        answers = ask(keys, [every[number] for number, *_ in entry["cases"]])
        for case, answer in zip(entry["cases"], answers, strict=True):
            number, *before = case
            now, mine = recorded(answer), found(load(keys), every[number])
            case[1:] = now
            cases += 1
            changed += now != before
            if not same(mine, now):
                wrong += 1
                print(f"{entry['model']}: {every[number]}: memcurve {mine}, llama.cpp {now}")
    print(f"{cases} cases asked, {changed} not as recorded; memcurve: {wrong} otherwise")
    if asked.write:
        lines = [first, *entries]
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return int(bool(changed or wrong) and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
