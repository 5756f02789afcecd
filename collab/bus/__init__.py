"""Carries messages between replicas; may lose some."""
