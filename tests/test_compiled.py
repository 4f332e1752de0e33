"""Traced functions are kept between runs, and are found again only if nothing that they depend on has changed."""

import hashlib
import os
import pickle

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk import compiled, files
from ssntk.sweep.measure import Asked, measure_together, prepare
from ssntk.zeros.correct import correct
from ssntk.zeros.equilibria import equilibria_of
from ssntk.zeros.lines import _linear
from ssntk.zeros.stack import Stack, each

POINTS = np.zeros((2, 5)), np.eye(2, 5)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for traced functions, in the state of a new process."""
    monkeypatch.setattr(compiled, "FOLDER", str(tmp_path / "traced"))
    return tmp_path / "traced"


@pytest.fixture
def tracings(monkeypatch):
    """The functions that are traced in order to be kept."""
    seen, traced = [], compiled._traced
    monkeypatch.setattr(compiled, "_traced", lambda function, *others: seen.append(function) or traced(function, *others))
    return seen


def stack_of(seed=0, activation=jnp.tanh):
    model = ssntk.CTRNN(4, 1, 1, gain=1.5, activation=activation, key=jr.key(seed))
    # With given sizes of the states, nothing is traced here.
    return Stack([equilibria_of(ssntk.Family.input(model, direction=[1.0]), (-1.0, 1.0), None, scale=np.ones(4))])


def corrected(stack):
    """The result of a function as in a new process, in which nothing is traced yet."""
    return each(correct)(stack, [0, 0], *POINTS)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_second_process_traces_nothing_and_finds_the_same(folder, tracings, monkeypatch):
    first = corrected(stack_of())
    assert len(tracings) == 1
    assert first.converged.all()
    second = corrected(stack_of())
    others = corrected(stack_of(seed=1))
    assert len(tracings) == 1
    assert_same(first, second)
    monkeypatch.setattr(compiled, "FOLDER", "")
    assert_same(first, corrected(stack_of()))
    assert_same(others, corrected(stack_of(seed=1)))


def test_what_it_follows_from_is_looked_at(folder, tracings, monkeypatch):
    tanh = corrected(stack_of())
    softplus = corrected(stack_of(activation=jax.nn.softplus))
    assert len(tracings) == 2
    linear = each(_linear)(stack_of(), [0, 0], POINTS[0])
    assert len(tracings) == 3
    smaller = ssntk.Family.input(ssntk.CTRNN(3, 1, 1, key=jr.key(0)), direction=[1.0])
    each(_linear)(Stack([equilibria_of(smaller, (-1.0, 1.0), None, scale=np.ones(3))]), [0], np.zeros((1, 4)))
    assert len(tracings) == 4
    monkeypatch.setattr(compiled, "CODE", "another version")
    assert_same(tanh, corrected(stack_of()))
    assert len(tracings) == 5
    assert len(list(folder.iterdir())) == 5
    # Each result is the same as without the folder.
    monkeypatch.setattr(compiled, "FOLDER", "")
    assert_same(softplus, corrected(stack_of(activation=jax.nn.softplus)))
    assert_same(linear, each(_linear)(stack_of(), [0, 0], POINTS[0]))


def test_what_has_no_version_is_traced_anew(folder, tracings, monkeypatch):
    scale = 1.0
    own = stack_of(activation=lambda x: jnp.tanh(scale * x))
    assert_same(corrected(own), corrected(stack_of()))
    assert len(tracings) == 1
    scale = 0.5
    changed = corrected(stack_of(activation=lambda x: jnp.tanh(scale * x)))
    monkeypatch.setattr(compiled, "FOLDER", "")
    assert_same(changed, corrected(stack_of(activation=lambda x: jnp.tanh(scale * x))))
    assert len(tracings) == 1


class Amplitude:
    """An object that pickle writes as a name."""

    __qualname__ = "tanh"
    __module__ = "jax.numpy"

    def __reduce__(self):
        return "sep"


@pytest.mark.parametrize("static", [Amplitude(), Amplitude, lambda x: x, os.path.join])
def test_what_has_no_version_has_no_description(static):
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        compiled._described(static)


def test_equal_things_are_described_alike():
    shape, again = (3, 4), [3, 4]
    one, other = [(2.5, shape), shape, "ab"], [(float("2.5"), tuple(again)), tuple(again), "".join(["a", "b"])]
    assert compiled._described(one) == compiled._described(other)
    assert compiled._described(one) != compiled._described([*one[:2], "ac"])


def test_settings_are_told_apart(folder, tracings):
    model = ssntk.CTRNN(4, 1, 1, gain=1.5, key=jr.key(0))
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32) if eqx.is_inexact_array(leaf) else leaf, model)

    def follow():
        return ssntk.continuation(ssntk.Family.input(single, direction=[1.0]), (-0.5, 0.5), max_steps=3)

    with pytest.warns(ssntk.PrecisionWarning):
        wide = follow()
    with jax.enable_x64(False):
        narrow = follow()
    again = follow()
    assert_same(wide.x, again.x)
    np.testing.assert_allclose(narrow.x[0], wide.x[0], atol=1e-5)
    assert len(tracings) >= 4


def test_torn_files_unwritable_folders_and_failing_exports_are_no_failures(folder, tracings, monkeypatch, tmp_path):
    expected = corrected(stack_of())
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        assert_same(corrected(stack_of()), expected)
    assert len(tracings) == 2
    assert len(file.read_bytes()) == len(whole)
    # There is a file in place of the folder.
    monkeypatch.setattr(compiled, "FOLDER", str(file))
    assert_same(corrected(stack_of()), expected)

    def failing(*_):
        raise NotImplementedError("no such custom call")

    monkeypatch.setattr(compiled, "_traced", failing)
    monkeypatch.setattr(compiled, "FOLDER", str(tmp_path / "other"))
    assert_same(corrected(stack_of()), expected)
    assert list((tmp_path / "other").iterdir()) == []


@pytest.fixture(autouse=True)
def said_anew():
    """Let warnings that are given once in a process be given in each test."""
    files.warn_once.cache_clear()


@pytest.mark.parametrize("places", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found_wherever_it_is(folder, tracings, places):
    expected = corrected(stack_of())
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for at in np.linspace(0, len(whole) - 1, places).astype(int):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        files.warn_once.cache_clear()
        with pytest.warns(UserWarning, match="damaged or not your own: it is traced anew"):
            assert_same(corrected(stack_of()), expected)
        # The file was written again.
        assert hashlib.sha256(file.read_bytes()[compiled.SUM :]).digest() == file.read_bytes()[: compiled.SUM]


class Executed:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (Executed.folder,)


@pytest.mark.parametrize("where", ["file", "folder", "sum"])
def test_what_others_may_have_written_is_never_unpickled(folder, tmp_path, where):
    Executed.folder = str(tmp_path / "was run")
    expected = corrected(stack_of())
    (file,) = folder.iterdir()
    data = pickle.dumps(Executed())
    # The checksum may be right, since anybody who can write there can compute it, or wrong.
    file.write_bytes(data if where == "sum" else hashlib.sha256(data).digest() + data)
    if where != "sum":
        (file if where == "file" else folder).chmod(0o777)
    with pytest.warns(UserWarning, match="others may write into it" if where == "folder" else "not your own"):
        assert_same(corrected(stack_of()), expected)
    assert not (tmp_path / "was run").exists()


def test_what_is_kept_is_private(folder):
    corrected(stack_of())
    assert folder.stat().st_mode & 0o777 == 0o700
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_least_used_are_dropped(folder, monkeypatch):
    monkeypatch.setattr(compiled, "MOST", 2)
    names = [hashlib.sha256(bytes([number])).hexdigest() for number in range(4)]
    for number, name in enumerate(names):
        compiled._write(folder / name, b"")
        os.utime(folder / name, (number, number))
        # A file that somebody else put there.
        folder.joinpath("letter.txt").touch()
        os.utime(folder / "letter.txt", (0, 0))
    assert {file.name for file in folder.iterdir()} == {*names[2:], "letter.txt"}
    with pytest.raises(IsADirectoryError):
        compiled._write(folder, b"")
    assert not list(folder.parent.glob("*.*"))


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_prepared_compiles_nothing_when_it_is_called(kept, folder, compilations, monkeypatch):
    if not kept:
        monkeypatch.setattr(compiled, "FOLDER", "")
    model, probe = ssntk.CTRNN(4, 1, 1, gain=0.5, key=jr.key(3)), ssntk.Probe(np.linspace(0.0, 2.0, 3))
    # Few stages, which compile fast. Each case has a step of its own, so that neither finds what the other compiled.
    heun = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5 if kept else 0.25)
    asked = Asked.checked(model, probe, wrt=None, of="state", blocks=None, integrator=heun, modes=None)
    prepare(asked, model, 2)
    before = len(compilations)
    assert before >= 2
    (found,) = measure_together(asked, [model], [np.zeros(4)], room=2)
    # The only compilation compares the codes with which solves ended. The two prepared functions are not compiled again.
    assert len(compilations) - before <= 1
    assert isinstance(found, ssntk.Measurement)
