"""The control plane: what clients declare (`api`), their secrets, and flows made of all that."""
