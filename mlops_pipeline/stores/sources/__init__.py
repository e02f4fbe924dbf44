"""Delivered data, by format."""
