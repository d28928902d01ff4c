"""The GitHub Action: its own steps, run by bash as GitHub runs them, over checkouts that pass, that fail, and that are hostile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
# 36 layers × 8 heads × 128 × 2 of keys and values × 2 B: 147,456 B a token, 4.5 GiB for 32,768 tokens.
QWEN = {
    "model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "intermediate_size": 12288, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip


class Done:
    """A run of the action: its exit code, log and summary."""

    def __init__(self, code: int, log: str, summary: str) -> None:
        self.code, self.log, self.summary = code, log, summary

    @property
    def errors(self) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith("::")]


def run(checkout: Path, **inputs: str) -> Done:
    """The action's steps as a runner does them: inputs put into env, each step's shell in the checkout."""
    known = ACTION["inputs"]
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert set(given) <= set(known)
    values = {name: given.get(name, one.get("default", "")) for name, one in known.items()}
    side = checkout.parent / "runner"
    (side / "bin").mkdir(parents=True, exist_ok=True)
    python = side / "bin" / "python3"
    if not python.exists():
        python.symlink_to(sys.executable)
    summary = side / "summary.md"
    summary.write_text("")
    log, code = "", 0
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        script = side / "step.sh"
        script.write_text(step["run"])
        filled = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: values[match[1]], text)
            for name, text in step["env"].items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=checkout, capture_output=True, text=True, check=False,
            env={
                "PATH": f"{side / 'bin'}:{os.environ['PATH']}", "HOME": str(side), "GITHUB_ACTION_PATH": str(ROOT),
                "GITHUB_WORKSPACE": str(checkout), "GITHUB_STEP_SUMMARY": str(summary), "PYTHONPATH": str(checkout), **filled,
            },
        )  # fmt: skip
        assert done.stderr == ""
        log, code = log + done.stdout, code or done.returncode
    return Done(code, log, summary.read_text())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    found = tmp_path / "checkout"
    put(found, "models/small", QWEN)
    return found


def put(checkout: Path, folder: str, config: object) -> Path:
    (checkout / folder).mkdir(parents=True)
    path = checkout / folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_no_expression_stands_in_a_shell() -> None:
    assert ACTION["runs"]["using"] == "composite"
    used = set()
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        for text in step["env"].values():
            match = re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", text)
            assert match is not None
            used.add(match[1])
    assert used == set(ACTION["inputs"])


def test_what_fits_passes(checkout: Path) -> None:
    # To the byte: 32,768 × 147,456 B is allowed, one less is not.
    done = run(checkout, budget=str(32768 * 147456))
    assert (done.code, done.log) == (0, "fits: models/small/config.json\n1 of 1 fit\n")
    assert "| ✅ | <code>models/small/config.json</code> |" in done.summary
    assert f"| {32768 * 147456:,} |" in done.summary
    assert run(checkout, budget=str(32768 * 147456 - 1)).code == 1


def test_what_is_too_much_fails_with_one_line_at_its_file(checkout: Path) -> None:
    put(checkout, "models/large", {**QWEN, "num_hidden_layers": 72})
    done = run(checkout, budget="36GiB", batch="8", context="4k,32k")
    assert done.code == 1
    assert done.log.splitlines()[-1] == "1 of 2 fit"
    # 72 layers take twice as much: 8 × 32,768 × 294,912 B are 72 GiB, and half the context fits.
    assert done.errors == [
        "::error file=models/large/config.json::large: 77,309,411,328 B (72.00 GiB) at 32,768 tokens, batch 8; expected at most "
        "38,654,705,664 B (36.00 GiB): the longest context that fits is 16,384 tokens"
    ]
    assert done.summary.count("❌") == done.summary.count("✅") == 1
    assert all(line.count("|") == 6 for line in done.summary.splitlines() if line.startswith("|"))


def test_a_gpu_is_planned_for_whole(checkout: Path) -> None:
    done = run(checkout, gpu="L4", context="8k", budget="2GiB", options="gpu_memory_utilization=0.95", engine="vllm")
    assert done.code == 1  # estimate has no such option, and says so
    assert "gpu_memory_utilization" in done.errors[0]
    assert run(checkout, gpu="L4", context="8k").code == 0
    done = run(checkout, gpu="L4", context="32k", batch="16")
    assert done.code == 1
    assert "16 requests of 32,768 tokens do not fit one GPU of L4" in done.errors[0]
    assert run(checkout, gpu="L4", gpus="8", context="32k", batch="16").code == 0
    assert run(checkout, gpu_memory="24GiB", context="8k").code == 0


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "budget: nothing given; expected budget, gpu or gpu-memory"),
        ({"budget": "40GiB", "config": "nowhere/*.json"}, "config: no file is named 'nowhere/*.json'"),
        ({"budget": "40GiB", "config": "/etc/*"}, "config: '/etc/*'; expected a path from the top of the checkout"),
        ({"budget": "lots"}, "at_most: 'lots'; expected bytes such as 60GiB"),
        ({"budget": "40GiB", "engine": "vlm"}, "nearest: vllm"),
        ({"budget": "40GiB", "engine": "vllm --help; touch pwned"}, "expected one of"),
        ({"budget": "40GiB", "dtype": "$(touch pwned)"}, "dtype: '$(touch pwned)'"),
        ({"budget": "`touch pwned`"}, "at_most: '`touch pwned`'"),
        ({"budget": "40GiB", "options": "$(touch pwned) --help"}, "expected KEY=VALUE"),
        ({"budget": "40GiB", "context": "1'; touch pwned; '"}, "expected a whole number"),
        ({"budget": "40GiB", "config": "$(touch pwned)\n; touch pwned"}, "no file is named"),
        ({"gpu": "--help"}, "gpu: '--help'"),
    ],
)
def test_bad_inputs_fail_in_one_line(checkout: Path, inputs: dict[str, str], words: str) -> None:
    done = run(checkout, **inputs)
    assert done.code == 1
    assert len(done.errors) == 1
    assert words in done.errors[0], done.errors
    assert not list(checkout.rglob("pwned"))


def test_configs_that_are_not_answered_fail(checkout: Path) -> None:
    put(checkout, "models/unknown", {"model_type": "lama"})
    (put(checkout, "models/broken", {}).parent / "config.json").write_text("{")
    done = run(checkout, budget="40GiB")
    assert done.code == 1
    assert len(done.errors) == 2
    assert any("'lama' is not described; nearest: " in line for line in done.errors)


def test_hostile_names_and_files_do_nothing(checkout: Path) -> None:
    names = [
        "$(touch pwned)", "`touch pwned`", "; touch pwned #", "-O x=1", "--help", "a\n::add-mask::secret", "a\r::stop-commands::x",
        "a|b<img src=x>", "a:b,c%0A", "\udcff", "\x1b[31m",
    ]  # fmt: skip
    for name in names:
        put(checkout, name, {**QWEN, "num_hidden_layers": 72})
    # Modules that a careless Python would import, links that lead out, and links around in a circle.
    for module in ("json.py", "subprocess.py", "memcurve/__init__.py", "memcurve/__main__.py", "sitecustomize.py"):
        (checkout / module).parent.mkdir(exist_ok=True)
        (checkout / module).write_text("open('pwned', 'w').close()\n")
    secret = checkout.parent / "secret.json"
    secret.write_text('{"model_type": "hunter2"}')
    (checkout / "out").mkdir()
    (checkout / "out" / "config.json").symlink_to(secret)
    (checkout / "gone").mkdir()
    (checkout / "gone" / "config.json").symlink_to("nowhere")
    (checkout / "circle").mkdir()
    (checkout / "circle" / "config.json").symlink_to("config.json")
    (checkout / "folder").mkdir()
    (checkout / "folder" / "config.json").symlink_to("..")
    put(checkout, ".git/hooks", {"model_type": "lama"})
    for link in ("b", "c", "d"):
        (checkout / link).symlink_to(".")
    done = run(checkout, budget="5GiB")
    assert done.code == 1
    assert len(done.errors) == len(names) + 4
    assert all(re.match(r"::error file=[^:,\n]+::[^\n]+$", line) for line in done.errors)
    outside = [line for line in done.errors if "leads out of the checkout, or to no file" in line]
    assert [line.partition("=")[2].partition("/")[0] for line in outside] == ["circle", "folder", "gone", "out"]
    # Each was read as the file that it is: 72 layers at 32,768 tokens.
    assert sum(f"{2 * 32768 * 147456:,} B (9.00 GiB)" in line for line in done.errors) == len(names)
    assert "hunter2" not in done.log + done.summary
    assert "<img" not in done.summary
    assert all(line.count("|") == 6 for line in done.summary.splitlines() if line.startswith("|"))
    assert not list(checkout.rglob("pwned"))
    assert "a%3Ab%2Cc%250A/config.json" in done.log


@pytest.mark.parametrize(
    ("glob", "named"),
    [
        ("config.json", []), ("models/small/config.json", ["models/small"]), ("./models/*/config.json", ["models/small"]),
        ("**/config.json", ["models/.hidden/deep", "models/small"]), ("models/**/config.json", ["models/.hidden/deep", "models/small"]),
        ("models/**/deep/*", ["models/.hidden/deep"]), ("models/s[lm]*/c*", ["models/small"]), ("**", ["models/.hidden/deep", "models/small"]),
        ("models/small/config.json\n\nmodels/*/*/config.json", ["models/.hidden/deep", "models/small"]),
        ("../**", []), ("/**", []), ("models/SMALL/*", []), ("**/small", []),
    ],
)  # fmt: skip
def test_globs(checkout: Path, glob: str, named: list[str]) -> None:
    put(checkout, "models/.hidden/deep", QWEN)
    done = run(checkout, budget="40GiB", config=glob)
    assert done.code == (0 if named else 1)
    assert [line for line in done.log.splitlines() if line.startswith("fits")] == [
        f"fits: {one}/config.json" for one in named
    ]


def test_too_many_files(checkout: Path) -> None:
    for number in range(201):
        (checkout / f"{number}.json").write_text("{}")
    assert run(checkout, budget="40GiB", config="*.json").errors == [
        "::error::config: more than 200 files; expected a narrower glob"
    ]


def test_the_workflow_that_the_docs_show(checkout: Path) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    shown = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    (job,) = yaml.safe_load(shown[1])["jobs"].values()
    step = next(step for step in job["steps"] if "memcurve@" in step["uses"])
    # 16 sequences of 32,768 tokens: 72 GiB, and the blocks of vLLM hold them exactly.
    done = run(checkout, **{name: str(value) for name, value in step["with"].items()})
    assert done.code == 1
    assert (
        "77,309,411,328 B (72.00 GiB) at 32,768 tokens, batch 16; expected at most 42,949,672,960 B" in done.errors[0]
    )


def test_an_old_python_is_told(tmp_path: Path) -> None:
    text = (ROOT / "action.py").read_text()
    old = tmp_path / "action.py"
    old.write_text(text.replace("sys.version_info < (3, 11)", "sys.version_info < (99,)"))
    assert old.read_text() != text
    done = subprocess.run([sys.executable, "-I", str(old)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("::error::memcurve needs Python 3.11 or later; python3 is ")
