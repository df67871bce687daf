"""One flow: the stages of a pull, the runner, and the sources of windows.

Those are backfill, incremental and replay. It knows no command line, no HTTP server and no daemon.
"""
