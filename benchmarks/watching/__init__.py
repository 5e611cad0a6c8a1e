"""A suite while it runs: what a folder of results says of it, and how that is shown in a terminal."""
