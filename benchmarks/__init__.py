"""The command line, the demo, and what measures the methods."""
