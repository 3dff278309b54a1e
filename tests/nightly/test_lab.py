"""JupyterLab as people use it: started as ``make lab`` does, cells run, one interrupted and gone on with."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from recamlib.paths import ROOT

pytestmark = pytest.mark.timeout(900)
PATIENCE = 300  # seconds that anything may take on a busy machine
TOKEN = uuid.uuid4().hex
LONG = """
data = rc.DataSettings(name="hoofed", train_count=64)
trained = rc.TrainClassifier(dataset=data, epochs=8)
print(len(trained.result["history"]["loss"]))
"""


class Lab:
    """A running JupyterLab: its REST interface, and the channel to one kernel."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """Return the answer of the REST interface."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.host}{path}", data=data, method=method)
        request.add_header("Authorization", f"token {TOKEN}")
        with self.opener.open(request, timeout=PATIENCE) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def connect(self, kernel: str) -> websocket.WebSocket:
        """Return the channel to a kernel."""
        return websocket.create_connection(
            f"ws://{self.host}/api/kernels/{kernel}/channels?token={TOKEN}", timeout=PATIENCE,
            http_no_proxy=["127.0.0.1"],
        )  # fmt: skip


def send(channel: websocket.WebSocket, code: str) -> str:
    """Ask for code to be run and return the number of the request."""
    number = uuid.uuid4().hex
    header = {"msg_id": number, "msg_type": "execute_request", "session": TOKEN, "username": ""}
    content = {"code": code, "silent": False, "store_history": True, "stop_on_error": True}
    header["version"] = "5.3"
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channel.send(json.dumps(message))
    return number


def messages(channel: websocket.WebSocket, number: str) -> Iterator[dict[str, Any]]:
    """Yield what a request leads to, until the kernel is idle."""
    while True:
        message = json.loads(channel.recv())
        if message.get("parent_header", {}).get("msg_id") != number or message["channel"] != "iopub":
            continue
        yield message
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return


def said(found: list[dict[str, Any]], stream: str) -> str:
    """Return what went to a stream."""
    streams = (m["content"] for m in found if m["msg_type"] == "stream")
    return "".join(content["text"] for content in streams if content["name"] == stream)


def bars(found: list[dict[str, Any]]) -> list[str]:
    """Return the words beside bars, as widgets show them."""
    text = json.dumps([m["content"] for m in found if m["msg_type"].startswith("comm_")])
    return re.findall(r"TrainClassifier\\u2007bce\\u2007\d+/\d+", text)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab on a copy of the notebooks, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    mine = {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "IPYTHONDIR": str(home / "ipython"), "RECAM_RESULTS": str(home / "results")}  # fmt: skip
    command = [sys.executable, "-m", "jupyter", "lab", f"--notebook-dir={folder}", "--no-browser",
               f"--port={port}", f"--IdentityProvider.token={TOKEN}"]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    environment = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "JUPYTER_PATH")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment | places | mine, stdout=log, stderr=log)
    try:
        found, end = Lab(port), time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None and time.monotonic() < end, (home / "log").read_text()
            with contextlib.suppress(OSError):
                found.ask("/api")
                break
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()  # it ends its kernels
        process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def channel(lab) -> Iterator[websocket.WebSocket]:
    """A kernel."""
    kernel = lab.ask("/api/kernels", {"name": "python3"})["id"]
    channel = lab.connect(kernel)
    channel.kernel = kernel
    try:
        yield channel
    finally:
        channel.close()
        lab.ask(f"/api/kernels/{kernel}", method="DELETE")


def test_lab_serves_a_notebook_whose_first_cells_run_without_a_warning(lab, channel):
    assert "JupyterLab" in lab.ask("/lab/tree/01_toy_hoofed.ipynb")
    content = lab.ask("/api/contents/01_toy_hoofed.ipynb")["content"]
    for cell in [cell for cell in content["cells"] if cell["cell_type"] == "code"][:3]:
        found = list(messages(channel, send(channel, cell["source"])))
        assert not said(found, "stderr") and not [m for m in found if m["msg_type"] == "error"]
        stored = [o["text"] for o in cell["outputs"] if o["output_type"] == "stream"]
        assert said(found, "stdout") == "".join(stored)


def test_a_long_cell_shows_bars_and_goes_on_where_it_was_interrupted(lab, channel):
    assert not said(list(messages(channel, send(channel, "import recamlib as rc"))), "stderr")
    found, stopped = [], False
    for message in messages(channel, send(channel, LONG)):
        found.append(message)
        if not stopped and any("2/8" in bar for bar in bars([message])):
            lab.ask(f"/api/kernels/{channel.kernel}/interrupt", {}, method="POST")
            stopped = True
    errors = [m["content"]["ename"] for m in found if m["msg_type"] == "error"]
    assert stopped and errors == ["KeyboardInterrupt"]
    again = list(messages(channel, send(channel, LONG)))
    assert said(again, "stdout") == "8\n" and not said(again, "stderr")
    begun = [int(bar.split("u2007")[-1].split("/")[0]) for bar in bars(again)]
    assert begun and min(begun) > 1, "the epochs before the interruption were trained again"
    third = list(messages(channel, send(channel, LONG)))
    assert said(third, "stdout") == "8\n" and not bars(third)


def test_a_run_that_is_kept_has_no_debris_of_bars(monkeypatch):
    from recamlib.engine.device import bar

    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert bar(range(3)).disable and list(bar(range(3))) == [0, 1, 2]


def test_make_lab_starts_what_is_tested_here():
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m jupyter lab --notebook-dir=notebooks" in makefile
