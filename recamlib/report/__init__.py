"""The paper's numbers beside ours: results, tables, figures."""
