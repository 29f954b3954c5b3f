"""The configuration: schema.DataConfig, and loader.load_config, which reads YAML with overrides for any schema."""
