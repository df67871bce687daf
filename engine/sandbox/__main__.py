"""`python -m engine.sandbox` is `mixpanel-etl sandbox`: the sandbox as a process of its own."""

import sys

from engine.cli.main import main

if __name__ == "__main__":
    main(["sandbox", *sys.argv[1:]])
