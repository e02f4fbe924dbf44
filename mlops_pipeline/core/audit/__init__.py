"""The hash chain of audit events, and the format of its anchors."""
