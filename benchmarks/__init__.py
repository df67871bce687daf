"""Measure the speed and the memory of the whole command, beside others on the same bytes.

`process` runs a command and measures its cost; `server` runs the sandbox in a process of its own.
Contenders run in turn: the program, the floors in `floors/`, the peers in `peers/`. `throughput`,
`memory`, `stages`, `scale`, `startup` and `control` each write a `result`. `report` shows results
(with `goals` and `chart`), and `compare` compares two of them.
"""
