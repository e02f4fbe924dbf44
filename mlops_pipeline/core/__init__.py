"""Everything that computes or decides: pure. No file, clock, environment, network or Dagster.

Rooms import only those before them: audit, expressions, data, features, metrics, modelling,
fairness, evaluation, mitigation, monitoring, rollout, experiments, documents.
"""
