"""`python -m dsclora_cli`, and the console script `dsclora`."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line and exit with its code."""
    from dsclora_cli.cli.app import main

    sys.exit(main())


if __name__ == "__main__":
    run()
