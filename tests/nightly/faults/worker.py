"""Server of the kill tests: imports once, then forks a child for every run, so that a kill costs little.

Reads lines of JSON ``{"stage", "results", "log"}`` and answers ``{"pid"}``; an empty line waits for a child
and answers ``{"pid", "status"}``. The child writes its pid and one byte per training step to the log.
"""

import json
import os
import sys
import traceback

import small_stages as small
import torch

from recamlib.engine import fit as engine


def child(job: dict) -> None:
    """Compute one stage and write the digest of what it gave."""
    os.environ["RECAM_RESULTS"] = job["results"]
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    original = engine._step

    def counted(*args, **kwargs):
        losses = original(*args, **kwargs)
        os.write(log, b"s")
        return losses

    engine._step = counted
    stage = small.stages()[job["stage"]]
    digest = small.digest(small.run(stage))
    with open(job["log"] + ".json", "w") as file:
        json.dump({"digest": digest, "folder": str(stage.folder)}, file)


def main() -> None:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        if not line.strip():
            pid, status = os.wait()
            print(json.dumps({"pid": pid, "status": status}), flush=True)
            continue
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            out = os.open(job["log"] + ".out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            try:
                child(job)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
