"""One room on many replicas: what each says to the others, and what it makes of what they say."""
