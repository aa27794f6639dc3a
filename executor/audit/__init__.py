"""Keep the record of a run: a journal that shows every later change, and the receipt that seals it."""
