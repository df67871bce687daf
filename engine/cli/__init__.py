"""The commands, one module a command or a group of them.

main.py registers them; options.py has the options they share, console.py their stdout, stderr
and signals, progress.py the progress bar and the tables. It decides nothing about runs.
"""
