"""Data Prep mapping sets: rules as they are written, and their evaluation over a batch. Pure."""
