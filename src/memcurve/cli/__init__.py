"""The command line: each command is a module here, and a function of the library with its words."""

from __future__ import annotations

import argparse
import os
import sys

from ..base import BadConfig, MemcurveError, clean, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples' lines. The width is asked for when help is printed: shutil costs a cold command a millisecond."""

    def __init__(self, prog: str) -> None:
        width = 80
        if "-h" in sys.argv or "--help" in sys.argv:
            import shutil

            width = min(shutil.get_terminal_size().columns, 110)
        super().__init__(prog, max_help_position=28, width=width)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadConfig(f"{message} (see: {self.prog} --help)")


# The module of each command: what it does, and examples.
COMMANDS = {
    "plot": (
        "draw memory against context, for any architectures",
        "memcurve plot\nmemcurve plot Qwen/Qwen3-Next-80B-A3B-Thinking ./config.json 3gdn:1mha -o curves.svg\n"
        "memcurve plot openai/gpt-oss-20b openai/gpt-oss-20b@engine=transformers -o engines.html --max_ctx 1M --log xy\n"
        "memcurve plot Qwen/Qwen3-Next-80B-A3B-Thinking --engine vllm --heatmap --memory 60GiB -o map.png",
    ),
    "cross": (
        "from which context on which of two takes fewer bytes",
        "memcurve cross Qwen/Qwen3-Next-80B-A3B-Thinking deepseek-ai/DeepSeek-V3\n"
        "memcurve cross openai/gpt-oss-20b@engine=vllm openai/gpt-oss-20b@engine=sglang --dtype bf16 --batch 8\n"
        "memcurve cross google/gemma-3-27b-it --dtype bf16 --engine all --max_ctx 1M --json",
    ),
    "estimate": (
        "exact bytes at a context, unfolded to layers × slots × bytes per slot",
        "memcurve estimate Qwen/Qwen3-Next-80B-A3B-Thinking --context 131072 --engine transformers\n"
        "memcurve estimate ./config.json --context 4k,32k,128k --batch 8 --json\n"
        "memcurve estimate openai/gpt-oss-120b --dtype bf16 --engine vllm --context 128k --batch 8 --memory 30GiB --fits",
    ),
    "fit": (
        "does a model fit these GPUs: weights, state, what the engine sets aside, and how many requests",
        "memcurve fit Qwen/Qwen3-Next-80B-A3B-Thinking --gpu H100-80G --gpus 4 --context 32k\n"
        "memcurve fit ./checkpoint --gpu-memory 24GiB --engine llamacpp --batch 4 -o fit.png\n"
        "memcurve fit openai/gpt-oss-120b --gpu H200 --weights openai/gpt-oss-120b -O gpu_memory_utilization=0.95 --explain",
    ),
    "compare": (
        "models in one table: state per token, constant state, at three contexts, and what fits a GPU",
        "memcurve compare Qwen/Qwen3-Next-80B-A3B-Thinking openai/gpt-oss-120b google/gemma-3-27b-it --gpu H100-80G --gpus 4\n"
        "memcurve compare 3gdn:1mha 48mha ./config.json --format md",
    ),
    "sweep": (
        "a grid of models, engines, contexts and batches, as rows of exact bytes in a file",
        "memcurve sweep mixes.toml -o mixes.parquet\nmemcurve sweep mixes.toml -o mixes.csv -j 8\n"
        "memcurve sweep mixes.toml -o /shared/mixes.parquet --dask tcp://scheduler:8786",
    ),
    "replay": (
        "a trace of requests through an engine's memory: bytes over time, queues, and what keeps them short",
        "memcurve replay trace.csv --model Qwen/Qwen3-30B-A3B --gpu H100 -o day.png\n"
        "memcurve replay trace.jsonl.gz --model openai/gpt-oss-120b --model deepseek-ai/DeepSeek-V3 --dtype bf16 -o demand.svg\n"
        "memcurve replay trace.csv --model Qwen/Qwen3-30B-A3B --max-queue 1s --prefill-rate 60000",
    ),
    "check-log": (
        "compare an engine's start-up log with what memcurve computes",
        "memcurve check-log vllm.log --model Qwen/Qwen3-14B -O tensor_parallel_size=2\n"
        "memcurve check-log llama-server.log --model model.gguf",
    ),
    "models": (
        "the catalogue, and the model types described",
        "memcurve models --kind gdn\nmemcurve models --type gemma3_text\nmemcurve models --types",
    ),
    "gpus": (
        "accelerators by name, and the memory that an engine on one reckons with, with sources",
        "memcurve gpus\nmemcurve gpus H100\nmemcurve gpus M4-Max-128G --json",
    ),
    "site": (
        "write the page with the catalogue's answers as files, for any server of files",
        "memcurve site public\nmemcurve site public --gpu H100-80G --gpu RTX-4090",
    ),
    "serve": (
        "the page and the HTTP API, on this machine alone",
        "memcurve serve --open\nmemcurve serve --port 0\nmemcurve serve --host 0.0.0.0 --allow-host box.example.org",
    ),
    "completion": (
        "a script by which bash, zsh or fish completes commands, options and names",
        'eval "$(memcurve completion bash)"\nmemcurve completion fish > ~/.config/fish/completions/memcurve.fish',
    ),
    "mcp": (
        "tools for assistants that speak the Model Context Protocol, on standard input and output",
        "memcurve mcp",
    ),
    "verify": (
        "ask an engine itself and compare: small models run in Transformers, or another engine's own planning code",
        "memcurve verify llama qwen3_next\nmemcurve verify ./config.json\nmemcurve verify --sample 12 --seed today\n"
        "memcurve verify --engine sglang --source ./wheel --all\n"
        "memcurve verify --engine llamacpp openai/gpt-oss-20b model.gguf\n"
        "memcurve verify --engine mlx Qwen/Qwen3-8B",
    ),
    "weights": (
        "what a checkpoint's parameters take, by dtype and part, read from its headers alone",
        "memcurve weights ./Qwen3-8B\nmemcurve weights model-Q4_K_M.gguf --json\nmemcurve weights Qwen/Qwen3-8B",
    ),
}  # fmt: skip


def module(command: str) -> Any:
    """The command's module, with build(parser) and run(arguments)."""
    return __import__(f"{__name__}.{command.replace('-', '_')}", fromlist=["run"])


def program() -> str:
    """How this was called: `hf memcurve` runs a script hf-memcurve."""
    return "hf memcurve" if os.path.basename(sys.argv[0]).startswith("hf-memcurve") else "memcurve"


def build(command: str) -> Parser:
    text, examples = COMMANDS[command]
    mine = program()
    shown = "\n".join(f"  {line.replace('memcurve ', f'{mine} ')}" for line in examples.splitlines())
    parser = Parser(
        prog=f"{mine} {command}", description=f"{text[0].upper()}{text[1:]}.", epilog=f"examples:\n{shown}",
        formatter_class=Formatter, allow_abbrev=False,
    )  # fmt: skip
    module(command).build(parser)
    return parser


def overview() -> str:
    from .. import __version__

    lines = [
        f"memcurve {__version__}: exactly how many bytes a language model's sequence state takes",
        "",
        f"usage: {program()} COMMAND … ({program()} COMMAND --help says more)",
        "",
    ]
    lines += [f"  {name:<10} {text}" for name, (text, _) in COMMANDS.items()]
    return "\n".join(
        [
            *lines,
            "",
            "exit codes: 2 bad input, 3 not described, 4 more than --at-most or, with --exit-code, no fit; 1 anything else",
        ]
    )


def run(words: Sequence[str]) -> int:
    """Runs a command; its exit code."""
    command = words[0] if words else ""
    if command in ("", "-h", "--help", "help"):
        print(overview())
    elif command in ("--version", "-V"):
        from .. import __version__

        print(__version__)
    elif command in COMMANDS:
        return module(command).run(build(command).parse_args(words[1:])) or 0
    else:
        raise BadConfig(f"command {show(command)}; expected one of {', '.join(COMMANDS)}")
    return 0


def main() -> int:
    """Runs a command. 0, or the error's code after one line on stderr."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
        return code
    except MemcurveError as error:
        print(f"memcurve: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"memcurve: {clean(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, never a traceback
        print(
            f"memcurve: unexpected {type(error).__name__}: {clean(str(error))[:200]}; please report it", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
