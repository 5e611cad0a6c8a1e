"""What may be said of one revision, and to whom: the receipt."""

from .receipt import Receipt, assemble, receipt
from .software import versions

__all__ = ["Receipt", "assemble", "receipt", "versions"]
