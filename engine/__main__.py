"""`python -m engine` is `mixpanel-etl`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; P8: Ctrl-C means stop even while Python still reads the program."""
    try:
        from engine.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit("Stopped.")


if __name__ == "__main__":
    main()
