"""Building a type's class from a config whose values remember, and what came of it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
import re
import warnings
from collections import defaultdict
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.configuration_utils import _LEGACY_LAYER_TYPE_REMAP

from memcurve.config import class_defaults
from memcurve.shrink import config_class
from memcurve.verify.transformers import CONFIG_MAPPING, classes_of, find_config, model_class, quiet

from . import symbols
from .symbols import INDICES, expression, plain, tracing

OPAQUE = ("model_type", "dtype", "architectures", "transformers_version", "id2label", "label2id", "name_or_path")


BASE = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {
    "tie_word_embeddings", "is_decoder", "add_cross_attention", "is_encoder_decoder", "vocab_size",
}  # fmt: skip


# Asked for in all configs, and no part of a model's structure.
NEVER = {"quantization_config", "pruned_heads", "torchscript", "attn_implementation", "is_encoder_decoder", "per_layer_config", "base_model_tp_plan",
    "decoder", "encoder", "generator", "text_config", "text_encoder", "thinker_config", "language_config", "llm_config", "decoder_config",
    "audio_config", "vision_config", "audio_encoder", "vocoder_config", "sub_configs", "auto_map", "adapter_config",
}  # fmt: skip


class Run:
    """One config of a type, and what the class made of it."""

    def __init__(self, raw: dict[str, Any], attributes: dict[str, Any], computed: dict[str, Any]) -> None:
        self.raw, self.attributes, self.computed = raw, attributes, computed
        self.parameters: dict[str, dict[tuple[int, ...], tuple[Any, ...]]] = defaultdict(dict)
        self.counts: dict[str, dict[tuple[int, ...], int]] = defaultdict(dict)
        self.shapes: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = defaultdict(dict)
        self.values: dict[tuple[int, ...], dict[Any, Any]] = {}


class Pool:
    """What was asked in all runs of a type: conditions and counts of loops, by the config class and by the model's."""

    def __init__(self) -> None:
        self.config: set[Any] = set()
        self.model: set[Any] = set()
        self.counts: set[Any] = set()

    def extra(self) -> list[str]:
        """Keys that are asked for though no field of the class."""
        return sorted(name for word, name in (one for one in self.model if one[0] == "has") if name not in NEVER)


def flat(config: Any, path: str = "") -> dict[str, tuple[Any, str, Any]]:
    """path: (config object, attribute, value) of a config and the configs within."""
    found: dict[str, tuple[Any, str, Any]] = {}
    for name, value in list(vars(config).items()):
        if (name.startswith("_") and name not in own_fields(type(config))) or name in OPAQUE:
            continue
        if isinstance(value, PreTrainedConfig):
            found |= flat(value, f"{path}{name}.") | {path + name: (config, name, value)}
        elif isinstance(value, dict) and value and all(isinstance(one, int) for one in value.values()):
            found |= {f"{path}{name}.{key}": (value, key, one) for key, one in value.items()}
        elif not isinstance(value, (dict, torch.dtype)):
            found[path + name] = (config, name, value)
    return found


def configs(config: Any, path: str = "") -> dict[int, str]:
    found = {id(config): path}
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            found |= configs(value, f"{path}{name}.")
    return found


@functools.cache
def own_fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {
        field.name: field
        for field in dataclasses.fields(cls)
        if field.name not in BASE and field.name not in OPAQUE and field.name not in cls.sub_configs_defaults
    }


def full_keys(cls: Any, keys: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments with every field of the class stated, nested configs as given."""
    found = dict(keys)
    for name, field in own_fields(cls).items():
        if name in found:
            continue
        if field.default is not dataclasses.MISSING:
            found[name] = copy.deepcopy(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[name] = field.default_factory()
    for name, spec in cls.sub_configs_defaults.items():
        if isinstance(found.get(name), dict) and name != "backbone_config":
            found[name] = full_keys(config_class(spec), found[name])
    for name, default in literals(cls).items():
        if default is not None:
            found.setdefault(name, default)
    for name in ("tie_word_embeddings",):
        found.setdefault(name, getattr(cls, name, None))
        if found[name] is None:
            found.pop(name)
    return found


def kept(keys: dict[str, Any], nested: Any, path: str = "") -> dict[str, Any]:
    """Keyword arguments whose values remember their names."""
    found = {}
    for name, value in keys.items():
        if name in nested and isinstance(value, dict):
            spec = nested[name]
            inner = config_class(spec)
            found[name] = kept(value, getattr(inner, "sub_configs_defaults", {}), f"{path}{name}.")
        elif (
            isinstance(value, dict)
            and "rope" not in name
            and all(isinstance(one, (int, list)) for one in value.values())
        ):
            found[name] = {key: symbols.keep(one, f"{path}{name}.{key}") for key, one in value.items()}
        elif name in OPAQUE or isinstance(value, dict):
            found[name] = value
        else:
            found[name] = symbols.keep(value, path + name)
    return found


def flat_keys(keys: dict[str, Any], path: str = "") -> dict[str, Any]:
    found = {}
    for name, value in keys.items():
        if isinstance(value, dict):
            found |= flat_keys(value, f"{path}{name}.") | {path + name: True}
        else:
            found[path + name] = plain_list(value)
    return found


@functools.cache
def watched() -> Any:
    """The config class's attribute access, noting which flags and empty values are read."""
    real = PreTrainedConfig.__getattribute__

    def read(self: Any, name: str) -> Any:
        try:
            value = real(self, name)
        except AttributeError:
            if not name.startswith("_") and id(self) in READING:
                symbols.note("has", READING[id(self)] + name)
            raise
        if (
            (value is None or value is True or value is False)
            and (not name.startswith("_") or name == "_remove_final_layer_norm")
            and READING
        ):
            path = READING.get(id(self))
            if path is not None:
                own = real(self, "attribute_map").get(name, name)
                symbols.note("null" if value is None else "truth", path + own)
        return value

    return read


READING: dict[int, str] = {}


def run(cls: Any, name: str, keys: dict[str, Any], pool: Pool) -> Run:
    """Builds the class from the keys; raises what it raises."""
    stated = full_keys(cls, keys)
    symbols.CONDITIONS.clear()
    symbols.COUNTS.clear()
    READING.clear()
    real = PreTrainedConfig.__getattribute__
    with tracing():
        config = cls(**{k: v for k, v in kept(stated, cls.sub_configs_defaults).items() if k != "model_type"})
        asked, loops = set(symbols.CONDITIONS), set(symbols.COUNTS)
        symbols.CONDITIONS.clear()
        symbols.COUNTS.clear()
        values = flat(config)
        made = Run(
            today(cls, flat_keys(stated)),
            {path: isinstance(value, PreTrainedConfig) or plain_list(value) for path, (_, _, value) in values.items()},
            {
                path: [*map(expression, value)] if type(value) in (list, tuple) else expression(value)
                for path, (_, _, value) in values.items()
            },
        )
        for path, (owner, attribute, value) in values.items():
            if not isinstance(value, PreTrainedConfig):
                (owner if isinstance(owner, dict) else owner.__dict__)[attribute] = symbols.keep(
                    plain_list(value), path
                )
        READING.update(configs(config))
        PreTrainedConfig.__getattribute__ = watched()  # type: ignore[method-assign]
        try:
            built = model_class(cls.model_type, name)
            model = built(find_config(config, built.config_class) or config)
        finally:
            PreTrainedConfig.__getattribute__ = real  # type: ignore[method-assign]
            READING.clear()
    conditions = {tidy(condition) for condition in symbols.CONDITIONS}
    pool.model |= conditions
    pool.config |= {tidy(condition) for condition in asked}
    pool.config |= {("null", path) for path, value in made.raw.items() if value is None}
    pool.config |= {("has", path) for path in made.raw if path not in own_fields(cls)}
    pool.config |= {("truth", path) for path, value in made.raw.items() if isinstance(value, bool)}
    pool.counts |= symbols.COUNTS | loops
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, (torch.nn.ModuleList, torch.nn.ParameterList))
    }
    for path, module in lists.items():
        pattern, indices = split(path, lists)
        made.counts[pattern][indices] = len(module)
    for path, parameter in model.named_parameters():
        pattern, indices = split(path, lists)
        shape = tuple(map(int, parameter.shape))
        made.parameters[pattern][indices] = tuple(getattr(parameter, "dimensions", shape))
        made.shapes[pattern][indices] = shape
    return made


def today(cls: Any, raw: dict[str, Any]) -> dict[str, Any]:
    """The keys with today's words for layers, which every class puts in place of older ones."""
    name = cls.attribute_map.get("layer_types", "layer_types")
    if isinstance(raw.get(name), list):
        raw[name] = [_LEGACY_LAYER_TYPE_REMAP.get(one, one) if isinstance(one, str) else one for one in raw[name]]
    return raw


def plain_list(value: Any) -> Any:
    value = plain(value)
    return [plain_list(item) for item in value] if isinstance(value, (list, tuple)) else value


def tidy(condition: Any) -> Any:
    """A condition in one form: of two sides of == the constant last."""
    word, *sides = condition
    if word == "==" and not isinstance(sides[0], (tuple, str)):
        sides.reverse()
    return (word, *sides)


def split(path: str, lists: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """A name with * for its places in lists, and those places."""
    parts = path.split(".")
    places = [at for at, part in enumerate(parts) if part.isdigit() and ".".join(parts[:at]) in lists]
    indices = tuple(int(parts[at]) for at in places)
    for at in places:
        parts[at] = "*"
    return ".".join(parts), indices


def places(pattern: str, made: Run) -> list[tuple[int, ...]]:
    """All indices that a name could have in a run."""
    parts = pattern.split(".")
    found: list[tuple[int, ...]] = [()]
    for at, part in enumerate(parts):
        if part == "*":
            counts = made.counts.get(".".join(parts[:at]), {})
            found = [(*place, index) for place in found for index in range(counts.get(place, 0))]
    return found


def values_at(made: Run, place: tuple[int, ...]) -> dict[str, Any]:
    """What expressions of the model's class speak of: attributes, keys that the config class takes without keeping them, and places."""
    if place not in made.values:
        made.values[place] = {**made.raw, **made.attributes, **dict(zip(INDICES, place, strict=False))}
    return made.values[place]


@functools.cache
def literals(cls: Any) -> dict[str, Any]:
    """Keys that the class takes beside its fields, with the number or flag that stands in for each, None for none."""
    try:
        source = inspect.getsource(cls)
    except OSError:
        return {}
    found: dict[str, Any] = {}
    for name, default in re.findall(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)["'](?:,\s*([\w.]+))?\s*\)""", source):
        if name not in NEVER and name not in BASE:
            found[name] = json.loads(default.lower()) if re.fullmatch(r"True|False|\d+", default) else None
    return found


CAUSAL: dict[str, str] = {}


def class_of(model_type: str) -> str:
    """The class that generates with a type: of one with several sections the whole, else the causal one."""
    several = "text" in (class_defaults(model_type) or {})
    return str(classes_of(model_type)[0]) if several or model_type not in CAUSAL else CAUSAL[model_type]


def causal_types() -> dict[str, str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MAPPING

    return {one: name for one, name in MAPPING.items() if one in CONFIG_MAPPING}


def prepare() -> None:
    warnings.simplefilter("ignore")
    quiet()
    CAUSAL.update(causal_types())
