"""Which job this process belongs to when torchrun or srun started it, and how machines of one job meet."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from lupctl.core.errors import UsageError

# Processes of one machine meet here. Its own name may not resolve, and looking it up then takes forever.
LOOPBACK = "127.0.0.1"
# Set by PyTorch's launcher in every process it starts: by torchrun, and by ours.
LAUNCHED = "TORCHELASTIC_RUN_ID"
FIRST_PORT, NUM_PORTS = 20_000, 20_000


@dataclass(frozen=True)
class OuterJob:
    """A job that something else started, and this process's place in it.

    Args:
        launcher: torchrun or srun.
        rank: of this process, from 0.
        processes: in the whole job.
        local_processes: on this machine; None where the launcher does not say.
        variables: what PyTorch wants to find in the environment and does not yet.
    """

    launcher: str
    rank: int
    processes: int
    local_processes: int | None
    variables: Mapping[str, str] = field(default_factory=dict)


def find_outer_job(environ: Mapping[str, str]) -> OuterJob | None:
    """The job that the environment describes, or None where this process is on its own.

    Raises:
        UsageError: it describes half of one.
    """
    try:
        if LAUNCHED in environ:
            local = environ.get("LOCAL_WORLD_SIZE")
            return OuterJob(
                "torchrun", int(environ["RANK"]), int(environ["WORLD_SIZE"]), None if local is None else int(local)
            )
        return _find_slurm_step(environ)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"the environment describes a job of several processes, but not this one's place in it ({error})",
            hint="start every process with torchrun or srun",
        ) from error


def _find_slurm_step(environ: Mapping[str, str]) -> OuterJob | None:
    """A job step of several tasks. The script of sbatch itself is no step, and one task is on its own."""
    if "SLURM_PROCID" not in environ or not {"SLURM_STEP_ID", "SLURM_STEPID"} & environ.keys():
        return None
    processes = int(environ.get("SLURM_STEP_NUM_TASKS") or environ["SLURM_NTASKS"])
    if processes == 1:
        return None
    rank = environ["SLURM_PROCID"]
    hosts = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or environ["SLURM_NODELIST"]
    job, step = int(environ["SLURM_JOB_ID"]), environ.get("SLURM_STEP_ID") or environ["SLURM_STEPID"]
    # Every task must arrive at the same port without talking, and two steps on one machine at different ones.
    port = FIRST_PORT + (job * 31 + int(step)) % NUM_PORTS
    variables = {
        "RANK": rank,
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or first_host(hosts),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(port),
    }
    return OuterJob("srun", int(rank), processes, None, variables)


def first_host(hosts: str) -> str:
    """The first name of a list as Slurm writes it.

    >>> first_host("node[007-012,020],gpu3"), first_host("gpu3,node[1-4]"), first_host("rack[2,4]-n[1-8]")
    ('node007', 'gpu3', 'rack2-n1')

    Raises:
        ValueError: the list is empty.
    """
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", hosts)
    if first is None:
        raise ValueError(f"no host in {hosts!r}")
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


@dataclass(frozen=True)
class Rendezvous:
    """How the machines of one job find one another.

    Args:
        nodes: machines.
        endpoint: HOST:PORT that all of them reach; a machine of that name listens there.
        node_rank: number of this machine, from 0; None lets the machines number themselves in the order they come.
        job: a word that is the same on all machines.
    """

    nodes: int
    endpoint: str
    node_rank: int | None = None
    job: str = "lupctl"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        host, _, port = self.endpoint.rpartition(":")
        return host, int(port)

    def local_address(self) -> str | None:
        """What other machines may call this one; None where only its own name is left.

        It is the address of the interface that leads to the endpoint. This machine's own name need not resolve.
        """
        host, port = self.address
        if host in (LOOPBACK, "localhost"):
            return LOOPBACK
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, port))  # sends nothing
                own = str(probe.getsockname()[0])
        except OSError:
            return None
        # Many systems give their own name an address that only they can reach; the others use the endpoint's name.
        return host if own.startswith("127.") else own


def plan_rendezvous(nodes: int | None, endpoint: str | None, node_rank: int | None) -> Rendezvous | None:
    """From `--nodes`, `--rdzv-endpoint` and `--node-rank` to how machines meet; None where one machine is meant.

    Raises:
        UsageError: one of them is missing, or makes no sense.
    """
    if nodes is None or nodes == 1:
        for name, given in (("--rdzv-endpoint", endpoint), ("--node-rank", node_rank)):
            if given is not None:
                raise UsageError(f"{name} {given}: only for several machines", hint="add --nodes N")
        return None
    if endpoint is None:
        raise UsageError(
            f"--nodes {nodes}: the machines need a place to meet",
            hint="add --rdzv-endpoint HOST:PORT, the same on every machine, HOST being one of them",
        )
    if not re.fullmatch(r"[^:\s]+:\d{1,5}", endpoint):
        raise UsageError(f"--rdzv-endpoint {endpoint}: expected HOST:PORT", hint="as in --rdzv-endpoint node1:29400")
    if node_rank is not None and node_rank >= nodes:
        raise UsageError(
            f"--node-rank {node_rank}: machines are numbered from 0 to {nodes - 1}", hint="leave it out, or lower it"
        )
    job = os.environ.get("SLURM_JOB_ID")
    return Rendezvous(nodes, endpoint, node_rank, f"lupctl-{job}" if job else "lupctl")
