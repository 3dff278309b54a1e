"""README's table and RESULTS.md say what is stored with the book, and nothing else."""

from recamlib.paths import ROOT
from recamlib.report.results import load_measured
from recamlib.report.summary import BEGIN, END, readme_table, results_page


def test_readme_and_results_are_in_step_with_what_is_stored():
    results = load_measured()
    between = (ROOT / "README.md").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    page = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert between.strip() == readme_table(results), "run: recam results"
    assert page == results_page(results), "run: recam results"


def test_a_row_that_has_not_converged_says_so_and_has_no_verdict():
    row = {"mean": 30.0, "low": None, "high": None, "difference": 2.0, "difference_interval": [1.0, 3.0],
           "seeds": 1, "converged": False, "convergence": "FC2 64 % of 93 %"}  # fmt: skip
    run = {
        "notebook": "02_table1_ablations", "images": {"train": 9},
        "parameters": {"dataset": "voc12", "backbone": "b", "seeds": [0]},
        "rows": {"recam_w_times_w_prime": row}, "claims": {},
    }  # fmt: skip
    assert "not converged: FC2 64 % of 93 %" in readme_table([run])
    page = results_page([run])
    assert "not converged |" in page and "holds |" not in page
