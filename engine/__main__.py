"""`python -m engine` is `mixpanel-etl`."""

from engine.cli import main

if __name__ == "__main__":
    main()
