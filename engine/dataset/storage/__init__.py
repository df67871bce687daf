"""Where the bytes of a dataset are: `base` says what a storage does, `local` is the local disk."""
