"""The online store: the newest values of each entity, read in well under a millisecond."""
