"""WebDataset shards of k-mer ids: write the promoters of the dataset, and read them back.

Entry points: write.write_shards, verify.verify_shards, preview.peek; index.read_index for a folder or URL,
location.find_index for the shards of a configuration. Writing: plan -> executors -> writer -> records -> store.
"""
