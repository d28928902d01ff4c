"""Asks MLX-LM itself what its caches have allocated, and compares: mlx-lm 0.32.2, mlx 0.32.4, on a CPU.

    memcurve verify --engine mlx SUBJECT...               # catalogue names, config.json paths, model types
    python -m memcurve.verify.mlx                         # in a checkout: every case of tests/truth/mlx.jsonl again
    python -m memcurve.verify.mlx llama gemma3            # only the variants whose names begin so
    python -m memcurve.verify.mlx --write                 # writes the file anew
    python -m memcurve.verify.mlx --add configs.json      # records {variant: config} as well, under every workload

Models are built by MLX-LM from the config alone, at full size: MLX computes nothing that is not asked for, and a cache's
nbytes follow from shapes. So the loops are MLX-LM's own (a forward and maybe_quantize_kv_cache, generate_step,
BatchGenerator), and no weight is ever made.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..base import BadConfig, MemcurveError, MissingExtraError, NotDescribed, Refused
from ..model import load
from . import Outcome, read_config, unrun

PINNED = "0.32.2"
STUBBED = "stubbed: evaluation (no weight is made and no forward computed, every token is 0; sizes follow from shapes)."
ROOT = Path(__file__).resolve().parents[3]  # in a checkout
# A workload: who feeds the tokens, sequences, tokens of their prompts and how many come after; engine options by their names.
DEFAULTS: dict[str, Any] = {
    "schedule": "generate_step", "batch": 1, "prompt": 300, "steps": 2, "max_kv_size": None, "kv_bits": None,
    "kv_group_size": 64, "quantized_kv_start": 5000, "prefill_step_size": 2048, "dtype": "bfloat16", "lengths": None,
}  # fmt: skip
NO_METAL = "No Metal back-end"  # what bitnet.py's kernel needs
OPTIONS = ("max_kv_size", "kv_bits", "kv_group_size", "quantized_kv_start", "prefill_step_size")
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"prompt": 1, "steps": 0},
    {"prompt": 2, "steps": 1},
    {"prompt": 5000, "steps": 1},
    {"prompt": 700, "prefill_step_size": 100},
    {"prompt": 1500, "prefill_step_size": 257, "steps": 0},
    {"prompt": 6500, "prefill_step_size": 2000},
    {"schedule": "forward", "steps": 0},
    {"schedule": "forward", "prompt": 5000, "steps": 1, "batch": 2},
    {"schedule": "forward", "prompt": 255, "steps": 2},
    {"schedule": "forward", "prompt": 1, "steps": 256},
    {"schedule": "batch_generator", "batch": 2, "lengths": [300, 3]},
    {"schedule": "batch_generator", "batch": 3, "prompt": 3000, "lengths": [3000, 7, 2900], "steps": 3},
    {"max_kv_size": 512, "prompt": 900},
    {"max_kv_size": 1024, "prompt": 5000, "schedule": "forward"},
    {"kv_bits": 4, "quantized_kv_start": 0},
    {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 400, "prompt": 1000, "prefill_step_size": 256},
    {"kv_bits": 6, "kv_group_size": 128, "prompt": 4999, "steps": 3},
    {"dtype": "float16", "prompt": 77},
    {"dtype": "float32", "schedule": "forward", "prompt": 1000, "steps": 1},
)


# --- MLX-LM's answers ---


def mlx_lm() -> Any:
    """mlx_lm.generate, with the modules beside it loaded."""
    try:
        # olmo.py exits without this package, of which it uses nothing.
        sys.modules.setdefault("hf_olmo", ModuleType("hf_olmo"))
        for name in ("mlx_lm.utils", "mlx_lm.models.cache"):
            importlib.import_module(name)
        return importlib.import_module("mlx_lm.generate")
    except ImportError as error:
        raise MissingExtraError(
            f"verify --engine mlx needs mlx-lm {PINNED} ({error.name or error}): pip install 'mlx-lm=={PINNED}' 'mlx[cpu]'"
        ) from None


def installed() -> str:
    mlx_lm()
    return str(sys.modules["mlx_lm"].__dict__["__version__"])


def build(config: dict[str, Any], dtype: str) -> Any:
    """The model of a config, its parameters in one dtype and never made."""
    mlx_lm()
    mx = importlib.import_module("mlx.core")
    model_class, args_class = sys.modules["mlx_lm.utils"].__dict__["_get_classes"](config)
    model = model_class(args_class.from_dict(config))
    model.set_dtype(getattr(mx, dtype))
    return model


@contextmanager
def unevaluated() -> Iterator[None]:
    """MLX-LM's loops as they are, but that no array is computed."""
    generate = mlx_lm()
    own = generate.mx

    class Lazy:
        def __getattr__(self, name: str) -> Any:
            return (lambda *arrays: None) if name in ("eval", "async_eval", "clear_cache") else getattr(own, name)

    generate.mx = Lazy()
    try:
        yield
    finally:
        generate.mx = own


def ask(model: Any, workload: dict[str, Any]) -> int | str:
    """Bytes that the caches have allocated after a workload, or what MLX-LM raises."""
    run = {"forward": run_forward, "generate_step": run_generate_step, "batch_generator": run_batch}[
        workload["schedule"]
    ]
    try:
        with unevaluated():
            return sum(int(cache.nbytes) for cache in run(model, workload))
    except Exception as error:  # noqa: BLE001 - what it raises is the answer
        return raised(error)


def raised(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def ask_config(config: dict[str, Any], workload: dict[str, Any], models: dict[str, Any]) -> int | str:
    """The same of a config; models: those that are built, by dtype."""
    dtype = workload["dtype"]
    try:
        models[dtype] = models.get(dtype) or build(config, dtype)
    except Exception as error:  # noqa: BLE001 - what it raises is the answer
        return raised(error)
    return ask(models[dtype], workload)


def caches_for(model: Any, workload: dict[str, Any]) -> list[Any]:
    made: list[Any] = sys.modules["mlx_lm.models.cache"].__dict__["make_prompt_cache"](model, workload["max_kv_size"])
    return made


def run_forward(model: Any, workload: dict[str, Any]) -> list[Any]:
    """One forward of the whole prompt, then single tokens, quantised after each as generate_step does."""
    mx = importlib.import_module("mlx.core")
    caches = caches_for(model, workload)
    for tokens in (workload["prompt"], *[1] * workload["steps"]):
        model(mx.zeros((workload["batch"], tokens), mx.int32), cache=caches)
        mlx_lm().maybe_quantize_kv_cache(
            caches, workload["quantized_kv_start"], workload["kv_group_size"], workload["kv_bits"]
        )
    return caches


def run_generate_step(model: Any, workload: dict[str, Any]) -> list[Any]:
    mx = importlib.import_module("mlx.core")
    caches = caches_for(model, workload)
    options = {name: workload[name] for name in OPTIONS if name != "max_kv_size"}
    tokens = mlx_lm().generate_step(
        mx.zeros((workload["prompt"],), mx.int32),
        model,
        max_tokens=workload["steps"],
        prompt_cache=caches,
        sampler=lambda logprobs: mx.zeros((1,), mx.int32),
        **options,
    )
    for _ in tokens:
        pass
    return caches


def run_batch(model: Any, workload: dict[str, Any]) -> list[Any]:
    """Prompts of `lengths`, or all of one; until the longest has all its tokens."""
    mx = importlib.import_module("mlx.core")
    generator = mlx_lm().BatchGenerator(
        model,
        max_tokens=workload["steps"] + 1000,
        sampler=lambda logprobs: mx.zeros((logprobs.shape[0],), mx.int32),
        prefill_step_size=workload["prefill_step_size"],
        max_kv_size=workload["max_kv_size"],
    )
    lengths = workload["lengths"] or [workload["prompt"]] * workload["batch"]
    longest = generator.insert([[0] * length for length in lengths])[lengths.index(max(lengths))]
    batch = generator._generation_batch
    while longest not in batch.uids or len(batch.tokens[batch.uids.index(longest)]) < max(lengths) + workload["steps"]:
        generator.next()
        batch = generator._generation_batch
    return list(batch.prompt_cache)


# --- memcurve's answers, and the comparison ---


def found(config: dict[str, Any], workload: dict[str, Any]) -> int | str:
    """Bytes after a workload, or why MLX-LM raises: memcurve's answer in the form of `ask`."""
    options = {name: workload[name] for name in OPTIONS}
    if workload["schedule"] == "batch_generator":
        options = {name: options[name] for name in ("max_kv_size", "prefill_step_size")}
    try:
        curve = load(config).curve(
            "mlx", workload["dtype"], schedule=workload["schedule"], prompt=workload["prompt"], **options
        )
        total: int = curve.bytes(workload["prompt"] + workload["steps"], workload["batch"])
        return total
    except Refused as error:
        return str(error)


def same(mine: int | str, theirs: int | str) -> bool:
    """Equal bytes; or both refuse, whatever their words."""
    return mine == theirs or (isinstance(mine, str) and isinstance(theirs, str))


def compare(subjects: Iterable[str], source: str | None = None) -> Iterator[Outcome]:
    """Per subject (a model type, a catalogue name, a config.json) what MLX-LM's loops allocate under ASKED."""
    installed()
    for subject in subjects:
        try:
            config = read_config(subject)
            mine = found(config, {**DEFAULTS, **ASKED[0]})
        except (NotDescribed, BadConfig) as error:
            yield unrun(subject, error, "refused by memcurve")
            continue
        try:
            models = {name: build(config, name) for name in ("bfloat16", "float16", "float32")}
        except Exception as error:  # noqa: BLE001 - MLX-LM's own complaint is the answer
            if isinstance(mine, str):
                yield Outcome(subject, 1, 1, None, "")
            else:
                yield unrun(subject, error)
            continue
        yield compare_model(subject, config, models)


def compare_model(name: str, config: dict[str, Any], models: dict[str, Any]) -> Outcome:
    equal, difference = 0, ""
    for change in ASKED:
        workload = {**DEFAULTS, **change}
        try:
            mine = found(config, workload)
        except MemcurveError as error:
            mine = -1
            difference = difference or str(error)
        theirs = ask(models[workload["dtype"]], workload)
        if NO_METAL in str(theirs):
            return unrun(name, RuntimeError(str(theirs)), "needs a Mac")
        equal += same(mine, theirs)
        if not same(mine, theirs) and not difference:
            words = ", ".join(f"{key} {value}" for key, value in change.items()) or "defaults"
            difference = f"{words}: memcurve {mine}, MLX-LM {theirs}"
    return Outcome(name, len(ASKED), equal, None, difference)


# --- recording, in a checkout ---


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--add", type=Path)
    asked = parser.parse_args()
    path = ROOT / "tests" / "truth" / "mlx.jsonl"
    first, *entries = (json.loads(line) for line in path.read_text().splitlines())
    workloads = [dict(zip(first["names"], values, strict=True)) for values in first["workloads"]]
    if asked.add:
        added = json.loads(asked.add.read_text()).items()
        numbers = range(len(workloads))
        entries += [{"variant": name, "config": config, "cases": [[one] for one in numbers]} for name, config in added]
    cases = changed = wrong = unasked = 0
    for entry in entries:
        if asked.names and not entry["variant"].startswith(tuple(asked.names)):
            continue
        models: dict[str, Any] = {}
        for case in entry["cases"]:
            number, *before = case
            workload = workloads[number]
            now, mine = ask_config(entry["config"], workload, models), found(entry["config"], workload)
            if NO_METAL in str(now):
                unasked += 1
                continue
            case[1:] = [now]
            cases += 1
            changed += not before or not same(now, before[0])
            if not same(mine, now):
                wrong += 1
                print(f"{entry['variant']}: {workload}: memcurve {mine}, MLX-LM {now}")
    print(f"{cases} cases asked, {changed} not as recorded; memcurve: {wrong} otherwise; {unasked} need a Mac")
    if asked.write:
        lines = [first, *entries]
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return int(bool(changed or wrong) and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
