"""JupyterLab as people use it: started as ``make lab`` does, a cell run, interrupted and gone on with."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import nbformat
import pytest
from playwright.sync_api import Browser, Error, Page, expect

from recamlib.paths import ROOT

pytestmark = pytest.mark.timeout(1800)
PATIENCE = 600  # seconds that anything may take on a busy machine
LONG = """
data = rc.DataSettings(name="hoofed", train_count=256)
trained = rc.TrainClassifier(dataset=data, epochs=20)  # more than pass before it is interrupted
print("epochs:", len(trained.result["history"]["loss"]))
"""
# cells out of sight have no text otherwise
ALL_CELLS = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """JupyterLab on a notebook with a long cell; its address."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    cells = [nbformat.v4.new_code_cell(source) for source in ("import recamlib as rc", LONG.strip())]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "long.ipynb")
    (home / "config" / ALL_CELLS).parent.mkdir(parents=True)
    (home / "config" / ALL_CELLS).write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    mine |= {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
             "IPYTHONDIR": str(home / "ipython"), "RECAM_RESULTS": str(home / "results")}  # fmt: skip
    command = [sys.executable, "-m", "jupyter", "lab", f"--notebook-dir={folder}", "--no-browser",
               f"--port={port}", "--IdentityProvider.token=", "--allow-root"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "JUPYTER_PATH")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment | mine, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # it ends its kernels
        process.wait(timeout=PATIENCE)
        print((home / "log").read_text())


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    question = page.locator("dialog.jp-Dialog")  # a slow server leads to some, about the kernel for one
    page.add_locator_handler(question, lambda: question.locator("button.jp-mod-accept").click())
    yield page
    page.close()


def until(true: Callable[[], object], what: str, page: Page) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        page.wait_for_timeout(1000)


def open_notebook(page: Page, lab: str) -> None:

    def answers() -> bool:
        try:
            return page.request.get(f"{lab}/api").ok
        except Error:
            return False

    def takes_cells() -> bool:
        kernels = [session["kernel"] for session in page.request.get(f"{lab}/api/sessions").json()]
        return any(k["execution_state"] == "idle" and k["connections"] > 0 for k in kernels)

    until(answers, "no server", page)
    page.goto(f"{lab}/lab/tree/long.ipynb")
    until(takes_cells, "no kernel", page)


def run_cell(page: Page, number: int) -> None:
    """Put the cursor into a code cell, counted from 0, and run it.

    A page that is not ready takes no key, and a kernel that was just interrupted drops the cell.
    """
    cell = page.locator(".jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()

    def runs() -> bool:
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(2000)
        return prompt.inner_text() not in (before, "[ ]:")

    until(runs, "the cell does not run", page)


def test_a_long_cell_shows_bars_and_goes_on_where_it_was_interrupted(page, lab):
    open_notebook(page, lab)
    run_cell(page, 0)
    run_cell(page, 1)
    cell = page.locator(".jp-CodeCell").nth(1)
    cell.get_by_text(re.compile(r"(?<!\d)([3-9]|1\d)/20")).first.wait_for()  # a few are done
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    expect(cell).to_contain_text("KeyboardInterrupt")
    run_cell(page, 1)
    expect(cell).to_contain_text("epochs: 20")
    begun = cell.get_by_text(re.compile(r"(?<!\d)[12]/20"))
    expect(begun).to_have_count(0)  # those epochs are not trained again
    written = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    expect(written.filter(has_not_text="it/s]")).to_have_count(0)
