"""The option that says where stages are computed."""

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

def set_environment(cluster: str) -> None:
    """Check the cluster and hand it to the kernels that are started from here; it is part of no key."""
    if cluster:
        from recamlib.stages.cluster import read_cluster

        read_cluster(cluster)
        os.environ["RECAM_CLUSTER"] = cluster
