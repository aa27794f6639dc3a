"""The engine sandbox: a hardened, disposable container of a Docker engine."""
