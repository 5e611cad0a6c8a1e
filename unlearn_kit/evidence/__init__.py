"""What may be said of one revision, and to whom: verdicts without a reference, the receipt, and how it is verified."""

from .card import card_section, write_card
from .claims import Verdict
from .folder import earlier_receipts, read_receipt, seal
from .inventory import inventory
from .ledger import Ledger
from .measure import Evidence, measure
from .receipt import Receipt, assemble, receipt
from .software import versions
from .statement import statement
from .thresholds import DEFAULT, Threshold, Thresholds
from .verify import Difference, Verification, verify

__all__ = [
    "DEFAULT",
    "Difference",
    "Evidence",
    "Ledger",
    "Receipt",
    "Threshold",
    "Thresholds",
    "Verdict",
    "Verification",
    "assemble",
    "card_section",
    "earlier_receipts",
    "inventory",
    "measure",
    "read_receipt",
    "receipt",
    "seal",
    "statement",
    "verify",
    "versions",
    "write_card",
]
