"""Configs of a type changed at random, first any key, then those that matter."""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict
from typing import Any

from record import HUB

from memcurve.shrink import base_keys, config_class, merge, shrink, small
from memcurve.verify.transformers import CONFIG_MAPPING

from .builds import BASE, NEVER, OPAQUE, Pool, Run, class_of, full_keys, literals, own_fields, run
from .trees import names


def change(
    cls: Any,
    keys: dict[str, Any],
    words: dict[str, list[Any]],
    extra: list[str],
    relevant: set[str],
    thresholds: dict[str, list[int]],
    source: random.Random,
) -> dict[str, Any]:
    """The keyword arguments with some changed: a few of any, or once it is known which keys matter, many of those."""
    found = copy.deepcopy(keys)
    for name in extra:
        if source.random() < (0.3 if name in relevant else 0.5 / len(extra)):
            sensible = small(name, 1)
            found[name] = source.choice(
                (sensible, 2 * sensible, 24) if sensible else (1, 2, 2, 3, 3, 4, 8, True, False, None)
            )
            if "pattern" in name and source.random() < 0.5:
                found[name] = "".join(source.choice("M*E-FS") for _ in range(source.choice((3, 4, 6))))
    fields = own_fields(cls)
    stated = full_keys(cls, keys)
    candidates = [name for name in stated if name in fields or name in keys]
    candidates = [name for name in candidates if name not in OPAQUE and not name.endswith("token_id")]
    if relevant:
        rate = source.choice((0.1, 0.2, 0.4))
        chosen = [
            name
            for name in candidates
            if (name in relevant and source.random() < (0.5 if isinstance(stated[name], bool) else rate))
            or name in cls.sub_configs_defaults
        ]
    else:
        chosen = [source.choice(candidates) for _ in range(source.choice((1, 1, 2, 3)))]
    chosen += [name for name, spec in cls.sub_configs_defaults.items() if spec.optional and name not in chosen]
    layers = fields.get("num_hidden_layers")
    if (
        relevant
        and layers is not None
        and source.random() < 0.4
        and not any(isinstance(one, list) for one in keys.values())
    ):
        found["num_hidden_layers"] = source.choice((5, 7, 8, 9))
    for name in chosen:
        if name in cls.sub_configs_defaults:
            spec = cls.sub_configs_defaults[name]
            if spec.optional and source.random() < 0.3:
                found[name] = (
                    None if isinstance(found.get(name), dict) else shrink(config_class(spec), spec.init_kwargs)
                )
            elif isinstance(found.get(name), dict):
                inside = f"{name}."
                nested = {key.removeprefix(inside) for key in relevant if key.startswith(inside)}
                known = {key.removeprefix(inside): value for key, value in words.items() if key.startswith(inside)}
                inner = config_class(spec)
                found[name] = change(inner, found[name], known, list(literals(inner)), nested, {}, source)
            continue
        found[name] = other(name, stated[name], fields.get(name), words, stated, source)
        default = fields[name].default if name in fields else None
        if isinstance(default, (bool, str)) and default != stated[name] and source.random() < 0.3:
            found[name] = default
        if name in thresholds and type(stated[name]) is int and source.random() < 0.3:
            found[name] = source.choice(thresholds[name])
        if name in keys and name in fields and fields[name].default is None and source.random() < 0.3:
            found[name] = None
    count, shared = found.get("num_hidden_layers"), "num_kv_shared_layers"
    if type(count) is int and type(found.get(shared, stated.get(shared))) is int:
        found[shared] = min(found.get(shared, stated[shared]), max(0, count - 3))
    return found


def other(
    name: str, value: Any, field: Any, words: dict[str, list[Any]], stated: dict[str, Any], source: random.Random
) -> Any:
    """Another value for a key."""
    kind = str(field.type) if field is not None else ""
    layers = next(
        (stated[key] for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in stated), 3
    )
    if words.get(name) and source.random() < 0.7:
        return [source.choice(words[name]) for _ in range(layers if isinstance(layers, int) else 3)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str) and ("_act" in name or "activation" in name):
        return source.choice(("gelu", "relu", "silu", "gelu_pytorch_tanh", "relu2"))
    if isinstance(value, int):
        if "layers" in name:
            return source.choice((1, 2, 4, 5, 7, value))
        if "None" in kind and source.random() < 0.2:
            return None
        return source.choice((value * 2, value * 3, value + 1, max(1, value // 2), 1, 2, 0, value * 4))
    if isinstance(value, float):
        return value * source.choice((2, 3, 0.5))
    if value is None:
        if "bool" in kind:
            return source.choice((True, False))
        if "list" in kind and ("int" not in kind.split("list")[0] or source.random() < 0.5):
            return (
                sorted(source.sample(range(6), source.choice((0, 1, 2, 3))))
                if "int" in kind.split("list")[-1]
                else None
            )
        if "int" in kind:
            return small(name, 1) or source.choice((1, 2, 4, 8, 16))
        return None
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value) and source.random() < 0.7:
        return [source.choice(value) if source.random() < 0.7 else item for item in value]
    if isinstance(value, list) and not value:
        return sorted(source.sample(range(4), source.choice((0, 1, 2))))
    return value


# Keys that only work together.
SIX = ["sliding_attention", "full_attention"] * 3
TOGETHER: dict[str, dict[str, dict[str, Any]]] = {
    kind: {
        "experts": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 36},
        "shared": {"num_hidden_layers": 6, "layer_types": SIX, "num_kv_shared_layers": 3},
        "shared-equal": {
            "num_hidden_layers": 6,
            "layer_types": SIX,
            "num_kv_shared_layers": 2,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
        },
        "equal": {"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    }
    for kind in ("gemma4_text", "gemma4_unified_text", "diffusion_gemma_text")
}


def variants(cls: Any) -> list[dict[str, Any]]:
    """Changes that published configs of a type, or of its sections' types, come with."""
    found = [*HUB.get(cls.model_type, {}).values(), *TOGETHER.get(cls.model_type, {}).values()]
    for name, spec in cls.sub_configs_defaults.items():
        found += [{name: inner} for inner in variants(config_class(spec))]
    return found


class Explorer:
    """The runs of a type so far, and what is known of it."""

    def __init__(self, model_type: str, seed: int = 0) -> None:
        self.cls = CONFIG_MAPPING[model_type]
        self.name = class_of(model_type)
        self.source = random.Random(f"{seed} {model_type}")
        self.keys = base_keys(model_type)
        self.pool, self.failures = Pool(), Counter[str]()
        self.words: dict[str, list[Any]] = {}
        self.relevant: set[str] = set()
        self.runs = [run(self.cls, self.name, self.keys, self.pool)]
        # Keys beside the fields: those that the class's source names, and attributes that it computes, which a config may state.
        fields = {*own_fields(self.cls), *self.cls.sub_configs_defaults}
        beside = [
            *literals(self.cls),
            *(name for name in self.runs[0].attributes if name.split(".")[0] not in fields and "." not in name),
        ]
        self.literals = [one for one in dict.fromkeys(beside) if one not in NEVER and one not in BASE]
        self.variants = variants(self.cls)

    def explore(self, attempts: int) -> list[Run]:
        """More runs, of configs changed at random."""
        first = len(self.runs)
        for _ in range(attempts):
            self.learn_words(self.runs[-1])
            extra = [*self.literals, *self.pool.extra()]
            keys = change(self.cls, self.keys, self.words, extra, self.relevant, self.thresholds(), self.source)
            if self.variants and self.source.random() < 0.3:
                keys = merge(keys, self.source.choice(self.variants))
            try:
                self.runs.append(run(self.cls, self.name, keys, self.pool))
            except Exception as error:  # noqa: BLE001 - a class refuses many changed configs, each in its own way
                self.failures[f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"] += 1
        return self.runs[first:]

    def focus(self) -> None:
        """From now on only keys are changed that a shape or a condition was seen to ask for."""
        found: set[str] = set()
        for made in self.runs:
            for by_place in made.parameters.values():
                for label in by_place.values():
                    found.update(*map(names, label), ())
        for condition in self.pool.model | self.pool.config:
            if condition[0] not in ("null", "truth", "has") or condition in self.pool.model:
                found |= names(condition)
        for name in list(found):
            for made in self.runs:
                trace = made.computed.get(name, "")
                for one in trace if isinstance(trace, list) else [trace]:
                    found |= names(one)
        self.relevant = found | {"tie_word_embeddings"}

    def thresholds(self) -> dict[str, list[int]]:
        """Values around the numbers that keys were compared with."""
        found: dict[str, list[int]] = defaultdict(list)
        for word, *sides in self.pool.model | self.pool.config:
            if word in ("<", "=="):
                for key, number in (sides, sides[::-1]):
                    if isinstance(key, str) and type(number) is int and not key.startswith("'") and abs(number) < 100:
                        found[key] += [max(0, number - 1), number, number + 1]
        return found

    def learn_words(self, made: Run) -> None:
        for path, value in made.attributes.items():
            if isinstance(value, list) and value and ("type" in path or "pattern" in path):
                self.words[path] = list(
                    dict.fromkeys(one for one in [*self.words.get(path, []), *value] if isinstance(one, (str, int)))
                )
        for word, *sides in self.pool.model:
            if (
                word == "=="
                and isinstance(sides[0], tuple)
                and sides[0][0] == "[]"
                and sides[0][1] in self.words
                and isinstance(sides[1], str)
            ):
                path = sides[0][1]
                self.words[path] = list(dict.fromkeys([*self.words[path], sides[1][1:]]))
