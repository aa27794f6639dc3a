"""Doors: each turns calls from one wire into calls of the broker, and its outcomes back. None judges."""
