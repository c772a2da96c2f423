"""Where a job of training runs: the devices of this machine, of several, or of a job that torchrun or srun started."""

from dataclasses import dataclass
from os import environ
from typing import TYPE_CHECKING

from lupctl.core.system.jobs.outer import OuterJob, Rendezvous, find_outer_job, plan_rendezvous

if TYPE_CHECKING:
    import torch

    from lupctl.core.system.jobs.device import Placement


@dataclass(frozen=True)
class Machines:
    """Who takes part in a job.

    Args:
        rendezvous: of several machines that start this same command.
        outer: a job of torchrun or srun that this process belongs to.
    """

    rendezvous: Rendezvous | None
    outer: OuterJob | None

    @property
    def leads(self) -> bool:
        """Whether this process prints for its job, where a launcher says."""
        return self.outer is None or self.outer.rank == 0


def find_machines(nodes: int | None, rdzv_endpoint: str | None, node_rank: int | None) -> Machines:
    """From `--nodes`, `--rdzv-endpoint`, `--node-rank` and the environment to the machines of a job.

    Raises:
        UsageError: an option is missing, or the environment describes half a job.
    """
    rendezvous = plan_rendezvous(nodes, rdzv_endpoint, node_rank)
    return Machines(rendezvous, find_outer_job(environ) if rendezvous is None else None)


def place(gpus: int | None, processes: int | None, machines: Machines, *, planned: bool) -> "Placement":
    """The devices of all machines, from what is named for one.

    Args:
        gpus, processes: per machine.
        machines: that take part.
        planned: the devices need not be here.
    """
    from dataclasses import replace

    from lupctl.core.system.jobs.device import join_placement, pick_placement

    outer, rendezvous = machines.outer, machines.rendezvous
    here = pick_placement(gpus=gpus, processes=processes, planned=planned or outer is not None)
    if outer is not None:
        return join_placement(here, outer, asked=gpus or processes)
    if rendezvous is not None:
        line = f"{here.line}, on each of {rendezvous.nodes} machines"
        return replace(here, processes=here.processes * rendezvous.nodes, line=line)
    return here


@dataclass(frozen=True)
class DumpPlace:
    """Where a dump runs: in this process on one device, or spread.

    Args:
        device: of one process.
        placement: of several, or of one in a job of torchrun or srun.
        is_asked: whether their number was given.
    """

    device: "torch.device"
    placement: "Placement | None" = None
    is_asked: bool = True

    @property
    def name(self) -> str:
        """The device, or the kind of the devices."""
        return str(self.device) if self.placement is None else self.placement.kind

    @property
    def processes(self) -> int:
        """How many share the images."""
        return 1 if self.placement is None else self.placement.processes


def place_dump(
    device: str | None, gpus: int | None, processes: int | None, machines: Machines, *, planned: bool
) -> DumpPlace:
    """From `--device`, `--gpus` and `--processes` to the devices of a dump; all GPUs, else the CPU, by default.

    Raises:
        DeviceError: one is not there.
        UsageError: devices are named twice.
    """
    import torch

    from lupctl.core.errors import UsageError
    from lupctl.core.system.jobs.device import pick_device

    if device is not None:
        for name, given in (("--gpus", gpus), ("--processes", processes)):
            if given is not None:
                raise UsageError(f"--device {device} and {name} {given} both name devices", hint=f"leave {name} out")
        if machines.outer is not None and device != "cpu":
            raise UsageError(
                f"--device {device}: {machines.outer.launcher} started {machines.outer.processes} processes, "
                "one for each device",
                hint="leave --device out",
            )
        gpus = 0 if machines.outer is not None else None
    is_asked = gpus is not None or processes is not None or machines.outer is not None
    if not is_asked and (device is not None or torch.cuda.device_count() < 2):
        return DumpPlace(pick_device(device))
    placement = place(gpus, processes, machines, planned=planned)
    return DumpPlace(torch.device(placement.kind), placement, is_asked)
