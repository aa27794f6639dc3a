"""The program that runs as PID 1 inside an embedded sandbox. Standard library only, few imports, Python 3.8 or newer."""
