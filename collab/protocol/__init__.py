"""Bytes ↔ messages: every decoder of what a peer sends, and the frames that go back."""
