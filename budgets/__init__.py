"""Decide what a model may do, count what it did, judge how it went. Pure: no I/O, no clock, no randomness."""
