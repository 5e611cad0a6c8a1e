"""A deployed model from the command line: a request in YAML or as options, and its outcome."""
