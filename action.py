"""What action.yml runs: `memcurve estimate --at-most` and `memcurve fit --exit-code` for configs of a checkout, which may be hostile.

Inputs come by the environment (MEMCURVE_…), files by their globs. Nothing of the checkout is imported or run, and no config
outside of it is read. An annotation for each config that is too much or not answered, and a table in the job's summary.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MOST_FILES, SECONDS = 200, 120
OUTSIDE = "leads out of the checkout, or to no file; expected a file in it"
HEAD = "| | config | question | bytes | allowed |\n|---|---|---|---:|---:|\n"


def given(name: str) -> str:
    return os.environ.get(f"MEMCURVE_{name}", "").strip()


def clean(text: str) -> str:
    """One line that any terminal and any encoding takes."""
    return "".join(char if char.isprintable() else "�" for char in text)


def annotation(message: str, file: str | None = None) -> str:
    """A line that makes GitHub show an error: percent, and in a property colon and comma, escaped as its toolkit does."""
    body = clean(message).replace("%", "%25")
    if file is None:
        return f"::error::{body}"
    place = clean(file).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::error file={place}::{body}"


def cell(text: str) -> str:
    """Text as a cell of a Markdown table, whatever is in it."""
    escaped = (f"&#{ord(char)};" if char in "|`*_[]\\~@#:!<>&" else char for char in clean(text))
    return f"<code>{''.join(escaped)}</code>"


def configs(top: Path, patterns: str) -> list[Path]:
    """The files and links that the globs name, but for Git's own; linked folders are not entered. ValueError for none, and too many."""
    globs = [line.strip().removeprefix("./") for line in patterns.splitlines() if line.strip()]
    for one in globs:
        if one.startswith("/") or ".." in one.split("/"):
            raise ValueError(f"config: {one!r}; expected a path from the top of the checkout")
    found, split = [], [tuple(one.split("/")) for one in globs]
    for place, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != ".git")
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        paths = [Path(place, name) for name in (*files, *links)]
        found += [path for path in paths if any(matches(path.relative_to(top).parts, one) for one in split)]
        if len(found) > MOST_FILES:
            raise ValueError(f"config: more than {MOST_FILES} files; expected a narrower glob")
    if not found:
        raise ValueError(f"config: no file is named {' or '.join(map(repr, globs))}; expected at least one")
    return sorted(found)


def matches(parts: tuple[str, ...], glob: tuple[str, ...]) -> bool:
    """Whether a path's parts are those of a glob, where ** is any number of them."""
    if not parts or not glob:
        return parts == glob or (not parts and set(glob) == {"**"})
    if glob[0] == "**":
        return matches(parts, glob[1:]) or matches(parts[1:], glob)
    return fnmatchcase(parts[0], glob[0]) and matches(parts[1:], glob[1:])


def inside(path: Path, top: Path) -> bool:
    """Whether a path is a file of the checkout when all links are followed, which may go in circles."""
    real = Path(os.path.realpath(path))
    return real.is_file() and real.is_relative_to(top)


def questions() -> list[list[str]]:
    """The commands to run for each config, without its path. Values stand behind =, so that none can be an option."""
    planned, budget = given("GPU") or given("GPU_MEMORY"), given("BUDGET")
    if not planned and not budget:
        raise ValueError("budget: nothing given; expected budget, gpu or gpu-memory")
    shared = [f"--{name.lower()}={given(name)}" for name in ("BATCH", "ENGINE", "DTYPE") if given(name)]
    shared += [f"--option={pair}" for pair in given("OPTIONS").split()]
    found = []
    if budget:
        found.append(["estimate", f"--at-most={budget}", f"--context={given('CONTEXT') or '32k'}", *shared])
    if planned:
        own = [f"--{name.lower()}={given(name)}" for name in ("CONTEXT", "GPU", "GPU_MEMORY", "GPUS") if given(name)]
        found.append(["fit", "--exit-code", *own, *shared])
    return found


def ask(words: list[str], path: str) -> tuple[int, dict[str, Any], str]:
    """memcurve's exit code, its JSON where it answered, and its line where it failed. Modules are the action's own alone (-P)."""
    command = [sys.executable, "-P", "-X", "utf8", "-m", "memcurve", *words, "--json", path]
    environment = {**os.environ, "PYTHONPATH": str(HERE / "src"), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return 1, {}, f"no answer after {SECONDS} s"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    line = lines[-1].removeprefix("memcurve: ") if lines else ""
    return done.returncode, json.loads(done.stdout) if done.returncode in (0, 4) else {}, line


def row(words: list[str], file: str, code: int, data: dict[str, Any], line: str) -> str:
    """A line of the summary's table."""
    asked, size, allowed = f"memcurve {' '.join(words)}", "–", "–"
    if data and words[0] == "estimate":
        size = f"{max(one['bytes'] for one in data['estimates']):,}"
        allowed = cell(given("BUDGET"))
    elif data:
        gpu = data["per_gpu"]
        size = f"{gpu['total_bytes'] - gpu['free_bytes']:,}"
        allowed = f"{gpu['total_bytes']:,}"
    mark = "✅" if code == 0 else "❌"
    why = "" if code == 0 else f"<br>{cell(line)}"
    return f"| {mark} | {cell(file)}{why} | {cell(asked)} | {size} | {allowed} |\n"


def main() -> int:
    top = Path(os.environ.get("GITHUB_WORKSPACE") or os.getcwd()).resolve()
    os.chdir(top)
    try:
        asked, files = questions(), configs(top, given("CONFIG"))
    except ValueError as error:
        print(annotation(str(error)))
        return 1
    table, failed = HEAD, 0
    for path in files:
        name = path.relative_to(top).as_posix()
        for words in asked:
            code, data, line = ask(words, f"./{name}") if inside(path, top) else (2, {}, OUTSIDE)
            failed += code != 0
            print(annotation(line, name) if code else f"fits: {clean(name)}")
            table += row(words, name, code, data, line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as stream:
            stream.write(f"### memcurve\n\n{table}\n")
    print(f"{len(files) * len(asked) - failed} of {len(files) * len(asked)} fit")
    return int(failed > 0)


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the runner's own, whichever that is
        found = sys.version.split()[0]
        print(
            f"::error::memcurve needs Python 3.11 or later; python3 is {found}: expected actions/setup-python before it"
        )
        sys.exit(1)
    sys.exit(main())
