"""The program that is PID 1 of an embedded sandbox: standard library, few imports, Python 3.8 or newer."""
