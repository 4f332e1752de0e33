"""Quantities with wrong declarations, and the single place where variables are declared."""

import inspect
import json
import pathlib
from typing import ClassVar

import jax
import numpy as np
import pytest
from helpers import fold_sweep

import ssntk
from ssntk.sweep.quantities.standard import STANDARD, VARIABLES

PACKAGE = pathlib.Path(ssntk.__file__).parent


class Own(ssntk.AbstractQuantity):
    name = "own"
    variables: ClassVar = {"own": ssntk.Variable("a number")}

    def finish(self, shared, traced):
        return {"own": shared.residual}


def own(**parts):
    return type("Other", (Own,), {"__module__": __name__} | parts)()


class Returns(Own):
    """A quantity that returns its argument."""

    held: tuple = ()

    def finish(self, shared, traced):
        return dict(self.held)


@pytest.mark.parametrize(
    ("quantities", "match"),
    [
        (3, "quantities must be a tuple of quantities, got int"),
        ((3,), r"quantities\[0\] must be an instance of ssntk.AbstractQuantity, got 3"),
        ((Own,), r"quantities\[0\] must be an instance .* write its class with \(\)"),
        ((Own(), Own()), r"quantities\[1\].name must be an identifier that no other quantity has, got 'own'"),
        ((own(name="channel"),), "no other quantity has, got 'channel'"),
        ((own(name="two words"),), "must be an identifier"),
        ((own(variables={"trace": ssntk.Variable("taken")}),), r"variables\['trace'\] must be named .* no other variable"),
        ((own(variables={"axis_gain": ssntk.Variable("as an axis")}),), "no other variable has"),
        ((own(variables={"point": ssntk.Variable("a dimension")}),), "no other variable has"),
        ((own(variables={"one": "a text"}),), "must be an ssntk.Variable, got str"),
        ((own(variables={"one": ssntk.Variable("a text", dims=("mode",), dtype=str)}),), "must have no dims"),
        ((own(variables={"one": ssntk.Variable("whole", dtype=int)}),), "must have dtype float, complex or str"),
        ((own(variables={"one": ssntk.Variable("lost", section="channel")}),), "section 'overview', 'point' or ''"),
    ],
)
def test_what_is_wrong_with_a_quantity_is_said_before_anything_is_compiled(quantities, match):
    with pytest.raises(ValueError, match=match):
        fold_sweep(quantities=quantities)


def test_an_axis_is_not_called_as_a_variable():
    with pytest.raises(ValueError, match="axes must not be named 'own'"):
        ssntk.Grid(
            lambda own: ssntk.normal_forms.saddle_node(own),
            {"own": [1.0]},
            probe=ssntk.Probe([0.0, 1.0]),
            quantities=(Own(),),
        )


@pytest.mark.parametrize(
    ("held", "match"),
    [
        ((), "own.finish must return own: declare it with always=False"),
        ((("own", np.zeros(2)),), r"must return own as float over \(\), got float64 of shape \(2,\)"),
        ((("own", "a"),), "must return own as float"),
        ((("own", 1j),), "must return own as float"),
        ((("own", 1.0), ("other", 1.0)), "returns 'other', which its variables do not declare"),
    ],
)
def test_what_a_quantity_did_not_declare_is_an_error_of_the_point(held, match):
    model, probe = ssntk.normal_forms.saddle_node(0.25), ssntk.Probe([0.0, 1.0])
    with pytest.raises(ValueError, match=match):
        ssntk.measure(model, probe, [0.5], quantities=(Returns(held),))


def test_every_standard_quantity_declares_what_it_finds():
    # Two relus, of which one has a border that is a nonsmooth fold. x = b < 0 is the fixed point.
    model = ssntk.CTRNN.from_weights(np.diag([2.0, 0.5]), bias=[-0.25, -0.5], activation=jax.nn.relu)
    measured = ssntk.measure(model, ssntk.Probe(np.linspace(0, 2, 3)), [-0.25, -0.5], blocks=["weight", "bias"])
    for quantity in STANDARD:
        found = quantity.finish(measured, None)
        assert found.keys() == quantity.variables.keys()
        for name, value in found.items():
            assert np.ndim(value) == len(quantity.variables[name].dims), name


def test_what_a_variable_is_called_stands_in_one_file():
    """This holds for the labels in pages, tables and pictures, and for the meanings in files."""
    sources = {
        path.relative_to(PACKAGE).as_posix(): path.read_text()
        for kind in ("*.py", "*.js", "*.html")
        for path in PACKAGE.rglob(kind)
    }
    shown = 0
    for name, variable in VARIABLES.items():
        for text in (variable.meaning, variable.label):
            # Search for the whole text only, and not for a part of another one.
            if len(text.split()) > 2 and name != "distance":
                shown += 1
                holding = [path for path, source in sources.items() if f'"{text}"' in source or f"'{text}'" in source]
                assert [path.rpartition("/")[0] for path in holding] == ["sweep/quantities"], (name, text, holding)
    assert shown > 40
    assert all(inspect.getfile(type(one)).startswith(str(PACKAGE / "sweep" / "quantities")) for one in STANDARD)


def test_what_a_header_says_of_quantities_is_checked(tmp_path):
    store = ssntk.run(fold_sweep(quantities=(Own(),)), ssntk.Store(tmp_path), progress=False)
    file = tmp_path / "plan.json"
    plan = json.loads(file.read_text())
    assert store.arrays()["own"].shape == (4,)
    del plan["checksum"]
    for wrong in ([], {"own": 3}, {"own": {"variables": {"own": {"meaning": 3}}}}, {"own": {"panel": 1, "variables": {}}}):
        file.write_text(json.dumps(plan | {"quantities": wrong}))
        with pytest.raises(ssntk.StoreError, match="quantities must be a table of quantities"):
            store.arrays()
    # Fields that a later version may add are ignored.
    said = plan["quantities"]["own"]
    said["variables"]["own"]["colour"] = "red"
    file.write_text(json.dumps(plan))
    assert store.arrays()["own"].shape == (4,)
