"""What every test needs: quiet libraries, one compute thread so that small kernels do not fight over two cores, and a
cache of exports that begins empty, is shared by the processes of a run and goes with it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

if "PYTEST_LIMNER_CACHE" not in os.environ:
    cache = os.environ["PYTEST_LIMNER_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
        prefix="limner-"
    )
    atexit.register(shutil.rmtree, cache, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def end_of_module() -> Iterator[None]:
    """Let go of what was kept for a module."""
    yield
    # After the settings above, which it reads on import.
    from tests.keeping import forget

    forget()
