"""Denoising-step scheduling: which rows of which images run in the next UNet call.

Pure Python: no torch, no I/O; time is a clock passed in, so `simulate` runs this very code in virtual time.
"""

from .cadence import Cadence
from .costs import CostCurve, without_noise
from .errors import Infeasible, InvalidJob, QueueFull, SchedulingError
from .forecast import Estimate
from .policy import Policy
from .scheduler import Scheduler
from .snapshot import Snapshot
from .tick import Tick
from .work import Priority, Shape, WorkItem

__all__ = [
    "Cadence",
    "CostCurve",
    "Estimate",
    "Infeasible",
    "InvalidJob",
    "Policy",
    "Priority",
    "QueueFull",
    "Scheduler",
    "SchedulingError",
    "Shape",
    "Snapshot",
    "Tick",
    "WorkItem",
    "without_noise",
]
