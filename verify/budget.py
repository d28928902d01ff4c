"""Records what engines themselves set aside, into tests/truth: `python verify/budget.py sglang WHEEL` or `llamacpp`.

sglang: mem_fraction_static of SGLang 0.5.23's own handle_gpu_memory_settings (arg_groups/memory_hook.py), with the GPU's
memory, the server arguments and what it asks of a model given, and everything else as on a CUDA device.
llamacpp: the compute buffers that llama.cpp 0c1e57098 reserves for one catalogue model of each type, opened with no_alloc on
a CPU; LLAMA_PYTHON names the Python that has llama-cpp-python.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
TRUTH = ROOT / "tests" / "truth"

# -- SGLang -----------------------------------------------------------------------------------------------------------

MEMORY = (16303, 24564, 32607, 46068, 49140, 81559, 97871, 143771, 183359, 288000)  # MiB, as nvidia-smi says
MODELS: tuple[dict[str, Any], ...] = ({}, {"mla": True}, {"vision": [27, 1152]}, {"vision": [24, 1024], "graphs": True})
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"chunked_prefill_size": 2048},
    {"chunked_prefill_size": -1},
    {"max_running_requests": 16},
    {"cuda_graph_max_bs_decode": 64},
    {"disable_cuda_graph": True},
    {"disable_prefill_cuda_graph": True},
    {"max_total_tokens": 3000},
)


def sglang(wheel: str) -> None:
    from memcurve.verify.sglang_stubs import prepare

    prepare(wheel)
    import sglang.srt.arg_groups.cuda_graph_hook as graphs
    import sglang.srt.arg_groups.memory_hook as hook
    import sglang.srt.arg_groups.model_overrides.qwen3_vl as qwen
    from sglang.srt.model_executor.cuda_graph_config import Backend, CudaGraphConfig, PhaseConfig

    modules: tuple[Any, ...] = (hook, graphs)
    lines = []
    for memory, model, asked, (tp, pp), dp in itertools.product(
        MEMORY, MODELS, ASKED, ((1, 1), (2, 1), (8, 1), (2, 2)), (1, 2)
    ):
        if tp % dp or (dp > 1 and asked):
            continue
        seen = model.get("vision")
        captured = pp == 1 and (seen is None or model.get("graphs", False))
        config = CudaGraphConfig(
            decode=PhaseConfig(backend=Backend.FULL),
            prefill=PhaseConfig(backend=Backend.BREAKABLE if captured else Backend.DISABLED),
        )
        if asked.get("disable_cuda_graph"):
            config.decode.backend = config.prefill.backend = Backend.DISABLED
        if asked.get("disable_prefill_cuda_graph"):
            config.prefill.backend = Backend.DISABLED
        config.decode.max_bs = asked.get("cuda_graph_max_bs_decode")
        server = types.SimpleNamespace(
            device="cuda", cuda_graph_config=config, chunked_prefill_size=None, max_running_requests=None, tp_size=tp,
            pp_size=pp, max_total_tokens=None, model_path="model", mem_fraction_static=None, disaggregation_mode=None,
            max_prefill_tokens=16384, language_only=False, language_model_only=False, speculative_algorithm=None,
            disable_cuda_graph_padding=False, enable_symm_mem=False, attn_dp_size=dp, moe_a2a_backend="none",
            _cuda_graph_config_locked=set(),
        )  # fmt: skip
        server.__dict__.update({name: value for name, value in asked.items() if name in server.__dict__})
        vision = None if seen is None else types.SimpleNamespace(num_hidden_layers=seen[0], hidden_size=seen[1])
        known = types.SimpleNamespace(
            is_multimodal=seen is not None, hf_config=types.SimpleNamespace(vision_config=vision)
        )
        for module in modules:
            for name, function in {
                "resolving_view": lambda one: one,
                "resolved_view": lambda one: one,
                "declare_resolution": lambda one, _, **fields: one.__dict__.update(fields),
                "model_config_of": lambda _, known=known: known,
                "use_mla_backend": lambda _, model=model: model.get("mla", False),
                "attn_dp_enabled_of": lambda one: one.attn_dp_size > 1,
                "post_capture_kv_sizing_planned": lambda _: False,
                "get_device_memory_capacity": lambda _, memory=memory: float(memory),
                "get_platform": lambda: types.SimpleNamespace(is_xpu=False),
            }.items():
                setattr(module, name, function)
        qwen.expand_multimodal_decode_graph_to_running_limit = lambda *_: None
        hook.handle_gpu_memory_settings(server)
        options = {**asked, **({"enable_dp_attention": True, "attn_dp_size": dp} if dp > 1 else {})}
        lines.append([memory, tp, pp, model, options, server.mem_fraction_static])
    write("sglang_fraction.jsonl", lines)


# -- llama.cpp --------------------------------------------------------------------------------------------------------

WORKER = r"""
import ctypes, json, sys
from pathlib import Path
import llama_cpp
asked, lines = json.load(sys.stdin), []
keep = llama_cpp.llama_log_callback(lambda level, text, _: lines.append(text.decode(errors="replace").strip()))
llama_cpp.llama_log_set(keep, None)
llama_cpp.llama_backend_init()
folder = Path(llama_cpp.__file__).parent / "lib"
class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
base, library = ctypes.CDLL(str(folder / "libggml-base.so")), ctypes.CDLL(str(folder / "libllama.so"))
base.gguf_init_from_file.restype, base.gguf_init_from_file.argtypes = ctypes.c_void_p, [ctypes.c_char_p, InitParams]
load, make = library.llama_model_init_from_user, library.llama_init_from_model
load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * 3 + [llama_cpp.llama_model_params]
make.restype, make.argtypes = ctypes.c_void_p, [ctypes.c_void_p, llama_cpp.llama_context_params]
library.llama_free.argtypes = [ctypes.c_void_p]
params = llama_cpp.llama_model_default_params()
params.no_alloc, params.load_mtp = True, False
setter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda tensor, data: None)
metadata = base.gguf_init_from_file(asked["file"].encode(), InitParams(True, None))
model = load(metadata, ctypes.cast(setter, ctypes.c_void_p), None, params)
for case in asked["cases"] if model else ():
    lines.clear()
    context_params = llama_cpp.llama_context_default_params()
    for name, value in case.items():
        setattr(context_params, name, value)
    context = make(model, context_params)
    print(json.dumps(lines if context else []), flush=True)
    if context:
        library.llama_free(context)
"""
CASES: tuple[dict[str, int], ...] = (
    {"n_ctx": 8192, "n_ubatch": 512},
    {"n_ctx": 8192, "n_ubatch": 512, "n_outputs_max": 1},
    {"n_ctx": 32768, "n_ubatch": 2048, "n_outputs_max": 4, "n_seq_max": 4},
    {"n_ctx": 8192, "n_ubatch": 512, "n_outputs_max": 1, "flash_attn_type": 0},
)
# Keys of a config.json that the mapping for caches leaves out, and what a graph's size depends on.
SIZES = {
    "q_lora_rank": "attention.q_lora_rank", "kv_lora_rank": "attention.kv_lora_rank",
    "n_shared_experts": "expert_shared_count", "index_n_heads": "attention.indexer.head_count",
    "index_topk": "attention.indexer.top_k", "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}  # fmt: skip


def llamacpp() -> None:
    from memcurve import catalog, load
    from memcurve.base import MemcurveError
    from memcurve.sizes import largest, sizes_of
    from memcurve.verify.llamacpp import gguf_bytes, metadata_of, python

    seen, rows = set(), []
    for name in catalog.names():
        model = load(name)
        if model.model_type in seen:
            continue
        seen.add(model.model_type)
        try:
            sizes, keys = sizes_of(model, "logical"), metadata_of(model)
        except MemcurveError as error:
            print(f"{name}: {error}")
            continue
        config: Any = model.config
        own = {
            "vocab_size": sizes.vocabulary, "embedding_length": sizes.hidden, "expert_used_count": sizes.experts,
            "expert_count": largest(config, ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 0),
            **({"expert_feed_forward_length": sizes.expert_width} if sizes.experts else {}),
            **{key: value for word, key in SIZES.items() if isinstance(value := config.get(word), int)},
        }  # fmt: skip
        arch = keys["general.architecture"]
        if not isinstance(keys.get(f"{arch}.feed_forward_length"), list):
            own["feed_forward_length"] = sizes.intermediate
        keys.update({f"{arch}.{key}": value for key, value in own.items()})
        with tempfile.NamedTemporaryFile(suffix=".gguf", delete=False) as file:
            file.write(gguf_bytes(keys))
        done = subprocess.run(
            [python(), "-P", "-c", WORKER], input=json.dumps({"file": file.name, "cases": CASES}),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        os.unlink(file.name)
        answers = [line for line in done.stdout.splitlines() if line.startswith(("[]", '["'))]
        cases = []
        for case, line in zip(CASES, answers, strict=False):
            said = json.loads(line)
            sizes_said = [
                found[1] for text in said if (found := re.search(r"compute buffer size = *([\d.]+) MiB", text))
            ]
            if sizes_said:
                options: dict[str, Any] = {"n_outputs_max": 2048, **case}
                options.pop("flash_attn_type", None)
                if not any("Flash Attention enabled" in text for text in said):
                    options["flash_attn"] = False
                cases.append([options, float(sizes_said[0])])
        if cases:
            rows.append({"model": name, "reserved": cases})
    write("llamacpp_compute.jsonl", rows)


def write(name: str, lines: list[Any]) -> None:
    (TRUTH / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{name}: {len(lines)} lines")


if __name__ == "__main__":
    if sys.argv[1:2] == ["sglang"] and len(sys.argv) == 3:
        sglang(sys.argv[2])
    elif sys.argv[1:] == ["llamacpp"]:
        llamacpp()
    else:
        sys.exit(__doc__)
