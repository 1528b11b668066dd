"""Sources, schema, splits, encoder, batches."""
