"""Lays out the sources of the site: the pages of ``docs/`` beside those that the code itself gives."""
