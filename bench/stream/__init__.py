"""Rate of the stream, quality of its shuffle, and exactly-once reading under kills."""
