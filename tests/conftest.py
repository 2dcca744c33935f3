"""What every test needs: quiet libraries, one compute thread so that small kernels do not fight over two cores, and a
cache of exports that begins empty, is shared by the processes of a run and goes with it."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

if "PYTEST_LIMNER_CACHE" not in os.environ:
    cache = os.environ["PYTEST_LIMNER_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(
        prefix="limner-"
    )
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
