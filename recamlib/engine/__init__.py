"""Training, map extraction and prediction with any network."""
