"""Point-in-time feature frames, aggregates, and their twins on streams of events."""
