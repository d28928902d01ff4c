"""Asks Transformers itself: runs small models on a CPU and compares what their caches hold with engine `transformers`.

Needs torch and transformers (extra `verify`). A model is built with random weights, fed a prompt and then single tokens; the bytes of all
distinct tensors that its cache holds are compared with memcurve's for the same config, in total and tensor by tensor.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, model_type_to_module_name

from ..curve import MemoryCurve
from ..families import REFUSED
from ..model import load
from ..shrink import base_keys, keys_like, small
from . import Outcome

PINNED, INSTALLED = "5.23.0", str(transformers.__version__)
GROUPS = (
    "IMAGE_TEXT_TO_TEXT",
    "MULTIMODAL_LM",
    "CAUSAL_LM",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "TEXT_TO_WAVEFORM",
    "TEXT_TO_SPECTROGRAM",
)
# Where the type's own class needs more than text, the class within it that holds the decoder.
WITHIN: dict[str, tuple[str, ...]] = {
    "pi0": ("PaliGemmaForConditionalGeneration",),
    "blip-2": ("OPTForCausalLM",),
    "gemma3n": ("Gemma3nForCausalLM",),
    "fast_vlm": ("Qwen2ForCausalLM",),
    "inkling_mm_model": ("InklingForCausalLM",),
    "instructblip": ("OPTForCausalLM",),
    "instructblipvideo": ("OPTForCausalLM",),
    "kosmos-2": ("Kosmos2TextForCausalLM",),
    "perception_lm": ("LlamaForCausalLM",),
    "qwen2_5_omni": ("Qwen2_5OmniThinkerForConditionalGeneration",),
    "qwen3_omni_moe": ("Qwen3OmniMoeThinkerForConditionalGeneration",),
}


# --- what a cache holds ---

BOOKKEEPING = ("_sliding_window_tensor", "seqlen_offset", "layers")


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor within a value, with its path."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from tensors(item, f"{name}[{index}]")


def cache_layers(cache: Any, prefix: str = "") -> list[tuple[str, list[tuple[str, torch.Tensor]]]]:
    """(class, tensors) per cache layer; what a cache holds beside its layers comes last, under its own class."""
    if isinstance(cache, EncoderDecoderCache):
        return cache_layers(cache.self_attention_cache, "self_attention_cache:") + cache_layers(
            cache.cross_attention_cache, "cross_attention_cache:"
        )
    found = []
    rest = vars(cache) if hasattr(cache, "__dict__") and not isinstance(cache, (list, tuple, dict)) else cache
    if isinstance(cache, Cache):
        for layer in cache.layers:
            held = {key: value for key, value in vars(layer).items() if key not in BOOKKEEPING}
            found.append((prefix + type(layer).__name__, list(tensors(held))))
    if isinstance(rest, dict):
        rest = {key: value for key, value in rest.items() if key not in BOOKKEEPING}
    own = list(tensors(rest))
    if own or not isinstance(cache, Cache):
        found.append((prefix + type(cache).__name__, own))
    return found


def distinct_bytes(layers: list[tuple[str, list[tuple[str, torch.Tensor]]]]) -> int:
    """Elements x element size over distinct tensors; one that two layers share counts once."""
    seen = {}
    for _, held in layers:
        for _, tensor in held:
            where = tensor.data_ptr() or id(tensor)
            seen[(where, tuple(tensor.shape), tensor.dtype)] = tensor.numel() * tensor.element_size()
    return sum(seen.values())


def layer_lines(layers: list[tuple[str, list[tuple[str, torch.Tensor]]]]) -> list[Any]:
    """[count, class, [[tensor, shape, dtype], ...]], equal neighbours taken together."""
    lines = [
        [name, [[key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for key, tensor in held]]
        for name, held in layers
    ]
    return [[len(list(group)), *line] for line, group in itertools.groupby(lines)]


# --- running a model ---


class NoCacheReturned(Exception):
    """forward returned no cache."""


HANDLES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states", "past_key_value")


def run_text(model: Any, tokens: torch.Tensor, steps: int) -> Any:
    """Prefill, then single tokens; returns the cache that forward itself built."""
    accepted = inspect.signature(model.forward).parameters
    extra: dict[str, Any] = {"use_mems": True} if "use_mems" in accepted else {"use_cache": True}
    out = model(input_ids=tokens, **extra)
    handle = next((name for name in HANDLES if out.get(name) is not None), None)
    if handle is None:
        raise NoCacheReturned
    cache = out[handle]
    for _ in range(steps):
        cache = model(input_ids=tokens[:, :1], **{handle: cache}, **extra)[handle]
    return cache


def run_generate(model: Any, tokens: torch.Tensor, steps: int) -> Any:
    """The cache that generate builds, after as many decode steps."""
    out = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=steps + 1,
        min_new_tokens=steps + 1,
        do_sample=False,
        num_beams=1,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    return next(out[name] for name in HANDLES if out.get(name) is not None)


def prompt(batch: int, length: int, model: Any = None) -> torch.Tensor:
    """Token ids; models of several codebooks want them side by side, or one row each."""
    name = type(model).__name__
    rows = model.config.num_codebooks if name.startswith("Musicgen") else 1
    tokens = 3 + torch.arange(batch * rows * length).reshape(batch * rows, length) % 60
    return tokens[..., None].repeat(1, 1, model.config.num_codebooks + 1) if name.startswith("Kyutai") else tokens


def held_by(model: Any, cache: Any) -> list[tuple[str, list[tuple[str, torch.Tensor]]]]:
    """The cache's layers, and states that modules keep to themselves."""
    kept = [
        (type(module).__name__, list(tensors({key: vars(module)[key]}, "")))
        for module in model.modules()
        for key in ("conv1d_state", "recurrent_states")
        if isinstance(vars(module).get(key), torch.Tensor)
    ]
    return cache_layers(cache) + kept


def decoder_prompt(model: Any, batch: int, length: int) -> torch.Tensor:
    channels = (
        getattr(model.config.decoder_config, "num_channels", None) if hasattr(model.config, "decoder_config") else None
    )
    tokens = prompt(batch, length)
    return tokens[..., None].repeat(1, 1, channels) if channels else tokens


def encoder_output(hidden: torch.Tensor) -> BaseModelOutputWithPooling:
    """What an encoder returns, with the fields that some decoders read."""
    output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=hidden)
    output.attention_mask = output.router_logits = None
    return output


def encoder_inputs(model: Any, batch: int, length: int) -> dict[str, Any]:
    """Tokens for the encoder, or where it reads no text, what an encoder would have put out."""
    if model.main_input_name == "input_ids" and model.config.model_type not in ("udop", "dia"):
        return {"input_ids": prompt(batch, length)}
    return {"encoder_outputs": encoder_output(torch.randn(batch, length, 64).to(model.dtype))}


def classes_of(model_type: str) -> list[str]:
    names: list[str] = []
    for group in GROUPS:
        found = getattr(modeling_auto, f"MODEL_FOR_{group}_MAPPING_NAMES").get(model_type, ())
        names += [found] if isinstance(found, str) else list(found)
    return list(dict.fromkeys([*names, *WITHIN.get(model_type, ())]))


def find_config(config: Any, wanted: Any) -> Any:
    """The config itself or the nested one that a model class wants."""
    if isinstance(config, wanted):
        return config
    for key in type(config).sub_configs:
        found = find_config(getattr(config, key, None), wanted) if getattr(config, key, None) is not None else None
        if found is not None:
            return found
    return None


def model_class(model_type: str, name: str) -> Any:
    if hasattr(transformers, name):
        return getattr(transformers, name)
    module = model_type_to_module_name(model_type)
    return getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), name)


def build(name: str, keys: dict[str, Any], dtype: torch.dtype, folder: str) -> Any:
    """The model class with random weights, loaded as from_pretrained would (some modules stay in float32)."""
    cls = model_class(keys["model_type"], name)
    config = make_config(keys)
    config = find_config(config, cls.config_class) or config
    torch.manual_seed(0)
    cls(config).to(dtype).save_pretrained(folder)
    return cls.from_pretrained(folder, dtype=dtype).eval()


def make_config(keys: dict[str, Any]) -> Any:
    own = {key: value for key, value in copy.deepcopy(keys).items() if key != "model_type"}
    return CONFIG_MAPPING[keys["model_type"]](**own)


def windows_of(model: Any) -> list[int]:
    text = model.config.get_text_config(decoder=True)
    found = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "attention_window_size")]
    return [size for size in found if isinstance(size, int)]


# --- comparing ---


class Case(NamedTuple):
    """One workload of one model: batch, tokens held, encoder positions, and (class, tensors) per cache layer."""

    batch: int
    context: int
    encoder_context: int
    held: list[tuple[str, list[tuple[str, torch.Tensor]]]]


def run_model(model: Any) -> Iterator[Case]:
    """Prompts of 5 and 40 tokens and around each window, then none, one or three more tokens; two sequences once."""
    if model.config.is_encoder_decoder:
        for batch, encoder, tokens in ((1, 7, 1), (1, 7, 5), (1, 50, 30), (2, 7, 5)):
            inputs = encoder_inputs(model, batch, encoder)
            ids = decoder_prompt(model, batch, tokens - 1 or 1)
            out = model(**inputs, decoder_input_ids=ids)
            if out.past_key_values is None:
                out = model(**inputs, decoder_input_ids=ids, use_cache=True)
            cache, length = out.past_key_values, out.encoder_last_hidden_state.shape[1]
            if tokens > 1:
                again = encoder_output(out.encoder_last_hidden_state)
                token = decoder_prompt(model, batch, 1)
                cache = model(encoder_outputs=again, decoder_input_ids=token, past_key_values=cache).past_key_values
            yield Case(batch, tokens, length, cache_layers(cache))
        return
    run = run_text
    try:
        run_text(model, prompt(1, 5, model), 1)
    except Exception:  # noqa: BLE001 - then generate's own way of calling forward
        run = run_generate
    lengths = sorted({5, 40} | {w + d for w in windows_of(model) for d in (-1, 0, 1) if 1 < w + d < 100})
    for length, steps in [*itertools.product(lengths, (0, 1, 3)), (-5, 1)]:
        batch, length = (2, 5) if length < 0 else (1, length)
        yield Case(batch, length + steps, 0, held_by(model, run(model, prompt(batch, length, model), steps)))


def model_of(model_type: str, keys: dict[str, Any], dtype: torch.dtype) -> Any:
    """The first of the type's generating classes that can be built and run; raises what the last one raised."""
    error: Exception = ValueError(f"no class of Transformers generates with {model_type}")
    for name in classes_of(model_type):
        try:
            with tempfile.TemporaryDirectory() as folder:
                model = build(name, keys, dtype, folder)
            with torch.no_grad():
                next(run_model(model))
            return model
        except Exception as caught:  # noqa: BLE001 - whatever a class raises is the finding
            error = caught
    raise error


def check_type(model_type: str) -> Outcome:
    """Compares a small model of a type."""
    return check(model_type, base_keys(model_type))


def check_config(name: str, data: dict[str, Any]) -> Outcome:
    """Compares a small model with the structure of a config.json."""
    return check(name, keys_like(data))


def check_remote(folder: str) -> Outcome:
    """Compares a model whose code lies beside its config.json, with its sizes shrunk. Runs that code."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(
            folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.gguf")
        )
        path = Path(place) / "config.json"
        data = {
            key: value if small(key, value) is None else small(key, value)
            for key, value in json.loads(path.read_text()).items()
        }
        path.write_text(json.dumps(data))
        try:
            config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=True)
            model = (
                transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=True).to(torch.bfloat16).eval()
            )
        except Exception as error:  # noqa: BLE001 - whatever the code raises is the finding
            return Outcome(
                folder, 0, 0, 0, f"can't be run: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
            )
        return compare(folder, model, [data], torch.bfloat16)


def check(name: str, keys: dict[str, Any]) -> Outcome:
    """Compares the config as the class saves it and in the keyword arguments it was made from."""
    model_type = keys["model_type"]
    if model_type in REFUSED:
        return Outcome(name, 0, 0, 0, f"refused: {REFUSED[model_type]}")
    try:
        for dtype in (torch.bfloat16, torch.float32):
            try:
                model = model_of(model_type, keys, dtype)
                break
            except RuntimeError as error:
                if dtype is torch.float32 or "type" not in str(error):
                    raise
    except Exception as error:  # noqa: BLE001 - whatever a class raises is the finding
        return Outcome(name, 0, 0, 0, f"can't be run: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
    saved = json.loads(model.config.to_json_string(use_diff=False)) | {"model_type": model.config.model_type}
    return compare(name, model, [saved, keys], dtype)


def compare(name: str, model: Any, configs: list[dict[str, Any]], dtype: torch.dtype) -> Outcome:
    """Runs the model and compares every case with memcurve's answer to each form of its config."""
    cases = equal = tensors_equal = 0
    difference = ""
    word = str(dtype).removeprefix("torch.")
    curves = [load(config).curve("transformers", word) for config in configs]
    with torch.no_grad():
        for case in run_model(model):
            real = distinct_bytes(case.held)
            for curve in curves:
                found = curve.bytes(case.context, case.batch, case.encoder_context)
                extra, missing = tensor_difference(curve, case)
                cases, equal, tensors_equal = (
                    cases + 1,
                    equal + (found == real),
                    tensors_equal + (not extra and not missing),
                )
                if found != real and not difference:
                    difference = (
                        f"context {case.context}, batch {case.batch}: memcurve {found:,}, Transformers {real:,}"
                    )
                    for side, group in (("memcurve", extra), ("Transformers", missing)):
                        difference += "".join(f"; only {side}: {n} × {size:,} B" for size, n in list(group.items())[:1])
    return Outcome(name, cases, equal, tensors_equal, difference)


def tensor_difference(curve: MemoryCurve, case: Case) -> tuple[Counter[int], Counter[int]]:
    """Sizes of tensors that only memcurve counts, and that only the cache holds."""
    ours: Counter[int] = Counter()
    for term in curve.terms:
        slots = term.slots_at(case.context, case.batch, case.encoder_context)
        for _, size in term.tensors:
            ours[size * slots * case.batch] += term.layers
    seen = {}
    for _, held in case.held:
        for _, tensor in held:
            seen[(tensor.data_ptr() or id(tensor), tensor.shape)] = tensor.numel() * tensor.element_size()
    real = Counter(seen.values())
    for group in (ours, real):
        group.pop(0, None)
    return ours - real, real - ours


def generative_types() -> list[str]:
    """Every model type that a generating class of Transformers has."""
    return sorted(
        {name for group in GROUPS for name in getattr(modeling_auto, f"MODEL_FOR_{group}_MAPPING_NAMES")}
        & set(CONFIG_MAPPING)
    )


def quiet() -> None:
    """No warnings and no bars from the models; one thread, so that small models run fast."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)


def installed() -> str:
    return INSTALLED
