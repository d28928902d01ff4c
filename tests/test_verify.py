"""`memcurve verify` where torch is missing; verify/test_verify.py holds what needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memcurve import BadConfig, cli


def test_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('none', name='torch')")
    done = subprocess.run(
        [sys.executable, "-m", "memcurve", "verify", "llama"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "memcurve: verify needs torch and transformers (torch): pip install 'memcurve[verify]'\n"


@pytest.mark.parametrize(
    ("engine", "needs"),
    [
        ("vllm", "vllm 0.33.0"),
        ("sglang", "sglang 0.5.23"),
        ("llamacpp", "llama-cpp-python 0.3.36"),
        ("mlx", "mlx-lm 0.32.2"),
    ],
)
def test_without_the_engine(tmp_path: Path, engine: str, needs: str) -> None:
    for name in ("torch", "llama_cpp", "mlx_lm"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('none', name='torch')")
    done = subprocess.run(
        [sys.executable, "-m", "memcurve", "verify", "--engine", engine, "llama"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"memcurve: verify --engine {engine} needs {needs} (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--engine", "sglnag", "llama"], "engine: 'sglnag'; expected transformers, vllm, sglang, llamacpp, mlx"),
        (["--source", ".", "llama"], "source: '.'; expected with --engine vllm or sglang only"),
        (["--engine", "sglang", "--source", "/nowhere", "llama"], "source: '/nowhere'; expected a folder that holds"),
        (["--engine", "sglang", "--trust-remote-code", "llama"], "trust-remote-code: expected with --engine transf"),
        (["--engine", "llamacpp"], "subjects: none"),
    ],
)
def test_bad_arguments(words: list[str], error: str) -> None:
    with pytest.raises(BadConfig) as caught:
        cli.run(["verify", *words])
    assert str(caught.value).startswith(error)
