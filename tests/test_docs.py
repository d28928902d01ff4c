"""docs/build.py notices every kind of thing that a page may say wrongly; the pages themselves are its own job."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import truth
from mlx_cases import cases as mlx_cases
from test_truth_llamacpp import CASES

import memcurve
from memcurve import gpus
from memcurve.config import class_defaults
from memcurve.families import REFUSED, model_types

SOURCE = Path(memcurve.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(kind: str, text: str) -> str:
    return f"Before.\n\n```{kind}\n{text}\n```\n\nAfter.\n"


def test_what_a_command_prints(build: ModuleType) -> None:
    right = page("console", "$ memcurve --version\n" + __import__("memcurve").__version__)
    assert build.rebuilt(right) == right
    assert build.rebuilt(page("console", "$ memcurve --version\n9.9")) == right
    longer = page("console", "$ memcurve \\\n    --version\n9.9")
    assert build.rebuilt(longer) == right.replace("memcurve --", "memcurve \\\n    --")


def test_what_python_prints(build: ModuleType) -> None:
    right = page("pycon", ">>> a = 6\n>>> a * 7\n42\n>>> for i in range(2):\n...     print(i)\n0\n1")
    assert build.rebuilt(right) == right
    assert build.rebuilt(right.replace("42", "43")) == right
    assert build.rebuilt(right.replace("\n42", "")) == right


def test_errors_that_python_shows(build: ModuleType) -> None:
    right = page("pycon", ">>> int('x')\nTraceback (most recent call last):\n    ...\nValueError: invalid literal for int() "
                 "with base 10: 'x'\n>>> 1\n1")  # fmt: skip
    assert build.rebuilt(right) == right
    assert build.rebuilt(right.replace("ValueError: invalid", "ValueError: no")) == right


def test_comments_that_are_results(build: ModuleType) -> None:
    right = page("python", "a = 6\na * 7   # 42\nstr(a)  # 'six' in figures\nprint(a)")
    assert build.rebuilt(right) == right
    assert build.rebuilt(right.replace("# 42", "# 43")) == right
    umlaut = page("python", "'ä' * 2  # 'x'")
    assert build.rebuilt(umlaut) == umlaut.replace("# 'x'", "# 'ää'")
    with pytest.raises(NameError):
        build.rebuilt(page("python", "nothing_of_this_name"))


def test_blocks_of_a_page_share_names(build: ModuleType) -> None:
    right = page("python", "a = 6") + page("pycon", ">>> a\n6")
    assert build.rebuilt(right) == right
    with pytest.raises(NameError):
        build.rebuilt(page("python", "a"))


def test_dead_links(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# There\n")
    mine = tmp_path / "mine.md"
    mine.write_text("[a](there.md) [b](there.md#there) [c](gone.md#x) [d](https://example.org/) [e](#here)\n")
    assert build.dead(mine) == ["gone.md"]


def test_check_fails_and_says_where(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    wrong = tmp_path / "wrong.md"
    wrong.write_text(page("pycon", ">>> 6 * 7\n43") + "[gone](gone.md)\n")
    for name, value in (("ROOT", tmp_path), ("PAGES", [wrong]), ("NOTEBOOKS", [])):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    assert build.main() == 1
    said = capsys.readouterr().err
    assert "-43\n+42" in said
    assert "wrong.md: no gone.md" in said
    assert "43" in wrong.read_text()
    monkeypatch.setattr(sys, "argv", ["build.py"])
    build.main()
    assert ">>> 6 * 7\n42\n" in wrong.read_text()


def test_figures_that_no_block_shows(build: ModuleType) -> None:
    text = page("pycon", ">>> f'{1 / 8:.1%}', 3 * 2**30\n('12.5%', 3221225472)") + (
        "12.5 % of 3,221,225,472 B, 4.5 GiB by a paper, 16.4 %, 17 × as much, 1,024 tokens and 2048 more in `4096`; arXiv:2405.04434.\n"
    )
    assert build.unshown(text, ("4.5 GiB",)) == ["16.4 %", "17 ×", "1,024", "2048"]


def test_the_readmes_counts_are_those_of_the_recordings() -> None:
    readme = " ".join((DOCS.parent / "README.md").read_text().split())
    report = (DOCS / "verification.md").read_text()
    equal = re.search(r"\*\*([\d,]+ of [\d,]+) cases equal, of (\d+) model types", report)
    assert equal is not None
    assert f"allocated in {equal[1]} recorded cases of {equal[2]} model types" in readme
    generative = sum("arch" in entry for entry in json.loads((SOURCE / "defaults.json").read_text()).values())
    hub_only = [name for name in model_types() if class_defaults(name) is None]
    assert (
        f"Of its {generative} types that generate, {generative - len(REFUSED)} are described and {len(REFUSED)} refused"
        in readme
    )
    assert f"{len(hub_only)} more have their code only on the hub" in readme
    vllm = sum(len(line.get("cases", ())) for line in truth("vllm.jsonl"))
    sglang = sum(len(line.get("cases", [0])) for line in truth("sglang.jsonl"))
    counts = f"vLLM 0.33.0 in {vllm:,} cases, SGLang 0.5.23 in {sglang:,}, llama.cpp in {len(CASES):,}, "
    counts += f"MLX-LM 0.32.2 in {len(list(mlx_cases())):,}, all equal"
    assert counts in readme
    assert f"lists {len(gpus.table())} devices" in readme


def test_notebooks(build: ModuleType, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell("6 * 7"), nbformat.v4.new_code_cell("print('a')\nprint('b')")]
    path = tmp_path / "book.ipynb"
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    first = build.rerun(path)
    assert first != path.read_text()
    path.write_text(first)
    assert build.rerun(path) == first
    wrong = json.loads(first)
    wrong["cells"][0]["outputs"][0]["data"]["text/plain"] = ["43"]
    path.write_text(json.dumps(wrong))
    assert build.said(nbformat.reads(build.rerun(path), as_version=4)) == [["42"], ["a\nb\n"]]


def test_the_notebook_holds_no_errors() -> None:
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert len(outputs) > 10
    assert not [output for output in outputs if output["output_type"] == "error"]
