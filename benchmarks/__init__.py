"""Figures of remit beside the bare operations of the same run."""
