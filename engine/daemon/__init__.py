"""The scheduler, whose turn it is, and the process of one tick of one flow."""
