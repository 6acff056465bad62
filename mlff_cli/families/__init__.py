"""Model families: what schema, model, batches, loss and metrics belong together."""
