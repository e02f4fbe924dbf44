"""How a model version moves to production and out of it: records, the machine, approvals."""
