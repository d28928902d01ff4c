"""Arrows point one way, and a cold start imports what it uses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "memcurve"
# What a module may import of memcurve, at import time or later. Everything may import base and units.
MAY = {
    "base": set(),
    "units": set(),
    "layers": set(),
    "buffers": set(),
    "terms": {"buffers"},
    "lengths": set(),
    "lines": {"buffers", "terms"},
    "steady": {"lengths", "terms"},
    "arrays": {"curve", "terms"},
    "curve": {"lengths", "lines", "steady", "terms"},
    "config": set(),
    "families": {"config", "layers", "families"},
    "engines": {"buffers", "terms", "layers", "engines"},
    "files": set(),
    "gguf": {"files"},
    "checkpoint": {"checkpoint", "config", "families", "files", "gguf", "hub", "layers", "model"},
    "views": {"config", "families", "gguf", "layers", "views"},
    "catalog": {"config"},
    "hub": {"config", "catalog"},
    "gpus": set(),
    "model": {"config", "families", "curve", "terms", "engines", "layers", "catalog", "gguf", "hub", "views"},
    "patterns": {"model", "layers"},
    "export": {"crossed", "curve", "engines", "gpus", "lines", "terms"},
    "seed": {"curve", "terms", "engines", "export", "layers"},
    "fits": {"curve", "engines", "model"},
    "heat": {"curve", "export", "figures", "fits", "terms"},
    "marks": {"crossed", "export"},
    "crossed": {"curve", "export"},
    "figures": {"curve", "export", "marks"},
    "logs": {"engines", "curve", "model", "terms"},
    "sizes": {"config", "engines", "gguf", "layers", "model", "views"},
    "startup": {"engines", "logs"},
    "plan": {"checkpoint", "curve", "engines", "gpus", "model", "sizes", "terms", "views"},
    "fitting": {
        "catalog",
        "checkpoint",
        "config",
        "curve",
        "engines",
        "gpus",
        "lengths",
        "model",
        "plan",
        "sizes",
        "startup",
        "steady",
        "terms",
        "views",
    },
    "bars": {"figures", "fitting"},
    "traces": {"curve", "engines", "figures", "files", "fitting", "lengths", "model", "plan", "terms", "traces"},
    "compare": {"curve", "engines", "fitting", "model"},
    "pages": {"engines", "fitting", "plan", "terms"},
    "site": {
        "catalog",
        "checkpoint",
        "curve",
        "engines",
        "fitting",
        "gpus",
        "layers",
        "model",
        "pages",
        "plan",
        "terms",
        "memcurve",
    },
    "shapes": {"shapes", "terms"},
    "schema": {"catalog", "crossed", "curve", "engines", "export", "fits", "gpus", "heat", "layers", "model", "terms"},
    "web": {
        "checkpoint",
        "compare",
        "crossed",
        "curve",
        "engines",
        "export",
        "files",
        "fitting",
        "gguf",
        "gpus",
        "memcurve",
        "model",
        "pages",
        "patterns",
        "schema",
        "shapes",
        "terms",
        "config",
        "web",
    },
    "cli": {
        "bars",
        "traces",
        "checkpoint",
        "cli",
        "compare",
        "fitting",
        "steady",
        "site",
        "crossed",
        "fits",
        "heat",
        "logs",
        "config",
        "engines",
        "model",
        "patterns",
        "curve",
        "export",
        "terms",
        "figures",
        "schema",
        "seed",
        "catalog",
        "families",
        "gpus",
        "layers",
        "memcurve",
        "sweeps",
        "verify",
        "views",
        "web",
    },
    "sweeps": {"arrays", "curve", "engines", "gguf", "memcurve", "model", "patterns", "schema", "sweeps", "terms"},
    "shrink": {"config", "families", "model"},
    "verify": {
        "verify",
        "catalog",
        "config",
        "curve",
        "model",
        "shrink",
        "engines",
        "families",
        "gguf",
        "layers",
        "views",
    },
    "memcurve": {"checkpoint", "curve", "fits", "heat", "model", "patterns", "figures", "fitting", "sweeps", "traces"},
    "__main__": {"cli"},
}


def imported(path: Path) -> set[str]:
    """The memcurve modules that a file imports anywhere, but for checks only."""
    package = path.relative_to(SOURCE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            parts = [*base, *(node.module.split(".") if node.module else [])]
            if parts:
                found.add(parts[0])
            else:
                found.update(
                    alias.name
                    if (SOURCE / f"{alias.name}.py").exists() or (SOURCE / alias.name).is_dir()
                    else "memcurve"
                    for alias in node.names
                )
    return found


def test_imports_point_one_way() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = parts[0] if parts != ("__init__",) else "memcurve"
        extra = imported(path) - MAY[name] - {"base", "units"}
        assert not extra, f"{path.name} imports {', '.join(sorted(extra))}"


def test_layers_and_curve_know_only_the_standard_library() -> None:
    for name in ("base", "layers", "terms", "lines", "curve"):
        for node in ast.walk(ast.parse((SOURCE / f"{name}.py").read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(str(node.module))
            outside = {word.split(".")[0] for word in names} - sys.stdlib_module_names - {"numpy"}
            assert not outside


def test_engines_name_no_model_type_and_no_config_key() -> None:
    from memcurve.families import model_types

    keys = {"num_hidden_layers", "hidden_size", "num_key_value_heads", "sliding_window", "layer_types"}
    words = keys | (set(model_types()) - {"mamba", "mamba2", "rwkv", "rwkv7", "git", "yi"})
    for path in (SOURCE / "engines").glob("*.py"):
        texts = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()
        }
        assert not texts & words, path.name


def test_a_cold_estimate_imports_little() -> None:
    code = (
        "import sys; sys.argv = ['memcurve', 'estimate', 'openai/gpt-oss-20b', '--dtype', 'bf16', '--context', '9', '--json'];"
        "from memcurve.cli import main; main(); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    heavy = {
        "numpy",
        "matplotlib",
        "dataclasses",
        "inspect",
        "shutil",
        "pathlib",
        "importlib.resources",
        "huggingface_hub",
        "fastapi",
        "pydantic",
        "uvicorn",
    }
    assert not loaded & heavy


def test_importing_memcurve_brings_no_extra() -> None:
    code = "import sys, memcurve, memcurve.cli, memcurve.cli.serve, memcurve.cli.mcp, memcurve.schema; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout)}
    assert not loaded & {
        "fastapi", "starlette", "pydantic", "uvicorn", "mcp", "matplotlib", "numpy", "huggingface_hub", "pyarrow",
    }  # fmt: skip
