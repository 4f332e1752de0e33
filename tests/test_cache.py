"""A script that calls `enable_cache` keeps compiled code, which the next one finds. Without the call nothing is kept.

Two child processes compile the code that locates a fold of a normal form.
"""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT

import ssntk

CHILD = """
import json, os, sys, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
# Something was compiled before: that there is no cache is known to JAX by then.
jax.jit(lambda x: x * 2)(jnp.ones(3))
import ssntk
folder = ssntk.enable_cache(*sys.argv[1:])
family = ssntk.Family(ssntk.normal_forms.saddle_node(1.0), "mu")
found = ssntk.locate(family, "fold", parameter=0.01, x=[0.01])
print(json.dumps([str(folder), hits.count("/jax/compilation_cache/cache_hits"), found.parameter, found.kind]))
"""


def child(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "SSNTK"))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_second_script_compiles_nothing_again(tmp_path):
    folder = tmp_path / "kept" / "here"
    first, second = child(folder), child(SSNTK_CACHE=str(folder))
    assert first[0] == second[0] == str(folder)
    assert first[1] == 0
    assert second[1] > 0
    assert first[2:] == second[2:]
    # Both compiled code and traced functions are kept.
    assert any((folder / "traced").iterdir())
    assert any(file.is_file() for file in folder.iterdir())
    assert folder.stat().st_mode & 0o077 == 0


def test_off_is_off(monkeypatch):
    monkeypatch.setenv("SSNTK_CACHE", "off")
    assert ssntk.enable_cache() is None


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a path, got int"):
        ssntk.enable_cache(3)
    with pytest.raises(ValueError, match=r"folder .*file/below cannot be made"):
        ssntk.enable_cache(tmp_path / "file" / "below")
