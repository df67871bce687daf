"""How fast, and in how much memory: the whole command, beside others on the same bytes.

`process` runs a command and tells what it cost; `server` is the sandbox in a process of its own;
`contenders` are what runs in turn: the program, the floors in `floors/`, the peers in `peers/`.
`throughput`, `memory`, `stages`, `scale` and `startup` measure, each into a `result`, which
`report` tells (`goals`, `chart`) and `compare` holds against another one.
"""
