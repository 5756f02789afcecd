"""The Postgres store, which many replicas share. Needs the extra `postgres`."""
