"""Notebook 06: what counts as a change that moves the gain."""

from recamlib.studies.beyond import moved


def test_changes_that_have_not_converged_do_not_judge():
    late = {"converged": False, "convergence": "FC2 48 % of 98 %"}
    ready = {"converged": True, "convergence": "FC2 98 % of 98 %"}
    far = {"change": -8.0, "change_interval": [-9.0, -7.0], **late}
    near = {"change": 0.1, "change_interval": [-0.2, 0.4], **ready}
    both = moved({"low rate": far, "high rate": near})
    assert both["verdict"] == "cannot tell" and "not converged: FC2 48 % of 98 %" in both["evidence"]
    assert moved({"low rate": far})["verdict"] == "not converged"
    assert moved({"other": near | {"change_interval": [0.1, 0.2]}})["verdict"] == "holds"
