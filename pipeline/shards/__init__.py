"""The dataset's promoters to WebDataset shards: plan, records, writers, index, verification."""
