"""The examples in docstrings of public names print what stands behind them."""

import contextlib
import inspect
import io
import re

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import ssntk

# The rooms in which every line that prints says what it prints; elsewhere comments may say more.
ROOMS = ("ssntk.kernel.", "ssntk.dynamics.probe", "ssntk.dynamics.integrate")
NAMES = {"ssntk": ssntk, "np": np, "jnp": jnp, "jax": jax, "lineax": lineax, "diffrax": diffrax}


def examples():
    for name in ssntk.__all__:
        thing = getattr(ssntk, name)
        if getattr(thing, "__module__", "").startswith(ROOMS):
            for code in re.findall(r"```python\n(.*?)```", inspect.getdoc(thing) or "", re.S):
                yield pytest.param(code, id=name)
    for name in ("frequency_signature", "bifurcation_channel", "low_rank_natural_gradient"):
        (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(getattr(ssntk, name)), re.S)
        yield pytest.param(code, id=name)


@pytest.mark.parametrize("code", [*examples()])
def test_an_example_prints_what_it_says(code):
    printed = io.StringIO()
    # As users compute: numbers of both kinds may meet.
    with contextlib.redirect_stdout(printed), jax.numpy_dtype_promotion("standard"):
        exec(code, dict(NAMES))
    said = re.findall(r"print\(.*\)  # (.*)", code)
    assert len(said) == code.count("print(")
    assert printed.getvalue().split() == " ".join(said).split()


def test_every_public_name_of_these_rooms_has_one():
    public = [name for name in ssntk.__all__ if getattr(getattr(ssntk, name), "__module__", "").startswith(ROOMS)]
    assert len(public) > 15
    assert [name for name in public if "```python" not in (inspect.getdoc(getattr(ssntk, name)) or "")] == []
