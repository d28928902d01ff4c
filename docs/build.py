"""Runs every command shown in the README and the docs, and puts its output beneath it.

    python docs/build.py            # rewrites
    python docs/build.py --check    # exit 1 where a page is not what its commands print

A block ```console holds lines that start with "$ memcurve" and what they print. Figures are drawn again as well, and not
compared: Matplotlib's versions draw differently.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def output(command: str) -> str:
    program = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False)
    return (done.stdout + done.stderr).rstrip("\n")


def rebuilt(page: str) -> str:
    def block(match: re.Match[str]) -> str:
        lines = []
        for line in match[1].splitlines():
            if line.startswith("$ "):
                lines += [line, *filter(None, [output(line[2:])])]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(block, page)


def main() -> int:
    stale = []
    for path in PAGES:
        old = path.read_text()
        new = rebuilt(old)
        if new != old:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(new)
    if stale and "--check" in sys.argv:
        print(f"not what their commands print: {', '.join(stale)}; run python docs/build.py", file=sys.stderr)
        return 1
    print(f"{len(PAGES)} pages, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
