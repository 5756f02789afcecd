"""The shared document: the only user of pycrdt."""
