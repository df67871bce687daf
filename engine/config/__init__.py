"""The configuration file, the environment and the shipped files: read once, and checked whole."""
