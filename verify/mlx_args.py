"""Writes src/memcurve/views/mlx_args.json: which keys each module of mlx_lm/models/ reads, and what it assumes without them.

    python verify/mlx_args.py            # needs the pinned mlx-lm (a CPU will do); rewrites the file
    python verify/mlx_args.py --check    # exit 1 if the file is not what would be written

One line per module, and per dataclass of a nested config (`module.text`):

    cache     1 where the module's Model has a make_cache of its own
    required  keys without a default: ModelArgs can't be made without them
    optional  the other keys that it takes
    defaults  of these, what the modules views/mlx*.py ask for and the class has a value for
    numbers   keys of which a null stops the module, in each config of tests/truth/mlx.jsonl that it runs: tried one by one
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

PINNED = "0.32.2"
VIEWS = Path(__file__).parents[1] / "src" / "memcurve" / "views"
TARGET = VIEWS / "mlx_args.json"
TRUTH = Path(__file__).parents[1] / "tests" / "truth" / "mlx.jsonl"
# Dataclasses of nested configs; those that a module only imports belong to another one.
NESTED = ("TextArgs", "TextConfig", "TextModelArgs")


def entry(args: Any, asked: set[str]) -> dict[str, Any]:
    """The line of one dataclass."""
    fields = [field for field in dataclasses.fields(args) if field.init]
    required, optional, defaults = [], [], {}
    for field in fields:
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
            continue
        optional.append(field.name)
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in asked and value not in (None, {}) and field.name != "model_type":
            defaults[field.name] = value
    return {"required": " ".join(required), "optional": " ".join(optional), "defaults": defaults}


def nulls(args: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(args) if field.default is None}


def runs(config: dict[str, Any]) -> bool:
    """Whether a few tokens, and one more, go through the model."""
    from memcurve.verify.mlx import DEFAULTS, NO_METAL, ask_config

    found = ask_config(config, {**DEFAULTS, "schedule": "forward", "prompt": 5, "steps": 1}, {})
    return not isinstance(found, str) or NO_METAL in found


def numbers(lines: dict[str, Any]) -> dict[str, list[str]]:
    """By line, the keys of which a null stops each config that runs."""
    from memcurve import MemcurveError, load
    from memcurve.views.mlx import arguments, module_of

    left: dict[str, list[str]] = {}
    for text in TRUTH.read_text().splitlines()[1:]:
        config = json.loads(text)["config"]
        try:
            described = load(config).config
            args, _ = arguments(module_of(described), described.root)
        except MemcurveError:
            continue
        name = f"{args.model_type}.text" if f"{args.model_type}.text" in lines else args.model_type
        if not runs(config):
            continue
        keys = left.get(name, f"{lines[name]['required']} {lines[name]['optional']}".split())
        left[name] = [key for key in keys if key != "model_type" and not runs(nulled(config, key))]
    return left


def nulled(config: dict[str, Any], key: str) -> dict[str, Any]:
    """A config with a null more, in the section that its model is built from."""
    changed = copy.deepcopy(config)
    section = changed.get("text_config")
    (section if isinstance(section, dict) else changed)[key] = None
    return changed


def build() -> str:
    import mlx_lm
    import mlx_lm.models

    version = mlx_lm.__version__
    if version != PINNED:
        raise SystemExit(f"mlx-lm {version} is installed; expected {PINNED}")
    # olmo.py exits without this package, of which it uses nothing.
    sys.modules.setdefault("hf_olmo", types.ModuleType("hf_olmo"))
    asked = set(re.findall(r'"(\w+)"', "".join(path.read_text() for path in VIEWS.glob("mlx*.py"))))
    lines: dict[str, Any] = {}
    unset: dict[str, set[str]] = {}
    for path in sorted(Path(mlx_lm.models.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"mlx_lm.models.{path.stem}")
        if not hasattr(module, "Model"):
            continue
        own = entry(module.ModelArgs, asked)
        unset[path.stem] = nulls(module.ModelArgs)
        lines[path.stem] = {"cache": 1, **own} if hasattr(module.Model, "make_cache") else own
        for name in NESTED:
            nested = getattr(module, name, None)
            if dataclasses.is_dataclass(nested) and nested.__module__ == module.__name__:
                lines[f"{path.stem}.text"] = entry(nested, asked)
                unset[f"{path.stem}.text"] = nulls(nested)
    for name, keys in numbers(lines).items():
        if keys:
            lines[name]["numbers"] = " ".join(keys)
        # A key that can't be null and is so without being given has to be.
        lines[name]["defaults"] |= {key: None for key in keys if key in unset[name]}
    body = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(lines[name], separators=(',', ':'), sort_keys=True)}" for name in sorted(lines)
    )
    return "{\n" + body + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = build()
    if options.check:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
