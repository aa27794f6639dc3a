"""The embedded backend: a resident guest in bubblewrap, one nested namespace a command."""
