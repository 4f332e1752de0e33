"""Results as text, in notebooks, as points, as tables, as files; their equality and their explanations.

Compiles: searches and branches of systems of one or two states, their kernels, and for a trained network of 32 units one
search, its verdict, spectrum and measurement. Each is made once.
"""

import csv
import dataclasses
import importlib.resources
import io
import json
import pickle
import sys
import warnings

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flip_flop

import ssntk
from ssntk import results, saved
from ssntk.dynamics.fixed_points import SlowPoints


def product(t, x, u, p):
    """x - x^3 for each of two units: nine fixed points at -1, 0 and 1."""
    return p * (x - x**3)


@pytest.fixture(scope="module")
def nine():
    return ssntk.find_fixed_points(ssntk.VectorField(product, 1.0, 2))


@pytest.fixture(scope="module")
def fold():
    """x^2 = mu, from its stable branch over the fold to the unstable one."""
    return ssntk.continuation(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"), (1.0, -1.0), x0=[1.0])


# tau x' = -x + g tanh(x): the origin is stable up to g = 1, where a pitchfork is. y = C tanh(x) + d.
READOUT = np.array([[2.0], [-3.0]])


@pytest.fixture(scope="module")
def family():
    model = ssntk.CTRNN.from_weights([[1.0]], readout_weight=READOUT, readout_bias=[0.5, 0.25])
    return ssntk.Family(model, "gain")


@pytest.fixture(scope="module")
def diagram(family):
    return ssntk.bifurcation_diagram(family, (0.5, 2.0), n_slices=3, n_starts=8)


def approached(family):
    """An approach with arbitrary numbers, since a search would take time."""
    x, more = np.ones(32), {"coefficient": 0.0, "residual": 0.0, "kkt_residual": 0.0, "minimum": True, "reached": None}
    more |= {
        "starts": np.array([0.5, np.nan]),
        "agreeing": 1,
        "others": (),
        "reason": "A change of theta by 0.5 gives a cusp.",
    }
    return ssntk.Approach("cusp", 0.5, family, family(1.0), x, x, x, 0.0, x, x, **more)


@pytest.fixture(scope="module")
def every(nine, fold, family, diagram):
    """One result of each kind, from small systems and from a network of 32 units."""
    network = flip_flop()
    points = ssntk.find_fixed_points(network)
    probe = ssntk.Probe(jnp.linspace(0.0, 1.0, 4), us=jnp.ones((1, 4, 2)))
    rest = ssntk.Probe(jnp.linspace(0.0, 1.0, 4))
    verdict = ssntk.criticality(network, n_starts=8)
    # Few stages, which compile fast.
    heun = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)
    measured = ssntk.measure(network, rest, points.x[0], modes=3, integrator=heun)
    small = family(0.6)
    training = ssntk.linearised_training(
        small, ssntk.Probe([0.0, 1.0], x0=[0.3]), np.ones((1, 2, 2)), 0.1, 5, integrator=heun
    )
    monitor = ssntk.NTKMonitor(ssntk.Probe([0.0, 1.0], x0=[0.3]), every=1, n_starts=4, integrator=heun)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ssntk.NearCriticalWarning)
        record = monitor.update(0, small)
    kernels = np.outer(1 / np.linspace(1, 2, 6) ** 2, [1, 0.1, 0.01])
    return {
        "fixed points": points,
        "nine": nine,
        "fixed point": nine[0],
        "slow points": SlowPoints(np.ones((1, 2)), np.ones(1), np.ones((1, 2), complex), np.ones(1, int)),
        "branch": fold,
        "branch point": fold[0],
        "diagram": diagram,
        "bifurcation": fold.bifurcations[0],
        "criticality": verdict,
        "ensemble": results.Results([verdict] * 40),
        "spectrum": ssntk.Spectrum.from_jacobian(np.random.default_rng(0).normal(size=(512, 64))),
        "top": measured.trajectory,
        "plan": ssntk.kernel_plan(network, probe),
        "measurement": measured,
        "channel": measured.channel,
        "signature": ssntk.frequency_signature(network, points.x[0]),
        "detection": ssntk.detect_from_ntk(np.linspace(1, 2, 6), kernels, throw=False),
        "training": training,
        "drift": training.drift,
        "record": record,
        "retreat": ssntk.retreat(small, 0.5, x=[0.0], full=True),
        "approach": approached(family),
        "status": ssntk.sweep.store.Status(3, (0,), {1: "failed: no fixed point"}, (2,), ()),
        "monitor": monitor,
    }


NAMES = (
    *("fixed points", "nine", "fixed point", "slow points", "branch", "branch point", "diagram", "bifurcation"),
    *("criticality", "ensemble", "spectrum", "top", "plan", "measurement", "channel", "signature", "detection", "training"),
    *("drift", "record", "retreat", "approach", "status", "monitor"),
)
KEPT = [name for name in NAMES if name != "monitor"]


@pytest.mark.parametrize("name", NAMES)
def test_a_result_fits_on_a_screen_in_a_terminal_and_in_a_notebook(every, name):
    result = every[name]
    for text in (result.summary(), repr(result)):
        assert 0 < len(text.splitlines()) < 25
        assert max(map(len, text.splitlines())) < 200
    page = result._repr_html_()
    assert page.startswith("<div>")
    assert "src=" not in page
    assert "http" not in page


def test_fixed_points_count_the_stable_ones(nine, every):
    assert nine.summary().startswith("9 fixed points: 4 stable, 4 with 1, 1 with 2 unstable directions; coverage 1.00")
    # The network was trained to remember two bits: four stable states, and the saddles between them.
    assert every["fixed points"].summary().startswith("9 fixed points: 4 stable, 4 with 1, 1 with 2 unstable directions")


def test_a_branch_says_where_it_went_and_what_it_met(fold, diagram):
    first, head, row = fold.summary().splitlines()
    assert first.startswith(f"Branch: {len(fold.parameter)} points, ")
    assert first.endswith("; left the span at p = 1")
    # x' = mu - x^2: a = -1.
    assert head.split() == ["kind", "parameter", "criticality", "coefficient", "frequency"]
    assert row.split() == ["saddle-node", "0", "-", "-1", "-"]
    # -x + g tanh(x): the cubic coefficient is -g / 3 at g = 1, and the new branch is stable.
    assert "pitchfork  1          supercritical  -0.333333" in diagram.summary()
    assert "from the pitchfork of branch 0" in diagram.summary()


def many_events(fold, status="left the span at p = 1"):
    event = fold.bifurcations[0]
    return dataclasses.replace(fold, bifurcations=(event,) * 40, unresolved=(), status=status)


def test_long_results_are_cut_and_say_how_much_is_missing(fold, diagram, nine):
    branch = many_events(fold)
    assert "... and 22 more" in branch.summary()
    wide = dataclasses.replace(diagram, branches=(branch,) * 30, bifurcations=branch.bifurcations, parent=(None,) * 30)
    assert "... and 24 more" in wide.summary()
    assert len(wide.summary().splitlines()) < 25
    parts = {name: np.repeat(getattr(nine, name), 20, axis=0) for name in ("x", "eigenvalues", "residual", "stable", "hits")}
    parts |= {name: np.repeat(getattr(nine, name), 20, axis=0) for name in ("n_unstable", "outputs", "jacobian")}
    assert "... and 164 more" in dataclasses.replace(nine, **parts).summary()


def test_text_in_a_notebook_is_escaped(fold):
    page = many_events(fold, "<script>alert('p & q')</script>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#x27;p &amp; q&#x27;)&lt;/script&gt;" in page


def test_points_are_reached_by_index_slice_and_iteration(nine, fold, diagram):
    assert (len(nine), len(fold), len(diagram)) == (9, len(fold.parameter), len(diagram.branches))
    assert nine[-1] == nine[8]
    assert (nine[8].x == nine.x[8]).all()
    assert nine[8].n_unstable == 2
    assert fold[np.int64(3)].parameter == fold.parameter[3]
    assert fold[0].stable
    assert not fold[-1].stable
    assert [point.parameter for point in fold] == fold.parameter.tolist()
    assert [point.parameter for point in fold[1:9:3]] == fold.parameter[1:9:3].tolist()
    assert diagram[-1] is diagram.branches[-1]
    assert list(diagram) == list(diagram.branches)
    for held in (nine, fold, diagram):
        for at in (len(held), -len(held) - 1):
            with pytest.raises(IndexError, match="out of range"):
                held[at]
        with pytest.raises(TypeError, match="an index must be an integer or a slice"):
            held["first"]
    with pytest.raises(IndexError, match="there are none"):
        nine.slow[0]


def test_the_readout_is_known_along_a_branch(fold, family, diagram):
    for branch in diagram:
        assert branch.has_readout
        np.testing.assert_allclose(branch.outputs, np.tanh(branch.x) @ READOUT.T + [0.5, 0.25], rtol=1e-14)
    assert diagram.has_readout
    assert [one.shape for one in diagram.outputs] == [(len(branch), 2) for branch in diagram]
    assert (diagram.bifurcations[0].outputs == [0.5, 0.25]).all()
    # Without a readout of its own the output is the state.
    assert not fold.has_readout
    assert (fold.outputs == fold.x).all()
    # The eigenvalue of mu - x^2 is -2 x.
    assert (fold.n_unstable == (fold.x[:, 0] < 0)).all()


def read_csv(file):
    head, *rows = csv.reader(io.StringIO(file.read_text()))
    return dict(zip(head, np.array(rows, float).T, strict=True))


def test_a_table_reads_back_to_the_last_bit(nine, diagram, tmp_path):
    table = read_csv(nine.to_csv(tmp_path / "points.csv"))
    assert list(table)[:6] == ["stable", "n_unstable", "residual", "hits", "x_0", "x_1"]
    assert (np.stack([table["x_0"], table["x_1"]], axis=1) == nine.x).all()
    assert (table["eigenvalues_1_real"] + 1j * table["eigenvalues_1_imag"] == nine.eigenvalues[:, 1]).all()
    table = read_csv(diagram.to_csv(str(tmp_path / "diagram.csv")))
    assert (table["parameter"] == np.concatenate([branch.parameter for branch in diagram])).all()
    assert (table["branch"] == np.repeat([0, 1], [len(branch) for branch in diagram])).all()
    with pytest.raises(FileNotFoundError):
        nine.to_csv(tmp_path / "nowhere" / "points.csv")


def test_a_dataset_has_the_points_and_the_events(nine, fold, diagram, monkeypatch):
    data = diagram.to_xarray()
    assert data["outputs"].dims == ("point", "output")
    assert (data["outputs"].values == np.concatenate(diagram.outputs)).all()
    assert data["event_kind"].values.tolist() == ["pitchfork"]
    assert nine.to_xarray()["eigenvalues"].dims == ("point", "mode")
    assert fold.to_xarray().attrs["status"] == fold.status
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"to_xarray needs xarray: pip install 'ssntk\[sweep\]'"):
        nine.to_xarray()


@pytest.mark.parametrize("name", KEPT)
def test_pickles_and_files_give_back_what_was_kept(every, name, tmp_path):
    result = every[name]
    assert pickle.loads(pickle.dumps(result)) == result
    file = ssntk.save(tmp_path / "kept.npz", result)
    back = ssntk.load(str(file))
    assert type(back) is type(result)
    assert (back == result) is True
    assert repr(back) == repr(result)


def test_equality_is_to_the_last_bit_and_a_bool(fold):
    again = dataclasses.replace(fold, x=fold.x.copy())
    assert (again == fold) is True
    again.x[3] = np.nextafter(again.x[3], 9)
    assert (again == fold) is False
    assert (fold == fold.bifurcations[0]) is False
    assert (fold != None) is True  # noqa: E711
    unknown = dataclasses.replace(fold.bifurcations[0], coefficient=float("nan"))
    assert unknown == dataclasses.replace(unknown, coefficient=np.float64("nan"))
    assert unknown != fold.bifurcations[0]
    with pytest.raises(TypeError, match="unhashable"):
        hash(fold)


def test_a_prediction_that_was_read_back_says_what_it_lacks(every, family):
    back = pickle.loads(pickle.dumps(every["training"]))
    assert back.steps_to(0.5) == every["training"].steps_to(0.5)
    with pytest.raises(ValueError, match="read back without its probe"):
        back.drift_to(family(0.6))


def test_a_file_knows_its_model(every, family, tmp_path):
    file = ssntk.save(tmp_path / "verdict.npz", every["criticality"], model=flip_flop())
    assert ssntk.load(file, model=flip_flop()) == every["criticality"]
    with pytest.raises(ValueError, match=r"path .*verdict.npz holds a result that is of another model"):
        ssntk.load(file, model=family(0.6))
    file = ssntk.save(tmp_path / "verdict.npz", every["criticality"])
    with pytest.raises(ValueError, match="does not know its model"):
        ssntk.load(file, model=flip_flop())
    # A result that holds a model knows it by itself.
    file = ssntk.save(tmp_path / "retreat.npz", every["retreat"])
    assert ssntk.load(file, model=every["retreat"].model) == every["retreat"]
    header = json.loads(np.load(file)["ssntk"].tobytes())
    assert set(header["versions"]) == {"ssntk", "jax", "numpy"}


def archive(header, **arrays):
    file = io.BytesIO()
    np.savez(file, ssntk=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return file.getvalue()


def weights():
    file = io.BytesIO()
    np.savez(file, weight=np.eye(2))
    return file.getvalue()


class Opened:
    """An object that records if it is executed."""

    def __reduce__(self):
        return (pytest.fail, ("a file was executed",))


def objects():
    file = io.BytesIO()
    np.savez(file, ssntk=np.array([Opened()], object))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"%PDF-1.7 and so on", "begins with b'%PDF-1.7'"),
        (lambda: pickle.dumps(Opened()), "is not: it begins with"),
        (weights, "is an archive of weight"),
        (objects, "an archive that cannot be read"),
        (lambda: weights()[:-40], "is not: it begins with|cannot be read"),
        (lambda: archive([1]), "its header says no format"),
        (lambda: archive({"format": 2, "versions": {"ssntk": "9.0"}, "value": None}), "in format 2, written by ssntk 9.0"),
        (
            lambda: archive({"format": 1, "value": {"class": "Popen", "fields": {}}}),
            "was changed: KeyError: 'Popen'",
        ),
        (lambda: archive({"format": 1, "value": {"function": "os.system"}}), "damaged, or was changed: KeyError: 'os'"),
        (lambda: archive({"format": 1, "value": {"function": "jax.numpy._where"}}), "damaged, or was changed"),
        (lambda: archive({"format": 1, "value": {"float": "one"}}), "damaged, or was changed: ValueError"),
        (lambda: archive({"format": 1, "value": {"class": "FixedPoints", "fields": {}}}), "FixedPoints without its 'x'"),
        (lambda: archive({"format": 1, "value": {"array": "a", "of": "numpy"}}), "damaged, or was changed: KeyError: 'a'"),
        (lambda: archive({"format": 1, "value": [1, 2]}), "it holds a list, which is no result"),
        (
            lambda: archive({"format": 1, "value": {"class": "SlowPoints", "fields": {"mood": 1}}}),
            "SlowPoints without its 'x'",
        ),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(data, message, tmp_path):
    file = tmp_path / "other.npz"
    file.write_bytes(data())
    with pytest.raises(ValueError, match=f"(?s)^path .*other.npz.*({message})"):
        ssntk.load(file)


def test_what_is_no_file_and_no_result_is_refused(nine, tmp_path):
    with pytest.raises(ValueError, match=r"path must be a file that ssntk.save wrote, got the folder"):
        ssntk.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        ssntk.load(tmp_path / "missing.npz")
    for bad in (np.zeros(3), {"x": 1}, "text", (1, 2), None):
        with pytest.raises(ValueError, match=r"^result must be what a function of ssntk returned, got"):
            ssntk.save(tmp_path / "bad.npz", bad)
        with pytest.raises(ValueError, match=r"^result must be what a function of ssntk returned, got"):
            ssntk.explain(bad)
    model = ssntk.VectorField(product, 1.0, 2)
    own = ssntk.critical.retreat.Retreat(model, nine.x[0], nine.x[0], 1.0, np.zeros(1), 0.0, 0.0)
    with pytest.raises(ValueError, match=r"^result.model is a VectorField.*pickle the result instead"):
        ssntk.save(tmp_path / "bad.npz", own)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_double_precision_is_not_rounded(every, tmp_path):
    file = ssntk.save(tmp_path / "retreat.npz", every["retreat"])
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        ssntk.load(file)


def test_every_kind_of_result_can_be_kept():
    kinds, found = [results.Result], []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found += [kind] if dataclasses.is_dataclass(kind) else []
    assert [kind for kind in found if saved.KNOWN.get(kind.__name__) is not kind] == []
    assert len(found) > 15


def test_a_compiled_function_returns_a_bifurcation(fold, capsys):
    @jax.jit
    def located(shift):
        # x' = mu + shift - x^2.
        moved = ssntk.VectorField(lambda t, x, u, p: p["mu"] + p["shift"] - x**2, {"mu": 0.0, "shift": shift}, 1)
        found = ssntk.locate(ssntk.Family(moved, lambda m: m.params["mu"]), "saddle-node", parameter=0.2, x=[0.1])
        print(found, found.summary(), found._repr_html_(), found == found, found == dataclasses.replace(found, kind="hopf"))
        return found

    found = located(0.5)
    assert isinstance(found, ssntk.Bifurcation)
    assert "Bifurcation, while it is traced" in capsys.readouterr().out
    np.testing.assert_allclose([found.parameter, found.x[0], found.coefficient], [-0.5, 0.0, -1.0], atol=1e-14)
    several = jax.tree.map(lambda *parts: jnp.stack(parts), found, found)
    assert repr(several).startswith("<saddle-node at p = [")
    # A traced result that holds numbers can be returned too, and its text does not change.
    point = fold.bifurcations[0]
    assert jax.jit(lambda one: one)(point).kind == "saddle-node"
    assert jax.tree.unflatten(jax.tree.structure(point), jax.tree.leaves(point)) == point


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_explained_with_the_call_to_make_next(every, name):
    text = ssntk.explain(every[name])
    assert "ssntk." in text or "Next:" in text or "result." in text or name == "ensemble"
    if name in ("fixed points", "nine", "branch", "diagram", "bifurcation", "criticality", "spectrum", "channel"):
        assert text.count(". ") + text.count(".\n") <= 6
        assert text[text.index("Next: ") :].count("Next: ") == 1


def test_a_result_is_drawn_by_the_function_that_is_made_for_it(fold, diagram, nine, monkeypatch):
    drawn = []
    monkeypatch.setattr(ssntk.plot, "bifurcation_diagram", lambda *what, **how: drawn.append((what, how)))
    monkeypatch.setattr(ssntk.plot, "fixed_points", lambda *what, **how: drawn.append((what, how)), raising=False)
    fold.plot("axes", y=0)
    diagram.plot()
    nine.plot("model", dims=3)
    assert drawn[0][0][0] is fold
    assert drawn[0][0][1] == "axes"
    assert drawn[0][1] == {"y": 0}
    assert drawn[1][0][0] is diagram
    assert drawn[2] == ((nine, "model"), {"dims": 3})


def test_a_branch_of_an_earlier_version_is_still_read(fold, tmp_path):
    state = {name: value for name, value in vars(fold).items() if name not in ("n_unstable", "outputs", "has_readout")}
    old = object.__new__(ssntk.Branch)
    old.__dict__.update(state)
    assert old.summary() == fold.summary()
    assert old[0].n_unstable is None
    assert not old.has_readout
    assert "parameter" in read_csv(old.to_csv(tmp_path / "old.csv"))
    file = ssntk.save(tmp_path / "old.npz", old)
    # Like a file of an earlier version, without the fields that were added later.
    parts = dict(np.load(file))
    header = json.loads(parts.pop("ssntk").tobytes())
    for name in ("n_unstable", "outputs", "has_readout"):
        del header["value"]["fields"][name]
    file.write_bytes(archive(header, **parts))
    assert ssntk.load(file) == old


def test_stores_say_how_far_they_are_and_are_equal_by_their_folder(tmp_path):
    store = ssntk.Store(tmp_path / "new")
    assert repr(store) == f"Store {tmp_path / 'new'}: nothing yet"
    assert store == ssntk.Store(str(tmp_path / "new"))
    assert len({store, ssntk.Store(tmp_path / "new"), ssntk.Store(tmp_path / "other")}) == 2


def test_type_checkers_are_told_of_the_annotations():
    assert importlib.resources.files("ssntk").joinpath("py.typed").is_file()
