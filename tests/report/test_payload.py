"""What the page holds, read without a browser."""

import base64
import json

import numpy as np
import pytest

from ssntk.report.page import payload


def test_the_payload_holds_the_numbers_of_the_store(fold):
    store, page = fold
    data, held = store.arrays(), payload(store)
    assert json.loads(json.dumps(held, allow_nan=False)) == held
    # From far to near, as the slider has them.
    np.testing.assert_allclose([point["distance"] for point in held["points"]], data["distance"][::-1], rtol=1e-11)
    assert [point["state"] for point in held["points"]] == ["failed"] + ["done"] * 4
    assert "reaches only to a distance" in held["points"][0]["reason"]
    assert "values" not in held["points"][0]
    for i, point in enumerate(held["points"][1:], start=1):
        row = len(data["distance"]) - 1 - i
        assert point["values"]["steady"] == pytest.approx(data["steady_state_eigenvalues"][row, 0], rel=1e-5)
        assert point["values"]["trace"] == pytest.approx(data["trace"][row], rel=1e-5)
        assert point["channel"]["predicted_top_eigenvalue"] == pytest.approx(
            data["channel_predicted_top_eigenvalue"][row], rel=1e-5
        )
        kernel = data["kernel_over_time"][row]
        shades = np.frombuffer(base64.b64decode(point["kernel"]["upper"]), np.int8)
        np.testing.assert_allclose(
            shades / 127 * point["kernel"]["peak"], kernel[np.triu_indices(6)], atol=kernel.max() / 250
        )
    assert held["folder"] == "fold & co"
    assert str(store.path.parent) not in page.read_text()


def test_the_branch_is_drawn_through_its_measured_points(fold):
    branch = payload(fold[0])["branch"]
    mu = np.array(branch["parameter"])
    for name, sign in (("stable", 1), ("unstable", -1)):
        height = np.array([np.nan if value is None else value for value in branch[name]])
        shown = np.isfinite(height)
        np.testing.assert_allclose(height[shown] ** 2, mu[shown], atol=1e-3)
        assert (sign * height[shown] > -1e-9).all()
    assert [event["target"] for event in branch["events"]] == [True]


def test_the_command_line_writes_the_page(fold, tmp_path, capsys):
    from ssntk.cli import report

    report(fold[0].path, out=tmp_path / "page.html")
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == fold[1].read_bytes()


def test_without_scripts_the_page_says_so(fold):
    text = fold[1].read_text()
    assert "scripts are switched off here" in text
    assert "<code>fold &amp; co</code>" in text
