"""Run the command by itself."""

import sys

from loadtests.simulator.command import main

sys.exit(main())
