"""``limner-server`` with a fake engine process: ``python -m tests.server.serve_fake FLAGS``."""

from __future__ import annotations

import sys

from server.__main__ import main
from server.engine_link.launcher import ProcessLauncher

if __name__ == "__main__":
    sys.exit(main(launcher=ProcessLauncher([], module="tests.server.fake_engine")))
