"""One typed expression tree: to Ibis, and to a function of a row."""
