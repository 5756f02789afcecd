"""The commands beside `serve`; each imports what is heavy only when it runs."""
