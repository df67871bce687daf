"""The control plane: Flow Service's API (`api`), secrets, and flows from resources and back."""
