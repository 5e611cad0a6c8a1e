"""What may be said of one revision, and to whom: the receipt, and the rules by which figures become words."""

from .ledger import Ledger
from .receipt import Receipt, assemble, receipt
from .software import versions

__all__ = ["Ledger", "Receipt", "assemble", "receipt", "versions"]
