"""All that is HTTP and WebSocket."""
