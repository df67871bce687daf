"""`python -m engine.sandbox`: the sandbox as a process of its own; its URL is the first line."""

import argparse
import sys
from pathlib import Path

from engine.errors import InputError
from engine.sandbox import Project, Spec, serve
from engine.sandbox.shapes import SHAPES


def announce(url: str) -> None:
    """The URL for programs, the warning for people."""
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stderr.write(f"This is a stand-in, NOT Mixpanel: invented events at {url}\n")


def main() -> int:
    """Reads the arguments and serves until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m engine.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", choices=list(SHAPES), default="mixed")
    parser.add_argument("--events-per-day", type=int, default=1000)
    parser.add_argument("--duplicate-percent", type=float, default=1.0)
    parser.add_argument("--reject-percent", type=float, default=0.0)
    parser.add_argument("--late-percent", type=float, default=2.0)
    parser.add_argument("--clock", choices=["utc", "local"], default="utc")
    parser.add_argument("--timezone", default="America/Los_Angeles")
    parser.add_argument("--per-hour", type=int, help="requests an hour; no limit by default")
    parser.add_argument("--per-second", type=int, help="requests a second; no limit by default")
    parser.add_argument("--cache-dir", type=Path, help="keep finished bodies there")
    given = vars(parser.parse_args())
    host, port = given.pop("host"), given.pop("port")
    limits = {name: given.pop(name) for name in ("per_hour", "per_second", "cache_dir")}
    try:
        serve(host, port, Project(Spec(**given), **limits), announce)
    except (InputError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
