"""What a run will take before it runs: seconds, disk and memory of every stage, from recorded costs.

The rule is one line: a stage takes its work (:mod:`recamlib.book.workload`) times the seconds
per unit of work of recorded stages of its kind. What rests on anything else than a record says so.
"""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recamlib import paths
from recamlib.book.planned import planned_stages
from recamlib.book.profiles import list_notebooks
from recamlib.book.upstream import Job, jobs_of
from recamlib.book.workload import activation_bytes, backbone_flops, stored_units, trained_batch, work_of
from recamlib.data.nominal import COUNTS, SIZES
from recamlib.engine.device import versions
from recamlib.errors import RecamError
from recamlib.report.claims import load_paper
from recamlib.stages.cache import DamagedEntry

FILE, CHECK = "costs.json", "forecast.json"
SAMPLED = 48  # stored images whose records are read
PROCESSOR = ("ConfidentLabels", "PseudoMasks", "Walk", "WalkGrid", "Score", "SaliencyMaps", "SaliencyMerge",
             "SaliencyScore")  # fmt: skip
"""Stages whose work is not a network's; on a machine with GPUs the processor's records count for them."""
PAPER_SCALES, PAPER_EPOCHS, PAPER_CROP = (1.0, 0.5, 1.5, 2.0), 5, (512, 512)


def recorded(job: Job) -> dict[str, Any] | None:
    """Return what is stored of a job: items, seconds, bytes, peak memory and device; None if nothing is."""
    folder = job.stage.infra.uid_folder()
    if not folder.is_dir():  # asking for the cache would make it
        return None
    cache, costs = job.stage.infra.cache_dict, []
    keys = sorted(cache.keys())
    for key in keys[:: max(1, len(keys) // SAMPLED)]:
        try:
            costs.append(cache[key]["cost"])
        except DamagedEntry:  # whoever reads it will make it again
            continue
    if not costs:
        return None
    # what is no image has a key of its own: "model", "score", the beta of a walk
    there = len(job.items & set(keys)) if job.per_image else min(len(keys), len(job.items))
    return {
        "items": there, "seconds": there * float(np.mean([c["seconds"] for c in costs])),
        "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) * there / len(keys),
        "peak_memory_mib": max(c["peak_memory_mib"] for c in costs), "device": costs[-1]["device"],
    }  # fmt: skip


def entries_of(
    profile: str, notebooks: Iterable[str], *, extra: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return one record for every stage of some notebooks that has run under a profile."""
    found: dict[str, dict] = {}
    for notebook in notebooks:
        for job in jobs_of(planned_stages(notebook, profile=profile, extra=extra)):
            stored = recorded(job)
            if stored is None or stored["items"] < len(job.items):
                continue
            found.setdefault(job.stage.infra.uid(), {
                "kind": job.kind, "backbone": job.backbone, "precision": job.precision, "work": work_of(job),
                "units": stored_units(job), "activations": _activations(job), "notebook": notebook,
                "profile": profile, **stored,
            })  # fmt: skip
    return list(found.values())


def keep_costs(profile: str) -> Path:
    """Write the costs recorded by what has run under a profile to ``book/measured/costs.json``.

    Raises
    ------
    RecamError
        If nothing has run.
    """
    entries = entries_of(profile, [path.stem for path in list_notebooks()])
    if not entries:
        raise RecamError(f"nothing to keep: no stage of profile {profile} has run here")
    path = paths.book_dir() / "measured" / FILE
    content = {"date": datetime.date.today().isoformat(), "versions": versions(), "entries": entries}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def load_costs() -> list[dict]:
    """Return the recorded costs.

    Raises
    ------
    RecamError
        If there are none.
    """
    path = paths.book_dir() / "measured" / FILE
    if not path.is_file():
        raise RecamError(f"{path} is missing: run a notebook, then recam keep costs --profile NAME")
    return json.loads(path.read_text())["entries"]


def paper_rate(data: str) -> float:
    """Return the operations per second that the paper's unit of time implies.

    The unit is the time from training CAM's classifier (ResNet-50, 5 epochs of crops of 512 pixels) to the
    masks of all training images (four scales, mirrored).
    """
    name = data if data in COUNTS else "voc12"
    images, size = COUNTS[name]["train_aug"], SIZES[name]
    hours = load_paper()["table2"]["unit_time_hours"][name]
    train = PAPER_EPOCHS * 3 * backbone_flops("resnet50", 16, PAPER_CROP)
    views = [tuple(round(s * side) for side in size) for s in PAPER_SCALES]
    maps = 2 * sum(backbone_flops("resnet50", 16, view) for view in views)
    return images * (train + maps) / (3600 * hours)


class Rates:
    """Seconds per unit of work by kind of stage, from records.

    Parameters
    ----------
    entries
        Records, see :func:`entries_of`.
    gpu
        Whether the run will have a GPU. Records of GPUs count then, if there are any; otherwise networks take
        the rate that the paper's hours imply.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, gpu: bool = False) -> None:
        self.gpu = gpu
        self.entries = [e for e in entries if e["device"].startswith("cpu") != gpu]
        self.processor = [e for e in entries if e["device"].startswith("cpu")]

    def seconds(self, job: Job) -> tuple[float, str]:
        """Return the seconds that all of a job takes on one device, and what they rest on."""
        known = self.processor if self.gpu and job.kind in PROCESSOR else self.entries
        same = [e for e in known if e["kind"] == job.kind]
        own = [e for e in same if (e["backbone"], e["precision"]) == (job.backbone, job.precision)]
        near = [e for e in same if e["backbone"] == job.backbone]
        networks = [e for e in known if e["kind"] not in PROCESSOR]
        for found, basis in (
            (own, "measured"), (near, "measured, other precision"),
            (same, "measured with another backbone"), (networks, "measured on other passes of networks"),
        ):  # fmt: skip
            if found and not (found is networks and job.kind in PROCESSOR):
                rate = float(np.median([e["seconds"] / e["work"] for e in found]))
                on = ", on the processor" if self.gpu and job.kind in PROCESSOR else ""
                return work_of(job) * rate, basis + on
        if self.gpu and job.kind not in PROCESSOR:
            return work_of(job) / paper_rate(job.data.name), "assumed: the paper's hours"
        return float("nan"), "never measured"

    def bytes(self, job: Job) -> float:
        """Return the bytes that a job leaves on the disk."""
        found = [e for e in self.processor + self.entries if e["kind"] == job.kind]
        each = np.median([e["bytes"] / e["units"] for e in found]) if found else np.nan
        return stored_units(job) * float(each)

    def memory(self, job: Job) -> float:
        """Return the peak memory, MiB: of training, records moved by what the network keeps of a batch."""
        found = [e for e in self.processor if e["kind"] == job.kind]
        if not found:
            return float("nan")
        moved = [e["peak_memory_mib"] + (_activations(job) - e["activations"]) / 2**20 for e in found]
        return max(float(np.median(moved)), min(e["peak_memory_mib"] for e in found) / 2)


def _activations(job: Job) -> float:
    batch, name, stride, crop = trained_batch(job)
    return batch * activation_bytes(name, stride, crop) if batch else 0


def forecast(
    notebooks: Sequence[str], *, profile: str, gpus: int = 0, extra: Mapping[str, Any] | None = None,
    nominal: bool = False, entries: Sequence[Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Return one row for every stage that some notebooks would run under a profile, shared ones once.

    Columns: ``stage, what, images, done`` (the share that is stored), ``seconds`` (of all of it on one
    device), ``left`` (of what is not stored, on all devices), ``measured`` (seconds of what is stored, if all
    is), ``disk`` (MB), ``memory`` (MiB), ``basis``.
    """  # fmt: skip
    rates = Rates(load_costs() if entries is None else entries, gpu=gpus > 0)
    rows: dict[str, dict] = {}
    for notebook in notebooks:
        for job in jobs_of(planned_stages(notebook, profile=profile, extra=extra, nominal=nominal)):
            stored = None if nominal else recorded(job)
            share = stored["items"] / len(job.items) if stored else 0.0
            seconds, basis = rates.seconds(job)
            rows.setdefault(job.stage.infra.uid(), {
                "notebook": notebook[:2], "stage": job.kind, "what": job.what, "images": job.images,
                "done": share, "seconds": seconds, "left": (1 - share) * seconds / max(1, gpus),
                "measured": stored["seconds"] if stored and share == 1 else np.nan,
                "disk": rates.bytes(job) / 1e6, "memory": rates.memory(job), "basis": basis,
            })  # fmt: skip
    return pd.DataFrame(list(rows.values()))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a forecast by notebook and kind of stage: sums, the highest memory, the weakest basis."""
    weakest = ("never measured", "assumed: the paper's hours")

    def basis(values: pd.Series) -> str:
        return next((w for w in weakest if w in set(values)), values.value_counts().index[0])

    def total(values: pd.Series) -> float:
        return values.sum(min_count=1)  # of nothing known, not known

    how = {"images": "sum"} | dict.fromkeys(("seconds", "left", "measured", "disk"), total)
    how |= {"memory": "max", "basis": basis}
    grouped = frame.groupby(["notebook", "stage"], sort=False)
    found = grouped.agg(how)
    found.insert(0, "stages", grouped.size())
    found.insert(1, "done", grouped["done"].mean())
    return found.reset_index()


def check(frame: pd.DataFrame) -> pd.DataFrame:
    """Return forecast beside measured seconds of the stages that are done, by kind, with the ratio."""
    done = frame[frame["measured"].notna() & frame["seconds"].notna()]
    found = done.groupby("stage", sort=False)[["seconds", "measured"]].sum()
    found.loc["all"] = found.sum()
    found["ratio"] = found["seconds"] / found["measured"]
    return found


def keep_check(frame: pd.DataFrame, *, what: str) -> Path:
    """Write how far a forecast was from a run that is done to ``book/measured/forecast.json``.

    Raises
    ------
    RecamError
        If nothing that was forecast has run.
    """
    found = check(frame)
    if len(found) < 2:
        raise RecamError("nothing to keep: no stage of this plan has run here")
    costs = json.loads((paths.book_dir() / "measured" / FILE).read_text())
    sources = sorted({f"{e['notebook']} {e['profile']}" for e in costs["entries"]})
    path = paths.book_dir() / "measured" / CHECK
    content = {
        "what": what, "from": sources, "date": datetime.date.today().isoformat(), "versions": versions(),
        "device": next(e["device"] for e in costs["entries"]), "rows": found.reset_index().to_dict("records"),
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
