"""The full audit of methods against the distribution of retrained references: ``unlearn-kit audit``."""
