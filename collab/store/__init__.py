"""Where updates are kept: one port, several implementations."""
