"""`python -m mlops_pipeline` is the `mlops` command."""

from mlops_pipeline.cli.app import main

main()
