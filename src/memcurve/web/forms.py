"""The options of each engine as a form needs them: name, kind, default and choices. Names and defaults are those of `keep`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..engines import HOW, NAMES, SHARED_CONTEXT, budget_llamacpp, budget_sglang, budget_vllm, llamacpp, mlx, module
from ..engines import sglang_options as sglang
from ..engines.vllm import GPUS
from ..engines.vllm_specs import KV_DTYPES, MAMBA_DTYPES, METHODS
from ..patterns import KINDS, SIZES
from ..terms import SCHEMA
from ..units import BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

DTYPES = tuple(name for name in BYTES if name != "int64")
POOLS = ("vllm", "sglang")
SIDES = ("type_k", "type_v")
# What an option may be, where it is one of a few.
CHOICES: dict[str, dict[str, tuple[object, ...]]] = {
    "logical": {"state_dtype": DTYPES},
    "transformers": {"cache": ("dynamic", "static")},
    "vllm": {
        "kv_cache_dtype": KV_DTYPES,
        "mamba_cache_dtype": MAMBA_DTYPES,
        "mamba_ssm_cache_dtype": MAMBA_DTYPES,
        "mamba_cache_mode": ("none", "align"),
        "speculative_method": METHODS,
        "gdn_prefill_backend": ("auto", "flashinfer", "triton", "cutedsl"),
        "gpu": tuple(GPUS),
    },
    "sglang": {
        "kv_cache_dtype": ("auto", *sglang.KV_BYTES),
        "mamba_ssm_dtype": tuple(sglang.STATE_BYTES),
        "mamba_radix_cache_strategy": ("auto", *sglang.TRACKING),
        "speculative_algorithm": (*sglang.OWN_DRAFTS, *sglang.NO_DRAFT_MODEL),
        "dsa_prefill_backend": sglang.DSA_BACKENDS,
        "dsa_decode_backend": sglang.DSA_BACKENDS,
    },
    "llamacpp": {**dict.fromkeys(SIDES, tuple(llamacpp.BLOCKS)), "flash_attn": ("auto", True, False)},
    "mlx": {"schedule": mlx.SCHEDULES},
}
# Options that only a fit takes: those of the engine's budget, by their kinds.
FIT_OPTIONS = {
    "vllm": budget_vllm.OPTIONS,
    "sglang": tuple(name for name in budget_sglang.OPTIONS if name not in module("sglang").OPTIONS),
    "llamacpp": tuple(name for name in budget_llamacpp.OPTIONS if name not in ("n_ctx", "n_seq_max")),
}
FIT_KINDS = {
    "gpu_memory_utilization": "number", "mem_fraction_static": "number", "mm_feature_transport": "word",
    "enforce_eager": "flag", "estimate_cudagraphs": "flag", "language_model_only": "flag", "disable_cuda_graph": "flag",
    "disable_decode_cuda_graph": "flag", "disable_prefill_cuda_graph": "flag", "fit": "flag",
}  # fmt: skip


def engines_data() -> dict[str, Any]:
    """Engines with their options, dtypes, and what patterns are made of."""
    return {
        "schema": SCHEMA,
        "engines": [
            {
                "name": name,
                "how": HOW[name],
                "pools": name in POOLS,
                "shared_context": name in SHARED_CONTEXT,
                "options": list(options(name)),
                "fit_options": [
                    option(key, FIT_KINDS.get(key, "count"), None, True, None) for key in FIT_OPTIONS.get(name, ())
                ],
            }
            for name in NAMES
        ],
        "dtypes": list(DTYPES),
        "patterns": list(KINDS),
        "pattern_sizes": [
            {"name": name, "default": default, "meaning": meaning} for name, (default, meaning) in SIZES.items()
        ],
    }


def options(engine: str) -> Iterator[dict[str, Any]]:
    """The options of a curve, in the engine's order."""
    known = inspect.signature(module(engine).keep).parameters
    for name in module(engine).OPTIONS:
        hint, choices = str(known[name].annotation), CHOICES[engine].get(name)
        kind = "word" if choices or "str" in hint else "flag" if "bool" in hint or hint == "object" else "count"
        yield option(name, "number" if "float" in hint else kind, known[name].default, "None" in hint, choices)


def option(name: str, kind: str, default: object, optional: bool, choices: tuple[object, ...] | None) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "default": default, "optional": optional,
        "choices": None if choices is None else list(choices),
    }  # fmt: skip


def names(engine: str, fits: bool) -> set[str]:
    """The options that a request may give an engine; of a fit those of its budget too, and not what a fit sets itself."""
    own = set(module(engine).OPTIONS)
    return (own | set(FIT_OPTIONS.get(engine, ()))) - {"gpu"} if fits else own


def unlike(engine: str, name: str, value: object) -> str:
    """What an option of a budget should be, where a value is of another kind: budgets do not read all that they are given."""
    if name not in FIT_OPTIONS.get(engine, ()) or name in module(engine).OPTIONS:
        return ""
    match FIT_KINDS.get(name, "count"):
        case "flag":
            return "" if isinstance(value, bool) else "true or false"
        case "number":
            return "" if isinstance(value, (int, float)) and not isinstance(value, bool) else "a number"
        case "word":
            return "" if isinstance(value, str) else "a word"
    return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number"
