"""Enforce a remit: every tool call goes through the broker into a sandbox and into the journal."""
