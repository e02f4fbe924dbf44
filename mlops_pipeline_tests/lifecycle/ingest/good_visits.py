"""Visits of the shop with nothing wrong in them, as rows and as lines of a CSV file."""

from mlops_pipeline_tests.worlds import VISITS, on, visit

TYPES = dict(VISITS["columns"])
HEADER = "customer,at,known,amount,units,kind\n"
GOOD_LINE = "1,2025-01-02 10:00:00,2025-01-02 10:00:00,1.5,1,shop\n"
ROWS = [visit(on(1, day), day) for day in range(1, 9)]
