"""Where the bytes of a dataset are: local disks only, so far."""
