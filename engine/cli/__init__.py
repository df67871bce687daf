"""The commands, a module a group, and what a person sees of them."""
