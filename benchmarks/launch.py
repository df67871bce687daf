"""Runs one command and leaves what it cost, as JSON, in the file that is named first.

In a process of its own that imports next to nothing: to Linux a new process's peak of memory
begins at that of the one that started it, so a large parent would hide a small child.
"""

import json
import os
import sys
import time

if __name__ == "__main__":
    path, *command = sys.argv[1:]
    started = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    cost = {
        "status": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is a heavy import
        json.dump(cost, file)
