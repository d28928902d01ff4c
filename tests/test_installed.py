"""memcurve as others install and start it: by uvx and pipx from a checkout and from a wheel, with an extra, and as `hf memcurve`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASK = ["estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--context", "131072", "--json"]
# 12 layers × 131,072 × 2·256·2 × 2 B, and 36 × (8,192 × 3 × 2 B + 32·128·128 × 4 B) of states.
BYTES = 12 * 131072 * 2048 + 36 * (8192 * 3 * 2 + 32 * 128 * 128 * 4)


def tool(name: str) -> str:
    """A program beside this Python, or on the path."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = shutil.which(name, path=beside)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install '.[dev]'")
    return found


def run(command: list[str], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program's run in an empty folder, with a home of its own; packages come from where pip is told to look."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    (home / "empty").mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command, cwd=home / "empty", capture_output=True, text=True, check=False, timeout=600,
        env={**own, "HF_HUB_OFFLINE": "1", "PIPX_HOME": str(home / "pipx"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stderr[-3000:], done.stdout[-3000:])
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([tool("uv"), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], folder)
    return next(folder.glob("memcurve-*.whl"))


UVX = ["tool", "run", "--refresh-package", "memcurve", "--from"]
PIPX = ["run", "--no-cache", "--spec"]


@pytest.mark.parametrize(("program", "words"), [("uv", UVX), ("pipx", PIPX)])
def test_one_shot(program: str, words: list[str], wheel: Path, tmp_path: Path) -> None:
    for spec in (str(ROOT), str(wheel)):
        done = run([tool(program), *words, spec, "memcurve", *ASK], tmp_path)
        assert json.loads(done.stdout)["bytes"] == BYTES == 3298492416


@pytest.mark.parametrize(("program", "words"), [("uv", UVX), ("pipx", PIPX)])
def test_one_shot_with_an_extra(program: str, words: list[str], wheel: Path, tmp_path: Path) -> None:
    spec = f"memcurve[plot] @ {wheel.as_uri()}"
    run([tool(program), *words, spec, "memcurve", "plot", "3gdn:1mha", "-o", str(tmp_path / "a.svg")], tmp_path)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


# GitHub's answers to `hf extensions install OWNER/hf-memcurve`, from this checkout: pages that are there, files of the
# repository (hf takes a file hf-memcurve of its top for the whole extension), a commit, and the archive that pip is given.
HUB = """
import subprocess, sys
from pathlib import Path
from types import SimpleNamespace
from huggingface_hub.cli import extensions, hf

root, archive = Path({root!r}), {archive!r}

def github(method, url, **_):
    if url.startswith("https://raw.githubusercontent.com/someone/hf-memcurve/HEAD/"):
        data = (root / url.rpartition("/HEAD/")[2]).read_bytes()
        return SimpleNamespace(content=data, text=data.decode())
    assert url.startswith("https://github.com/someone/hf-memcurve"), url
    return SimpleNamespace(text="{commit} HEAD\\0")

def run(command, **options):
    return real([archive if word.startswith("https://") else word for word in command], **options)

real, subprocess.run, extensions._github_request = subprocess.run, run, github
sys.argv = ["hf", "extensions", "install", "someone/hf-memcurve"]
hf.main()
"""


def test_hf_memcurve(tmp_path: Path) -> None:
    pytest.importorskip(
        "huggingface_hub.cli.extensions",
        reason="this huggingface_hub has no extensions: pip install -U huggingface_hub",
    )
    archive = tmp_path / "HEAD.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            file.write(ROOT / name, f"hf-memcurve-HEAD/{name}")
        for path in sorted((ROOT / "src").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path, f"hf-memcurve-HEAD/{path.relative_to(ROOT)}")
    home = {"HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    code = HUB.format(root=str(ROOT), archive=str(archive), commit="a" * 40)
    run([sys.executable, "-c", code], tmp_path, **home)
    manifest = json.loads((tmp_path / ".local/share/hf/extensions/hf-memcurve/manifest.json").read_text())
    assert (manifest["type"], manifest["short_name"]) == ("python", "memcurve")
    assert manifest["description"].startswith("Exactly how many bytes")
    hub = tool("hf")
    done = run([hub, "memcurve", *ASK], tmp_path, **home)
    assert json.loads(done.stdout)["bytes"] == BYTES
    assert run([hub, "memcurve", "estimate", "--help"], tmp_path, **home).stdout.startswith(
        "usage: hf memcurve estimate "
    )
    assert "hf memcurve COMMAND" in run([hub, "memcurve"], tmp_path, **home).stdout
    own = {**os.environ, **home, "HF_HUB_OFFLINE": "1"}
    bad = subprocess.run(
        [hub, "memcurve", "estimate", "Qwen3-Nxt"], capture_output=True, text=True, env=own, check=False
    )
    assert (bad.returncode, bad.stdout) == (3, "")
    assert "nearest: Qwen/Qwen3-Next" in bad.stderr
    assert "memcurve" in run([hub, "--help"], tmp_path, **home).stdout
