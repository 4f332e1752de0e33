"""The objects that functions refer to: each other, modules, and rules for their derivatives. Compiles nothing."""

import sys

import jax
import jax.numpy as jnp
import pytest

from ssntk.sweep.identity import Traced, digest


def test_helpers_that_call_each_other_are_walked_once():
    """Each function calls the two before it, or all the others, so that there are exponentially many paths."""
    space = {}
    exec("def h0(x): return x\ndef h1(x): return h0(x)", space)
    for i in range(2, 100):
        exec(f"def h{i}(x): return h{i - 1}(x) + h{i - 2}(x)", space)
    for i in range(20):
        exec(f"def m{i}(x): return {' + '.join(f'm{j}(x)' for j in range(20) if j != i)} + {i}", space)
    before = [digest(space["h99"]), digest(space["m0"]), digest(space["m1"])]
    assert len(set(before)) == 3
    exec("def h0(x): return 2 * x\ndef m19(x): return m0(x)", space)
    assert not set(before).intersection([digest(space["h99"]), digest(space["m0"]), digest(space["m1"])])
    deep = [1.0]
    for _ in range(5000):
        deep = [deep]
    assert digest(deep) != digest([deep])
    held = [1]
    held.append(held)
    assert digest(held) == digest(held)


USES = {
    "chain": "import pkg24.norms\ndef use(x): return pkg24.norms.SIZE * x",
    "alias": "import pkg24.norms as norms\ndef use(x): return norms.SIZE * x",
    "inner": "import pkg24.norms\ndef use(x): return [pkg24.norms.SIZE * one for one in x]",
    "function": "import pkg24.norms\ndef use(x): return pkg24.norms.scaled(x)",
    "local": "def use(x):\n    import pkg24.norms\n    return pkg24.norms.SIZE * x",
    "local alias": "def use(x):\n    import pkg24.norms as other\n    return other.SIZE * x",
    "local name": "def use(x):\n    from pkg24.norms import SIZE\n    return SIZE * x",
    "by name": "import pkg24.norms as norms\ndef use(x): return getattr(norms, 'SIZE') * x",
    "held": "import pkg24.norms as norms\nuse = [norms]",
}


def test_what_is_read_of_a_module_counts_and_nothing_else_of_it(tmp_path, monkeypatch):
    (tmp_path / "pkg24").mkdir()
    (tmp_path / "pkg24" / "__init__.py").write_text("OTHER = 1\n")
    (tmp_path / "pkg24" / "norms.py").write_text("SIZE, CALLS = 3.0, 0\ndef scaled(x): return SIZE * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    for kind, text in USES.items():
        space = {}
        exec(text, space)
        norms = sys.modules.get("pkg24.norms") or __import__("pkg24.norms").norms
        norms.SIZE, norms.CALLS = 3.0, 0
        before = digest(space["use"])
        norms.CALLS = 1
        assert (digest(space["use"]) == before) == (kind not in ("by name", "held")), kind
        norms.CALLS, norms.SIZE = 0, 4.0
        assert digest(space["use"]) != before, kind
        sys.modules["pkg24"].OTHER += 1


def chained(order, value):
    """A function whose derivative of this order is `value` times something, by rules that call each other."""

    def rule(function, derivative):
        own = jax.custom_jvp(function)
        own.defjvp(lambda primals, tangents: (own(*primals), derivative(primals[0]) * tangents[0]))
        return own

    found = lambda x: value * jnp.ones_like(x)  # noqa: E731
    for _ in range(order):
        found = rule(jnp.sin, found)
    return found


@pytest.mark.parametrize("order", [1, 2, 3])
def test_rules_of_rules_count(order):
    x = jnp.ones(2)
    of = [digest(Traced(chained(order, value), x)) for value in (1.0, 1.0, 5.0)]
    assert of[0] == of[1] != of[2]

    def looped(value):
        return lambda x: jax.lax.scan(lambda carry, _: (chained(order, value)(carry), None), x, None, length=2)[0]

    assert digest(Traced(looped(1.0), x)) != digest(Traced(looped(5.0), x))
