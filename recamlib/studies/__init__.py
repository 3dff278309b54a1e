"""What each notebook studies: one module a notebook, and what they share."""
