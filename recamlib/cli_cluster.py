"""Options that say where stages are computed, and in how many processes they train."""

import os
from typing import Annotated

import typer

Cluster = Annotated[
    str,
    typer.Option(
        envvar="RECAM_CLUSTER", metavar="KIND[,NAME=VALUE,...]", show_default=False,
        help="Send stages to slurm, or to processes of this machine (local).",
    ),
]  # fmt: skip
Processes = Annotated[
    int, typer.Option(envvar="RECAM_PROCESSES", min=1, help="Processes of one training, on one machine.")
]


def set_environment(cluster: str, processes: int) -> None:
    """Check both and hand them to the kernels that are started from here; neither is part of any key."""
    os.environ["RECAM_PROCESSES"] = str(processes)
    if cluster:
        from recamlib.stages.cluster import read_cluster

        read_cluster(cluster)
        os.environ["RECAM_CLUSTER"] = cluster
