"""The prediction service under a load generator, beside other servers of the same model."""
