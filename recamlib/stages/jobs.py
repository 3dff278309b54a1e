"""Jobs of a cluster: what state they are in, how they are stopped, what of their logs reaches the user."""

import logging
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import submitit
from exca.cachedict.inflight import Liveness, Pid
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.slurm.slurm import SlurmInfoWatcher

from recamlib.errors import RecamError

_SHOWN = 30  # last lines of a log
logging.getLogger("exca.map").setLevel(logging.WARNING)  # its lines hold whole keys


class JobError(RecamError):
    """A job of a cluster failed, or ended without a result."""


class SlurmStates(SlurmInfoWatcher):
    """States of Slurm jobs from its accounting or, on a cluster without, from its queue.

    submitit asks the accounting alone: without one a job that was cancelled would be waited for for ever.
    """

    def update(self) -> None:
        """Ask once about all jobs that are not known to have ended."""
        waiting = self._registered - self._finished
        if not waiting:
            return
        self._num_calls += 1
        answer = _ask(self._make_command())
        known = self.read_info(answer.stdout) if answer.returncode == 0 else _queued(waiting)
        self._info_dict.update(known)
        self._last_status_check = time.time()
        self._finished |= {job for job in waiting if self.is_done(job, mode="cache")}


def _queued(jobs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the states of jobs from the queue; one that is not listed has ended long ago."""
    numbers = ",".join(sorted({job.split("_")[0] for job in jobs}))
    answer = _ask(["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={numbers}"])
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return {}  # the controller does not answer: nothing is known
    listed = dict(line.split("|") for line in answer.stdout.split())
    return {job: {"State": listed.get(job, "ENDED")} for job in jobs}


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


submitit.SlurmJob.watcher = SlurmStates(delay_s=60)


def cancel(lives: Iterable[Liveness]) -> None:
    """Stop jobs, those that have ended as well; on this machine as Ctrl-C would."""
    lives = list(lives)
    for kind in {type(live) for live in lives}:
        same = [live for live in lives if type(live) is kind]
        if kind is not Pid:
            with suppress(OSError, subprocess.SubprocessError):
                kind.cancel(same)
            continue
        for live in same:
            with suppress(psutil.Error):
                process = psutil.Process(live.pid)
                if "submitit.local._local" in process.cmdline():  # and not a later one of the same number
                    process.send_signal(signal.SIGINT)


def job_error(stage: str, error: UncompletedJobError | FailedSubmissionError, folder: Path) -> JobError:
    """Return what a user needs of a failed job: the last line of the error, the log's place and its end."""
    text = str(error)
    if isinstance(error, FailedSubmissionError):
        return JobError(f"the jobs of {stage} were not accepted: {' '.join(text.split())}")
    number = re.search(r"/(\w+?)_0_(?:log\.|result)", text)
    name = number[1] if number else "?"
    log = folder / f"{name}_0_log.err"
    if isinstance(error, FailedJobError):
        trace = re.split(r"^-{10,}$", text, flags=re.MULTILINE)[1].strip().splitlines()
        reason = trace[-1].removeprefix("recamlib.")
    else:
        state = re.search(r"\(state: (.*?)\)", text)
        reason = f"it ended without a result, in state {state[1] if state else 'UNKNOWN'}"
    lines = log.read_text(errors="replace").splitlines()[-_SHOWN:] if log.is_file() else ["(no log)"]
    first = f"job {name} of {stage} failed: {reason}; its log is {log}, which ends"
    return JobError("\n".join([first, *lines]))
