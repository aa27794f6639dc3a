"""Run commands and file operations in a disposable container and observe them. Mechanism only: no policy."""
