"""Opens one GGUF file in llama-cpp-python and makes its contexts; run as a script by the Python that has that package.

The shim (llamacpp.py) is loaded before it, and writes names and bytes of cache tensors to the file CACHE_TENSORS.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}


def worker() -> None:
    """In a process of its own, with the shim loaded: metadata and cases on stdin, one answer per line on stdout."""
    asked = json.load(sys.stdin)
    log: list[str] = []
    libraries = Path(llama_cpp.__file__).parent / "lib"
    os.environ["GGML_BASE"] = str(libraries / "libggml-base.so")

    def keep_log(level: int, text: bytes, _: Any) -> None:
        if level >= 3:
            log.append(text.decode(errors="replace").strip())

    callback = llama_cpp.llama_log_callback(keep_log)
    llama_cpp.llama_log_set(callback, None)
    llama_cpp.llama_backend_init()

    class InitParams(ctypes.Structure):
        _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

    base = ctypes.CDLL(os.environ["GGML_BASE"])
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    library = ctypes.CDLL(str(libraries / "libllama.so"))
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
    print(json.dumps({"status": "loaded", "version": llama_cpp.__version__}), flush=True)
    for case in asked["cases"]:
        with tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                os.dup2(errors.fileno(), 2)
                answer(library, model, case, log)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                errors.seek(0)
                said = errors.read().decode(errors="replace").splitlines()
                why = [line for line in said if "GGML_" in line][:1] or said[-1:]
                print(json.dumps({"status": "aborted", "signal": status, "why": why}), flush=True)


def answer(library: Any, model: Any, case: dict[str, Any], log: list[str]) -> None:
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


if __name__ == "__main__":
    worker()
