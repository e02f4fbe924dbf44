"""What answers for a model: cards, audits, anchors, erasure."""
