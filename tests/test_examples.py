"""Every example runs from its first line to its last."""

import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(script):
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, env={"MPLBACKEND": "agg"}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
