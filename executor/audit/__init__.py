"""Keep the record of a run: an append-only journal that shows every later change, and the receipt that seals it."""
