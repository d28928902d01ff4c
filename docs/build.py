"""Runs every command and every line of Python shown in the README and the docs, and the notebook, and puts their output beneath them.

    python docs/build.py            # rewrites
    python docs/build.py --check    # exit 1 where a page is not what its blocks print, a figure is in none, or a link leads nowhere
    python docs/build.py --links    # lists the links to elsewhere, which nothing checks

A block ```console holds lines that start with "$ memcurve" or "$ python FILE" (longer ones go on after a backslash) and what
they print. Blocks ```python and ```pycon of a page run in order in one namespace: with prompts (>>>) every output is
compared; without, an expression whose comment is a literal is compared with it. Figures are drawn again as well, and not
compared: Matplotlib's versions draw differently.
"""

from __future__ import annotations

import ast
import difflib
import doctest
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
BLOCK = re.compile(r"^```(console|python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(
    r"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?:\s?(?:%|×(?! \d)|times\b|[KMGT]i?B\b|B\b)|(?<=\d{4})(?![\w.,]*\d)|(?<=,\d{3})(?![\w.]*\d))"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
# Figures that a page quotes beside their source, names of standards, and counts that tests/test_docs.py compares with the recordings.
QUOTED = {
    "README.md": ("54,001", "1,187", "1,408", "5,388", "7,067", "256 MiB"),
    "docs/choose-a-layer-mix.md": ("4,194,304",),
    "docs/mlx.md": ("2,048",),
    "docs/size-a-service.md": ("65,536", "4,096"),
    "docs/reading-your-engines-log.md": ("1024",),
    "docs/serve.md": ("9457", "4,096"),
    "docs/vllm.md": ("1,024",),
    "docs/what-is-counted.md": ("1,500",),
    "docs/wrong-figures.md": (
        "252 GiB", "15.38 GB", "123.05 GB", "128,000", "124.928 KB", "7.28 ×", "516.096 KB", "70.272 KB", "2.7 GB", "29.0 GiB",
        "8.11 GiB", "7.89 GiB",
    ),
}  # fmt: skip
WRITTEN = ("docs/verification.md",)  # by docs/report.py
# Help is wrapped for this width; no colours.
ENVIRONMENT = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "MPLBACKEND": "Agg"}


def rebuilt(page: str) -> str:
    """The page with what its blocks print now."""
    names: dict[str, Any] = {"__name__": "__main__"}

    def block(match: re.Match[str]) -> str:
        kind, text = match.groups()
        return f"```{kind}\n{console(text) if kind == 'console' else python(text, names)}\n```"

    return BLOCK.sub(block, page)


def console(text: str) -> str:
    lines = []
    for command in re.findall(r"^\$ (?:.*\\\n)*.*$", text, re.MULTILINE):
        lines += [command, *filter(None, [output(command[2:].replace("\\\n", ""))])]
    return "\n".join(lines)


def output(command: str) -> str:
    program, *words = shlex.split(command)
    start = [sys.executable] if program == "python" else [sys.executable, "-m", program]
    done = subprocess.run([*start, *words], capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False)
    return (done.stdout + done.stderr).rstrip("\n")


def python(text: str, names: dict[str, Any]) -> str:
    return prompted(text, names) if text.lstrip().startswith(">>>") else plain(text, names)


def prompted(text: str, names: dict[str, Any]) -> str:
    """Lines after prompts, and beneath them what they print; an error by its last line, as doctest has it."""
    found = []
    for example in doctest.DocTestParser().get_examples(text):
        first, *rest = example.source.rstrip("\n").split("\n")
        found += [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
        printed = io.StringIO()
        with redirect_stdout(printed):
            try:
                exec(compile(example.source, "<page>", "single"), names)
            except Exception as error:  # noqa: BLE001 - what a page shows may well be an error
                shown = "".join(traceback.format_exception_only(error)).rstrip("\n")
                print(f"Traceback (most recent call last):\n    ...\n{shown}")
        found += filter(None, [printed.getvalue().rstrip("\n")])
    return "\n".join(found)


def plain(text: str, names: dict[str, Any]) -> str:
    """Lines without prompts; a comment that is a literal becomes the value of the expression before it."""
    lines = text.rstrip("\n").split("\n")
    for node in ast.parse(text).body:
        with redirect_stdout(io.StringIO()):
            if not isinstance(node, ast.Expr):
                exec(compile(ast.Module([node], []), "<page>", "exec"), names)
                continue
            value = eval(compile(ast.Expression(node.value), "<page>", "eval"), names)
        assert node.end_lineno is not None
        line = lines[node.end_lineno - 1].encode()
        code, comment = (part.decode() for part in (line[: node.end_col_offset], line[node.end_col_offset :]))
        space, mark, said = comment.partition("# ")
        if mark and is_literal(said):
            lines[node.end_lineno - 1] = f"{code}{space}# {value!r}"
    return "\n".join(lines)


def is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True


def rerun(path: Path) -> str:
    """A notebook with what its cells give now; the text that it has where only pictures may differ."""
    try:
        import nbformat
        from nbclient import NotebookClient
        from traitlets.config import Config
    except ImportError as error:
        raise SystemExit(f"{path.name} runs with {error.name}: pip install '.[docs]'") from None
    old = path.read_text()
    book = nbformat.reads(old, as_version=4)
    before = said(book)
    local = {"KernelManager": {"transport": "ipc", "ip": "kernel"}}
    NotebookClient(book, kernel_name="python3", timeout=120, record_timing=False, config=Config(local)).execute(
        cwd=os.getcwd()
    )
    if said(book) == before:
        return old
    book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for cell in book.cells:
        cell.metadata = {}
    return nbformat.writes(book) + "\n"


def said(book: Any) -> list[list[str]]:
    """Every cell's outputs in words: what it printed, values, tables, and of a figure that it is one."""
    found = []
    for cell in book.cells:
        outputs = cell.get("outputs", ())
        printed = "".join(one.text for one in outputs if one.output_type == "stream")
        texts = [one.get("data", {}).get(kind, "") for one in outputs for kind in ("text/plain", "text/html")]
        texts += [f"{one.ename}: {one.evalue}" for one in outputs if one.output_type == "error"]
        found.append([text for text in (printed, *texts) if text])
    return found


def dead(path: Path) -> list[str]:
    """Links of a page to files that are not there. MkDocs checks anchors, and pages of docs/."""
    text = path.read_text()
    targets = [first for first, _ in LINK.findall(text) if first and not first.startswith(("http", "#"))]
    made = {"reference", "changelog.md", "notebook.md"} if path.parent.name == "docs" else set()  # docs/pages.py
    return [
        target
        for target in (target.partition("#")[0] for target in targets)
        if target.partition("/")[0] not in made and not (path.parent / target).exists()
    ]


def unshown(text: str, quoted: Collection[str]) -> list[str]:
    """Figures of a page's sentences that no block of it holds, and that are not quoted from elsewhere: percentages, bytes,
    multiples, and numbers of four digits or more."""
    blocks = "\n".join(match[0] for match in re.finditer(r"^```.*?^```", text, re.DOTALL | re.MULTILINE))
    shown = {plain_number(one) for one in re.findall(r"\d[\d,]*(?:\.\d+)?", blocks)}
    rest = re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)|arXiv:[\d.]+|#\d+", " ", text, flags=re.DOTALL | re.MULTILINE)
    return [
        match[0]
        for match in FIGURE.finditer(rest)
        if match[0] not in quoted and plain_number(match[1]) not in shown and match[1] not in blocks
    ]


def plain_number(text: str) -> str:
    """A number without commas and without zeros at its end."""
    number = text.replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def elsewhere() -> list[str]:
    """Links to other sites, each with the pages that hold it."""
    found: dict[str, list[str]] = {}
    for path in PAGES:
        for pair in LINK.findall(path.read_text()):
            for target in pair:
                if target.startswith("http"):
                    found.setdefault(target, []).append(str(path.relative_to(ROOT)))
    return [f"{target}  ({', '.join(dict.fromkeys(pages))})" for target, pages in sorted(found.items())]


def main() -> int:
    if "--links" in sys.argv:
        print("\n".join(elsewhere()))
        return 0
    checking = "--check" in sys.argv
    failures, stale = [], 0
    figures = {path: path.read_bytes() for path in (ROOT / "docs").rglob("*.svg")} if checking else {}
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        stand_ins()
        for path in [*PAGES, *NOTEBOOKS]:
            old = path.read_text()
            name = str(path.relative_to(ROOT))
            try:
                new = rerun(path) if path.suffix == ".ipynb" else rebuilt(old)
            except Exception as error:
                error.add_note(f"in {name}")
                raise
            if path.suffix == ".md":
                failures += [f"{name}: no {target}" for target in dead(path)]
                told = [] if name in WRITTEN else unshown(new, QUOTED.get(name, ()))
                failures += [f"{name}: {figure} is in no block, and not quoted" for figure in told]
            if new == old:
                continue
            stale += 1
            if checking:
                changes = difflib.unified_diff(old.splitlines(), new.splitlines(), name, "as run", lineterm="", n=1)
                failures += ["\n".join(line[:160] for line in list(changes)[:40])]
            else:
                path.write_text(new)
    for path, data in figures.items():
        path.write_bytes(data)
    if failures:
        print("\n".join(failures), file=sys.stderr)
        print(
            "not what their blocks print, figures without a block, or dead links; run python docs/build.py",
            file=sys.stderr,
        )
        return 1
    print(f"{len(PAGES)} pages and {len(NOTEBOOKS)} notebook(s), {stale} changed")
    return 0


def stand_ins() -> None:
    """The files that pages speak of, in the folder where their Python runs."""
    from memcurve.verify.llamacpp import gguf_bytes

    sizes = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32, "attention.head_count_kv": 8}
    metadata = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in sizes.items()}}
    Path("model.gguf").write_bytes(gguf_bytes({**metadata, "llama.context_length": 8192}))
    for path in (*(ROOT / "docs").glob("*.toml"), *(ROOT / "docs").glob("*.csv")):
        Path(path.name).write_bytes(path.read_bytes())
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    Path("trace.csv.gz").write_bytes(
        Path(__file__).with_name("traces").joinpath("azure-code-15min.csv.gz").read_bytes()
    )
    Path("model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "Agg"
    sys.exit(main())
