"""Questions answered once, by a command of their own."""
