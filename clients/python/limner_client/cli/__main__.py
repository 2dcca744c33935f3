"""Runs the command as `python -m limner_client.cli`."""

import sys

from limner_client.cli import main

sys.exit(main())
