"""The configuration: typed sections (schema) and the YAML loader with overrides."""
