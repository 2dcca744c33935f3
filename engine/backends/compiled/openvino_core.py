"""The one `openvino.Core` of a process.

Its CPU plugin gives the thread that loads it an alternate signal stack, and takes it away when the core goes
(`SigAltStackSetup` in OpenVINO's `src/plugins/intel_cpu`). Cores whose lives overlap hand each other's stacks back: the
thread is left with one that is unmapped, and the next signal that has a handler kills the process without a word.
"""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any

_making = Lock()


def shared_core() -> Any:
    """Return the process's `openvino.Core`; it is never let go."""
    with _making:
        return _core()


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()
