"""The long-running daemon: brings each flow up to date at the ticks of its schedule.

- daemon: the main loop: signals, reloading of the configuration, the end
- reconcile: pure: flows before and after -> actions; exit status of a turn -> what follows
- scheduler: fires ticks when they are due (APScheduler)
- dispatcher: carries out a tick: turns of a flow, a process each
- turn_queue: which flows may run now
- launcher: starts the process of a turn and follows it
- flow_process: what runs in that process
- signals: SIGTERM, SIGINT and SIGHUP as a queue
"""
