"""The long-running daemon: brings each flow up to date at the ticks of its schedule.

- daemon: the main loop: signals, reloading of the configuration, the end
- reconcile: pure: flows before and after -> actions; exit status of a turn -> what follows
- tick_timer: fires ticks when they are due (APScheduler)
- dispatcher: carries out a tick: turns of a flow, a process each
- turn_queue: which flows may run now
- launcher: starts the process of a turn and follows it
- flow_process: what runs in that process
- signals: SIGTERM, SIGINT and SIGHUP as a queue

A turn is one process that pulls what is due of one flow, until nothing is left or the flow has to
wait for its hourly budget.
"""
