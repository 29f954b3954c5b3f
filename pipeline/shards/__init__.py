"""Write the dataset's promoters as WebDataset shards of k-mer ids, and read them back.

Entry points: write.write_shards, verify.verify_shards, preview.peek; index.read_index for one folder or URL,
location.find_index for the shards of a configuration. A row passes plan -> executors -> writer -> records -> store.
"""
