"""What MLX-LM 0.32.2's own modules make of a model: one layer per entry of the list that make_prompt_cache gives.

`view` returns layers of memcurve's kinds *as the module of mlx_lm/models/ makes them*, each with the sizes that the module
really uses (some read neither head_dim nor layer_types). The engine turns kinds into cache classes:

    FullAttention       KVCache (keys [kv_heads, head_dim], values [kv_heads, v_head_dim]); with max_kv_size and no make_cache
                        of the module's own, RotatingKVCache(max_kv_size, keep=4)
    LatentAttention     KVCache of one head: keys of kv_lora_rank, values of rope_head_dim; RotatingKVCache with a window
    SparseIndexer       KVCache of one head: keys and values of head_dim each (what is stored once is FullAttention with v_head_dim 0)
    SlidingAttention    RotatingKVCache(window)
    ChunkedAttention    ChunkedKVCache(chunk)
    CompressedAttention LayerCache of deepseek_v41: window, compressed groups, index keys, and what waits in fp32
    recurrent kinds     ArraysCache: convolutions of kernel K hold K - 1 columns in the model's dtype; states as `states` says
    NoState             no entry, or one that nothing is put in
    Parallel            CacheList: the sum of its parts, never quantised

The layers may be more or fewer than the model's (loops, shared caches): an entry of the list each.

Facts, all optional, by keyword of engines.mlx.keep:
    own_cache: bool     the module has a make_cache, so that max_kv_size is ignored (without: where it makes more than plain caches)
    states: dict        kind of layer -> dtype of its recurrent state, "model" or a name (usual: engines.mlx.STATES, else float32)
    dtypes: dict        (index in layers, name of a tensor) -> dtype, where one layer's tensor has another than the usual
    batches: str        why two or more sequences in a batch raise; "" where they run
    batch_that_runs: int    how many sequences run all the same; 0 if none
    quantises: str      why a forward over quantised caches raises; "" where it runs (group sizes and rotating caches: the engine says it)
    prompts: str        why a forward of several tokens raises where its mask is no array; "" where it runs
    uncounted: str      why the size of quantised caches can't be asked; "" where it can
    casts: dict         dtype of the weights -> dtype of keys and values, where the module mixes in another
    reads: tuple[str]   notes for `explain`: keys of the config that the module ignores
"""

from __future__ import annotations

import json
from os.path import dirname, join

from ..base import NotDescribed, Refused, nearest, show
from ..config import Abridged, Config
from ..layers import FullAttention, NoState, SlidingAttention
from . import View, mlx_forward
from .mlx_checks import check
from .mlx_models import BATCHES, CASTS, GROUPED, PROMPTS, QUANTISES, STATES, reader_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..layers import Layer

VERSION = "0.32.2"
# utils.py, MODEL_REMAPPING and MODEL_ARCHITECTURE_REMAPPING: a model type runs in the module of another.
REMAPPED = {
    "mistral": "llama", "llava": "mistral3", "phi-msft": "phixtral", "falcon_mamba": "mamba", "joyai_llm_flash": "deepseek_v3",
    "kimi_k2": "deepseek_v3", "qwen2_5_vl": "qwen2_vl", "minimax_m2": "minimax", "iquestcoder": "llama", "xverse": "llama",
    "gemma4_unified": "gemma4", "deepseek_v41_text": "deepseek_v41",
}  # fmt: skip
BY_ARCHITECTURE = {("bailing_hybrid", "BailingMoeV3ForCausalLM"): "bailing_moe_v3"}
# Modules that build another one from text_config: which, or their own dataclass for it.
INNER = {
    "gemma3": "gemma3_text", "gemma3n": "gemma3n.text", "gemma4": "gemma4_text", "kimi_k25": "deepseek_v3", "kimi_k3": "kimi_k3.text",
    "kimi_vl": "kimi_vl.text", "lfm2-vl": "lfm2", "llama4": "llama4.text", "minimax_m3_vl": "minimax_m3_vl.text", "mistral3": "llama",
    "muse_spark": "muse_spark.text", "pixtral": "llama", "prism_hadamard_qwen35": "qwen3_5.text", "qwen2_vl": "qwen2",
    "qwen3_5": "qwen3_5.text", "qwen3_5_moe": "qwen3_5.text", "qwen3_vl": "qwen3", "qwen3_vl_moe": "qwen3_moe",
}  # fmt: skip
# Of these, whose from_dict takes the whole config where it has no text_config.
FLAT = frozenset(("kimi_k3", "prism_hadamard_qwen35", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl"))
# What a module's __post_init__ puts into text_config where it has no such key.
PUT = {
    "gemma3": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "gemma4": {"num_attention_heads": 8, "num_key_value_heads": 1},
    "pixtral": {"num_attention_heads": 32},
}
# Keys that change what is kept in other engines; said to be ignored where a module does not ask for them.
TELLING = (
    "head_dim", "num_key_value_heads", "layer_types", "sliding_window", "sliding_window_pattern", "attention_chunk_size",
    "full_attention_idx", "attention_window_size", "lru_width", "conv1d_width", "use_cla", "no_rope_layers", "n_head", "n_layer", "n_embd", "indexer_types",
    "max_window_layers", "use_sliding_window", "attn_type_list", "layer_type_list", "hybrid_layer_ids",
)  # fmt: skip


class Args(Config):
    """The keys that a module's ModelArgs takes from a config, with its defaults; knows which of them were asked for."""

    def __init__(self, data: Mapping[str, Any], module: str, known: Mapping[str, Any], path: str) -> None:
        fields = f"{known['required']} {known['optional']}".split()
        super().__init__({key: data[key] for key in fields if key in data}, module, known, path, data)
        self.asked: set[str] = set()
        self.numbers: list[str] = known.get("numbers", "").split()

    def get(self, key: str) -> Any:
        self.asked.add(key)
        return super().get(key)


def view(layers: tuple[Layer, ...], dtype: str | None, config: Config | None) -> View:
    """The entries of make_prompt_cache and facts for the engine. NotDescribed for a type that MLX-LM lacks, Refused for what it refuses."""
    if config is None:
        return View(layers=layers, dtype=dtype)
    module = module_of(config)
    args, lacks = arguments(module, config.root)
    if not isinstance(config.root, Abridged):
        if lacks:
            raise Refused(lacks)
        check(args, args.numbers)
    seen = reader_of(args.model_type)(args)
    if not isinstance(config.root, Abridged):
        mlx_forward.check(args, seen)
    own = "cache" in entry(module)
    if not own:
        # make_prompt_cache gives KVCache to every layer; a window is a mask only.
        seen = tuple(_kept_whole(layer) for layer in seen)
    facts: dict[str, Any] = {"own_cache": own}
    tables = (
        ("batches", BATCHES),
        ("quantises", QUANTISES),
        ("prompts", PROMPTS),
        ("states", STATES),
        ("casts", CASTS),
    )
    for fact, table in tables:
        if args.model_type in table:
            facts[fact] = table[args.model_type]
    if args.model_type == "nemotron-nas":
        if any(isinstance(layer, NoState) for layer in seen):
            facts["uncounted"] = (
                "AttributeError: an entry that stays empty is quantised with the others, and its nbytes fails"
            )
        else:
            del facts["batches"]
    packed = config.root.get("modules") if module == "prism_hadamard_qwen35" else None
    if any(isinstance(record, dict) and record.get("embedding") for record in packed or ()):
        # A packed embedding gives float16 (HadamardQuantizedEmbedding), which meets bfloat16 weights in float32.
        facts["casts"] = {"bfloat16": "float32"}
    if args.model_type in GROUPED:
        # A mask [B, 1, L, L] beside scores [B, kv_heads, groups, L, L] counts for the heads where there are B of them.
        facts["batch_that_runs"] = args.kv_heads
    ignored = [key for key in TELLING if args.root.get(key) is not None and key not in args.asked]
    notes = [f"abridged in the catalogue: {lacks}"] if lacks else []
    if module != (named := config.root.get("model_type", module)):
        notes.append(f"MLX-LM runs {named} in its module {module}")
    if ignored and seen != layers:
        notes.append(f"MLX-LM's {args.model_type}.py does not read {', '.join(ignored)}")
    if not own and any(isinstance(layer, SlidingAttention) for layer in layers):
        notes.append(f"MLX-LM's {module}.py keeps every token in every layer")
    if args.model_type == "deepseek_v41":
        # Compressor.kv_norm hands on the dtype of its weight, and Indexer.k_proj that of what it is given.
        notes.append(
            "compressed groups and index keys reckoned in the model's dtype; a compressor stored in fp32 makes them fp32"
        )
    if notes:
        facts["reads"] = tuple(notes)
    return View(layers=seen, dtype=dtype, facts=facts)


def _kept_whole(layer: Layer) -> Layer:
    if not isinstance(layer, SlidingAttention):
        return layer
    return FullAttention(kv_heads=layer.kv_heads, head_dim=layer.head_dim, v_head_dim=layer.v_head_dim)


_text: str | None = None


def _lines() -> str:
    global _text
    if _text is None:
        with open(join(dirname(__file__), "mlx_args.json"), encoding="utf-8") as file:
            _text = file.read()
    return _text


def entry(module: str) -> dict[str, Any]:
    """The line of a module, or of a nested dataclass, in mlx_args.json."""
    text, mark = _lines(), f"\n{json.dumps(module)}:"
    start = text.index(mark) + len(mark)
    found: dict[str, Any] = json.loads(text[start : text.index("\n", start)].rstrip(","))
    return found


def modules() -> tuple[str, ...]:
    """The modules of mlx_lm/models/ that hold a model."""
    return tuple(name for name in json.loads(_lines()) if "." not in name)


def module_of(config: Config) -> str:
    """utils.py, _get_classes: by the outermost model type, for one also by the architecture. NotDescribed for one without a module."""
    model_type = config.root.get("model_type", config.model_type if isinstance(config.root, Abridged) else None)
    if not isinstance(model_type, str):
        raise Refused("MLX-LM chooses a module by model_type, which the config lacks (KeyError: 'model_type')")
    names = config.root.get("architectures")
    for name in [names] if isinstance(names, str) else config.architectures:
        if (model_type, name) in BY_ARCHITECTURE:
            return BY_ARCHITECTURE[model_type, name]
    module = REMAPPED.get(model_type, model_type)
    if "." not in module and f"\n{json.dumps(module)}:" in _lines():
        return module
    hint = nearest(model_type, (*modules(), *REMAPPED))
    raise NotDescribed(
        f"engine mlx: MLX-LM {VERSION} has no module for model type {show(model_type)}"
        + (f"; nearest: {hint}" if hint else "")
    )


def arguments(module: str, root: Mapping[str, Any]) -> tuple[Args, str]:
    """The ModelArgs of the module that is built in the end, from the config or its text_config; and what it lacks, in a sentence."""
    if root.get("model_file") is not None:
        raise Refused(
            f"the config names a module of its own ({show(root['model_file'])}), which MLX-LM runs only if trusted"
        )
    lacks = _lacking(
        module, entry(module), {**root, "text_config": root.get("text_config")} if module in FLAT else root, ""
    )
    data, path = root, ""
    nested = root.get("text_config")
    if module in INNER and not (module in FLAT and "text_config" not in root):
        nested = {} if module == "gemma4" and nested is None else nested
        if not isinstance(nested, dict):
            raise Refused(f"text_config: {show(nested)}; MLX-LM's {module}.py builds its model from this section")
        data, path = {**PUT.get(module, {}), **nested}, "text_config."
    elif module == "muse_glimmer" and isinstance(nested, dict):
        data = {**root, **nested}
    elif module == "deepseek_v41" and isinstance(nested, dict):
        data, path = nested, "text_config."
    if module == "prism_hadamard_qwen35":
        _packed(root)
    inner = INNER.get(module, module)
    if module == "mistral3" and data.get("model_type") in ("ministral3", "mistral4"):
        inner = data["model_type"]
    known = entry(inner)
    lacks = lacks or _lacking(inner, known, data, path)
    return Args(data, inner.removesuffix(".text"), known, path), lacks


def _lacking(module: str, known: Mapping[str, Any], data: Mapping[str, Any], path: str) -> str:
    """BaseModelArgs.from_dict: a key without a default must be there, be it null."""
    missing = [key for key in known["required"].split() if key not in data]
    return (
        ""
        if not missing
        else (
            f"MLX-LM's {module.removesuffix('.text')}.py needs {', '.join(path + key for key in missing)}, which the config lacks "
            f"(ModelArgs.__init__() missing {len(missing)} required positional argument{'s' if len(missing) > 1 else ''})"
        )
    )


def _packed(root: Mapping[str, Any]) -> None:
    """prism_hadamard_qwen35.py, ModelArgs.__post_init__."""
    spaces = {1: "mlx-lm-text", 2: "mlx-vlm-qwen3_5"}
    schema, space = root.get("schema_version", 2), root.get("tensor_namespace", "")
    if spaces.get(schema) != space:
        raise Refused(f"Unsupported Hadamard pack: schema {show(schema)}, namespace {show(space)}")
    if root.get("gdn_activation_layout", "grouped") != "grouped":
        raise Refused("Hadamard packs require grouped GDN activations")
    if root.get("quantization") != {"bits": 2, "group_size": 128, "mode": "affine"}:
        raise Refused("Hadamard packs require 2-bit affine weights, group size 128")
    if not isinstance(root.get("modules"), list) or not root["modules"]:
        raise Refused("Hadamard pack is missing its packed module manifest")
