"""`python -m engine` is `mixpanel-etl`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; P8: Ctrl-C stops it even while modules are still being imported."""
    try:
        from engine.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit("Stopped.")


if __name__ == "__main__":
    main()
