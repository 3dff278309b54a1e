"""The client of ``worker.py``: runs of stages in processes of their own that cost no import."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


class Server:
    """A process with torch imported that forks one child per run."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("worker.py"))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "RECAM_WORKERS": "0"}
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, stage: str, results: Path, log: Path) -> int:
        """Start a run and return its process id."""
        job = {"stage": stage, "results": str(results), "log": str(log)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["pid"]

    def wait(self) -> int:
        """Wait for the run that ends next and return its status."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["status"]

    def run(self, stage: str, results: Path, log: Path) -> float:
        """Run to the end and return the seconds it took."""
        start = time.perf_counter()
        self.start(stage, results, log)
        status = self.wait()
        assert status == 0, Path(f"{log}.out").read_text()
        return time.perf_counter() - start

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
