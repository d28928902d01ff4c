"""memcurve completion, by the shells themselves: a key press in bash and zsh, complete -C in fish."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memcurve
from memcurve import catalog, cli, gpus, load
from memcurve.cli.completion import SHELLS, everything, words
from memcurve.engines import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is typed, up to the key press, and the words that the command then gets.
TYPED = [
    ("memcurve est", ["estimate"]),
    ("memcurve estimate Qwen/Qwen3-Next", ["estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking"]),
    ("memcurve estimate --batch 4 openai/gpt-oss-2", ["estimate", "--batch", "4", "openai/gpt-oss-20b"]),
    ("memcurve estimate mine/conf", ["estimate", "mine/config.json"]),
    ("memcurve estimate openai/gpt-oss-20b --engine vl", ["estimate", "openai/gpt-oss-20b", "--engine", "vllm"]),
    ("memcurve estimate openai/gpt-oss-20b --dtype bfl", ["estimate", "openai/gpt-oss-20b", "--dtype", "bfloat16"]),
    ("memcurve estimate openai/gpt-oss-20b --expl", ["estimate", "openai/gpt-oss-20b", "--explain"]),
    ("memcurve fit x --gpu RTX-4090-", ["fit", "x", "--gpu", "RTX-4090-D"]),
    ("memcurve check-log server.l", ["check-log", "server.log"]),
    ("memcurve check-log server.log --model deepseek-ai/DeepSeek-V3.", ["check-log", "server.log", "--model", "deepseek-ai/DeepSeek-V3.2"]),
    ("memcurve compare 3gdn:1mha google/gemma-3-27", ["compare", "3gdn:1mha", "google/gemma-3-27b-it"]),
    ("memcurve plot Qwen/Qwen3-8B 3gdn:1mha --log x google/gemma-3-27", ["plot", "Qwen/Qwen3-8B", "3gdn:1mha", "--log", "x", "google/gemma-3-27b-it"]),
    ("memcurve completion zs", ["completion", "zsh"]),
]  # fmt: skip


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab")
    assert cli.run(["completion", shell]) == 0
    return capsys.readouterr().out


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed (apt-get install {shell})")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    (tmp_path / "server.log").write_text("")
    return tmp_path


class Terminal:
    """A shell that is typed to."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # pragma: no cover - the shell
            os.chdir(folder)
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "TERM": "dumb",
                "PS1": "",
                "LC_ALL": "C.UTF-8",
            }
            os.execve(command[0], command, environment)
        self.seen = ""

    def type(self, keys: str, until: str, seconds: float = 20) -> str:
        """Types keys, and reads on until a text stands there."""
        os.write(self.fd, keys.encode())
        start, end = len(self.seen), time.monotonic() + seconds
        while until not in self.seen[start:]:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {until!r} after {keys!r}; the terminal shows {self.seen[-2000:]!r}"
            self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
        return self.seen[start:]

    def close(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


SHOW = "memcurve() { printf '[%s]' \"$@\"; echo '.'; }; echo rea''dy\n"
STARTS = {
    "bash": (["--noprofile", "--norc", "-i"], "source completion; {show}"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -u; eval \"$(<completion)\"; {show}"),
}  # fmt: skip


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    shell: str = request.param
    path = needs(shell)
    (folder / "completion").write_text(script(shell, capsys))
    words, start = STARTS[shell]
    found = Terminal([path, *words], folder)
    found.type(start.format(show=SHOW), "ready\r\n")
    yield found
    found.close()


def test_a_key_press(terminal: Terminal) -> None:
    for typed, expected in TYPED:
        shown = "".join(f"[{word}]" for word in expected) + "."
        terminal.type(f"{typed}\t\n", shown)


def test_fish(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = needs("fish")
    (folder / "completion").write_text(script("fish", capsys))

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            [path, "--no-config", "-c", "source completion; complete -C $argv[1]", line],
            cwd=folder, capture_output=True, text=True, env={**os.environ, "HOME": str(folder)}, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    for typed, expected in TYPED:
        assert offered(typed) == [expected[-1]]
    assert set(catalog.names()) < set(offered("memcurve estimate "))
    assert offered("memcurve estimate x --engine ") == [*NAMES, "all"]
    assert offered("memcurve fit x --engine ") == list(NAMES)
    assert offered("memcurve check-log server.log --model x --engine ") == ["vllm", "sglang", "llamacpp"]


def test_bash_offers_all_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def offered(*line: str) -> list[str]:
        ask = 'source completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_memcurve; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(
            [needs("bash"), "--norc", "-c", ask, "bash", *line], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    (folder / "completion").write_text(script("bash", capsys))
    assert offered("memcurve", "") == list(cli.COMMANDS)
    assert set(offered("memcurve", "estimate", "")) == {*catalog.names(), "completion", "server.log", "mine"}
    assert offered("memcurve", "estimate", "x", "--engine", "") == [*NAMES, "all"]
    assert len(offered("memcurve", "fit", "x", "--gpu", "")) == len(gpus.table())
    assert offered("memcurve", "estimate", "$(touch pwned)") == [""]
    assert not (folder / "pwned").exists()


def test_what_is_offered_is_taken() -> None:
    few = words()
    for name in few["gpu"]:
        assert gpus.gpu(name).name.replace(" ", "-") == name
    for dtype in few["dtype"]:
        assert load("Qwen/Qwen3-8B").curve("logical", dtype).bytes(1) > 0
    for text in (*few["type"], *few["kind"], *few["gpu"], *catalog.names()):
        assert not set(text) & set(" \"'`$\\;&|<>()[]{}*?!#~:"), text
    model = str(Path(memcurve.__file__).parent / "catalog" / "Qwen__Qwen3-8B.json")
    for command, beside in (
        ("estimate", ["--context", "1"]),
        ("cross", [model, "--max_ctx", "9"]),
        ("fit", ["--gpu", "H200"]),
    ):
        for engine in offered_engines(command):
            assert cli.run([command, model, *beside, "--engine", engine, "--json"]) == 0
    assert offered_engines("fit") == list(NAMES)
    assert offered_engines("verify") == ["transformers", "vllm", "sglang", "llamacpp", "mlx"]


def offered_engines(command: str) -> list[str]:
    whole = everything(None, None)
    parser = next(action for action in whole._actions if action.dest == "==SUPPRESS==" and action.choices)
    assert isinstance(parser.choices, dict)
    return next(list(action.choices) for action in parser.choices[command]._actions if action.dest == "engine")


def test_no_shell_of_another_name_and_no_shtab() -> None:
    code = "import sys; sys.modules['shtab'] = None; sys.argv = ['memcurve', 'completion', sys.argv[1]]; from memcurve.cli import main; sys.exit(main())"
    for shell, said in (
        ("csh", "memcurve: argument shell: invalid choice: 'csh'"),
        (SHELLS[0], "memcurve: memcurve completion needs shtab: pip install 'memcurve[completion]'\n"),
    ):
        done = subprocess.run([sys.executable, "-c", code, shell], capture_output=True, text=True, check=False)
        assert done.stdout == ""
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
