"""A real-time collaboration server for people and software agents."""

__version__ = "0.1.0"
