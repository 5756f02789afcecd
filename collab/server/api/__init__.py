"""The REST API under /v1: one table of routes, and what each of them does."""
