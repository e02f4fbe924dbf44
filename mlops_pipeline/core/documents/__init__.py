"""Facts in, text or bytes out: report, plots, model card, technical file."""
