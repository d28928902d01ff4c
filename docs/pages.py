"""The site's generated pages, as a hook of MkDocs: command line, Python, options of the engines, changelog, the notebook.

They are made of the program itself each time the site is built, and are no files. A line "@recipe NAME" in a page becomes
the paragraph of CONTRIBUTING.md that begins so. The build fails where a page would load anything from elsewhere.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import memcurve  # noqa: E402
from memcurve import engines  # noqa: E402
from memcurve.cli import COMMANDS  # noqa: E402
from memcurve.engines import budget_llamacpp, budget_sglang, budget_vllm  # noqa: E402

# The public names by subject, and the records that they return.
API = {
    "Models": ("load", "pattern", "Model"),
    "Curves": ("MemoryCurve", "crossings"),
    "Fitting": ("fit", "fitting_dtypes", "weights"),
    "Traces": ("replay",),
    "Figures": ("plot", "heatmap"),
    "Sweeps": ("sweep",),
    "Errors": ("MemcurveError", "BadConfig", "BadFile", "NotDescribed", "Refused"),
}
RETURNED = (
    "memcurve.fitting.Fit",
    "memcurve.fitting.PerGpu",
    "memcurve.fits.Fitting",
    "memcurve.steady.Steady",
    "memcurve.sweeps.run.Sweep",
    "memcurve.terms.Pool",
    "memcurve.terms.Term",
    "memcurve.checkpoint.Weights",
    "memcurve.traces.replaying.Replay",
    "memcurve.traces.run.Run",
    "memcurve.traces.run.Queue",
    "memcurve.traces.run.Series",
)
BUDGETS = {"vllm": budget_vllm, "sglang": budget_sglang, "llamacpp": budget_llamacpp}
# What an element may load; links that a reader follows are not meant.
LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\s(?:src|href)=[\"']?(?:https?:)?//[^>]*>|@import|url\(\s*[\"']?https?:", re.I
)


def on_files(files: Any, config: Any) -> Any:
    pages = {
        "reference/cli.md": command_line(),
        "reference/python.md": python_names(),
        "reference/options.md": options(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    for name, content in {**pages, **notebook(ROOT / "docs" / "tutorial.ipynb")}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"^@recipe (.+)$", lambda match: recipe(match[1]), markdown, flags=re.M)


def on_post_build(config: Any) -> None:
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        found = LOADED.search(path.read_text())
        if found:
            raise PluginError(f"{path.name} loads something from elsewhere: {found[0][:200]}")


def recipe(name: str) -> str:
    """A paragraph of CONTRIBUTING.md, by the words in bold that it begins with."""
    for text in (ROOT / "CONTRIBUTING.md").read_text().split("\n\n"):
        if text.startswith(f"**{name}**"):
            return text.removeprefix(f"**{name}**").strip()
    raise PluginError(f"CONTRIBUTING.md has no recipe {name!r}")


def command_line() -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
    lines = ["# Command line", "", "What `--help` of every command says.", ""]
    for words in ([], *([name] for name in COMMANDS)):
        command = [sys.executable, "-m", "memcurve", *words, "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
        title = f"memcurve {words[0]}" if words else "memcurve"
        lines += [f"## {title}", "", "```text", shown.rstrip(), "```", ""]
    return "\n".join(lines)


def python_names() -> str:
    listed = [name for names in API.values() for name in names]
    if sorted(listed) != sorted(memcurve.__all__):
        raise PluginError(
            f"docs/pages.py lists {sorted(set(listed) ^ set(memcurve.__all__))} otherwise than memcurve.__all__"
        )
    lines = [
        "# Python",
        "",
        "The public names: `import memcurve`. Errors are one line; all of them are `ValueError`.",
        "",
    ]
    for title, names in API.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: {place(name)}", ""]
    lines += ["## What they return", ""]
    for name in RETURNED:
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def place(name: str) -> str:
    """Where a public name is defined."""
    return f"{getattr(memcurve, name).__module__}.{name}"


def options() -> str:
    lines = [
        "# Options of the engines",
        "",
        "By the engines' own names: keywords of `Model.curve` and `memcurve.fit`, `-O KEY=VALUE` on the command line.",
        "",
    ]
    for engine in engines.NAMES:
        own = engines.module(engine)
        lines += [
            f"## {engine}",
            "",
            *table(own.OPTIONS, inspect.signature(own.keep).parameters, meanings(own.keep.__doc__)),
        ]
        if engine in BUDGETS:
            beside = [name for name in BUDGETS[engine].OPTIONS if name not in own.OPTIONS]
            lines += [
                "Only for `fit`, which plans a whole GPU:",
                "",
                *table(beside, {}, meanings(BUDGETS[engine].__doc__)),
            ]
    return "\n".join(lines)


def table(names: Any, parameters: Any, said: dict[str, str]) -> Iterator[str]:
    yield "| option | default | meaning |" if parameters else "| option | meaning |"
    yield "|---|---|---|" if parameters else "|---|---|"
    for name in names:
        if name not in said:
            raise PluginError(f"option {name} has no meaning in a docstring")
        default = [f"`{parameters[name].default!r}`"] if parameters else []
        yield f"| {' | '.join([f'`{name}`', *default, said[name]])} |"
    yield ""


def meanings(docstring: str | None) -> dict[str, str]:
    """What a docstring says of each option: lines "name: meaning", or "name, name: meaning", up to the next or an empty one."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        match = re.match(r"([a-z]\w*(?:, [a-z]\w*)*): (.+)", line)
        if match:
            names = match[1].split(", ")
            found.update(dict.fromkeys(names, match[2]))
        elif not line.strip():
            names = []
        else:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return {name: sentence(text) for name, text in found.items()}


def sentence(text: str) -> str:
    """With a capital first, unless it begins with a name such as vLLM or dp_size."""
    first = text.split()[0].rstrip(".,;:")
    return text[0].upper() + text[1:] if re.fullmatch("[a-z]+(?:['-][a-z]+)*", first) else text


def notebook(path: Path) -> dict[str, Any]:
    """A notebook as a page, with its pictures."""
    pages: dict[str, Any] = {}
    lines = [f"[Download it]({path.name}) to run it yourself.", ""]
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines[0:0] = [source, ""] if number == 0 else []
            lines += [source, ""] if number else []
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"notebook-{number}.png"
                pages[name] = base64.b64decode(data["image/png"])
                lines += [f"![What the cell above draws]({name})", ""]
            elif "text/html" in data:
                lines += [f'<div class="output">{"".join(data["text/html"])}</div>', ""]
            else:
                shown = "".join(output.get("text", data.get("text/plain", "")))
                lines += ["```text", shown.rstrip(), "```", ""]
    return {"notebook.md": "\n".join(lines), **pages}
