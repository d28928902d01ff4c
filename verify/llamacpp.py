"""Asks llama.cpp itself what it allocates, and compares: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), a C compiler, Linux.

    python verify/llamacpp.py                    asks again for every case of tests/truth/llamacpp.jsonl, and compares
    python verify/llamacpp.py llama jamba        only for the models whose names begin so
    python verify/llamacpp.py --write            writes the file anew
    python verify/llamacpp.py --add models.json  records models of {name: GGUF metadata} as well, each under every tenth workload

Models are GGUF files of metadata alone, opened with no_alloc, so that no weights are needed. llama.cpp names every
tensor of its caches with ggml_format_name; a few lines of C, loaded before it, write down name and bytes. Each context
is made in a process of its own, since some combinations abort. LLAMA_PYTHON names the Python that has llama-cpp-python,
if that is another one.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
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


def worker() -> None:
    """In a process of its own, with the shim loaded: metadata and cases on stdin, one answer per line on stdout."""
    import ctypes

    import llama_cpp

    asked = json.load(sys.stdin)
    log: list[str] = []
    libraries = Path(llama_cpp.__file__).parent / "lib"
    os.environ["GGML_BASE"] = str(libraries / "libggml-base.so")

    @llama_cpp.llama_log_callback
    def keep_log(level: int, text: bytes, _: Any) -> None:
        if level >= 3:
            log.append(text.decode(errors="replace").strip())

    llama_cpp.llama_log_set(keep_log, None)
    llama_cpp.llama_backend_init()

    class InitParams(ctypes.Structure):
        _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

    base = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libllama.so"))
    load = library.llama_model_init_from_user
    load.restype = ctypes.c_void_p
    load.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, llama_cpp.llama_model_params]
    params = llama_cpp.llama_model_default_params()
    params.no_alloc, params.load_mtp = True, True
    metadata = base.gguf_init_from_file(asked["file"].encode(), InitParams(True, None))
    setter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda tensor, data: None)
    model = load(metadata, ctypes.cast(setter, ctypes.c_void_p), None, params)
    if not model:
        print(json.dumps({"status": "load_refused", "why": log[-3:]}), flush=True)
        return
    print(json.dumps({"status": "loaded"}), flush=True)
    for case in asked["cases"]:
        with tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                os.dup2(errors.fileno(), 2)
                answer(llama_cpp, model, case, log)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                errors.seek(0)
                said = errors.read().decode(errors="replace").splitlines()
                why = [line for line in said if "GGML_" in line][:1] or said[-1:]
                print(json.dumps({"status": "aborted", "signal": status, "why": why}), flush=True)


def answer(llama_cpp: Any, model: Any, case: dict[str, Any], log: list[str]) -> None:
    """One context: the bytes of its cache tensors by kind, or why there is none."""
    log.clear()
    handle, path = tempfile.mkstemp()
    os.close(handle)
    os.environ["CACHE_TENSORS"] = path
    params = llama_cpp.llama_context_default_params()
    for name in ("n_ctx", "n_seq_max", "n_batch", "n_ubatch", "n_rs_seq", "ctx_type"):
        setattr(params, name, case[name])
    params.type_k, params.type_v = TYPES[case["type_k"]], TYPES[case["type_v"]]
    params.flash_attn_type = case["flash_attn"]
    params.swa_full, params.kv_unified = bool(case["swa_full"]), bool(case["kv_unified"])
    import ctypes

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libllama.so"))
    library.llama_init_from_model.restype = ctypes.c_void_p
    library.llama_init_from_model.argtypes = [ctypes.c_void_p, llama_cpp.llama_context_params]
    context = library.llama_init_from_model(model, params)
    found = dict.fromkeys(("k_bytes", "v_bytes", "r_bytes", "s_bytes", "p_bytes", "other_state_bytes"), 0)
    for line in Path(path).read_text().splitlines():
        name, size = line.split()
        word = name.removeprefix("cache_").removeprefix("idx_")
        kind = "other_state" if name.startswith("dsv4_") else "p" if word.startswith("ple_") else word[0]
        found[f"{kind}_bytes"] += int(size)
    os.unlink(path)
    if context:
        print(json.dumps({"status": "ok", **found, "total_bytes": sum(found.values())}), flush=True)
    else:
        print(json.dumps({"status": "context_refused", "why": log[-1:]}), flush=True)


def ask(metadata: dict[str, Any], cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers for each case; the same refusal for all where it doesn't open the model."""
    with tempfile.TemporaryDirectory() as folder:
        shim, file = Path(folder) / "shim.so", Path(folder) / "model.gguf"
        (Path(folder) / "shim.c").write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), f"{folder}/shim.c"], check=True)
        file.write_bytes(gguf_bytes(metadata))
        done = subprocess.run(
            [os.environ.get("LLAMA_PYTHON", sys.executable), __file__, "--worker"],
            input=json.dumps({"file": str(file), "cases": cases}),
            capture_output=True,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(shim)},
            check=False,
        )
        print(done.stderr[:1500], file=sys.stderr)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not answers or answers[0]["status"] != "loaded":
        said = [line for line in done.stderr.splitlines() if "GGML_" in line]
        refused = answers[0] if answers else {"status": "load_aborted", "why": said[:1]}
        return [refused] * len(cases)
    return answers[1:]


def recorded(answer: dict[str, Any]) -> list[Any]:
    """An answer as the file holds it: K, V, R, S, P and other bytes, or why there is no context."""
    if answer["status"] == "ok":
        return [answer[f"{word}_bytes"] for word in ("k", "v", "r", "s", "p", "other_state")]
    why = str((answer.get("why") or [""])[0])
    if ".cpp:" in why:
        # An assertion that failed: without file and line.
        return [why.partition(".cpp:")[2].partition(": ")[2]]
    return [why.removeprefix("llama_init_from_model: ")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from llamacpp_cases import found, metadata, workloads

    path = ROOT / "tests" / "truth" / "llamacpp.jsonl"
    first, *entries = (json.loads(line) for line in path.read_text().splitlines())
    every = workloads(first)
    if asked.add:
        tenth = [[number] for number in range(0, len(every), 10)]
        for name, keys in json.loads(asked.add.read_text()).items():
            entries.append({"model": name, "metadata": keys, "cases": tenth})
    cases = changed = wrong = 0
    for entry in entries:
        if asked.names and not entry["model"].startswith(tuple(asked.names)):
            continue
        keys = metadata(entry, first["drawn"])
        answers = ask(keys, [every[number] for number, *_ in entry["cases"]])
        for case, answer in zip(entry["cases"], answers, strict=True):
            number, *before = case
            now, mine = recorded(answer), found(keys, every[number])
            case[1:] = now
            cases += 1
            changed += now != before
            if mine != now and not (len(now) == len(mine) == 1):
                wrong += 1
                print(f"{entry['model']}: {every[number]}: memcurve {mine}, llama.cpp {now}")
    print(f"{cases} cases asked, {changed} not as recorded; memcurve: {wrong} otherwise")
    if asked.write:
        lines = [first, *entries]
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


if __name__ == "__main__":
    worker() if "--worker" in sys.argv else main()
