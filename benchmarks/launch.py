"""Run one command and write what it cost, as JSON, to the file that the first argument names.

This is a process of its own that imports almost nothing: in Linux, the peak memory of a new process
starts at that of its parent, so a large parent would hide a small child.
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
