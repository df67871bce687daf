"""The configuration file, environment variables, and the fields that they and the API share."""
