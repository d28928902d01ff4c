"""`memcurve verify` where torch is missing; verify/test_verify.py holds what needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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
