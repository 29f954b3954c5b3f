"""A process beside each rank that ends it when another rank or the launcher is lost."""
