"""Where the records of access control lie: in memory, in a file, or where the rooms of many replicas are."""
