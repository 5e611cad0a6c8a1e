"""What a folder of results says: one HTML page that opens offline, or tables for a paper."""

from .build import FORMATS, render, write_report

__all__ = ["FORMATS", "render", "write_report"]
