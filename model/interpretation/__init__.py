"""In-silico saturation mutagenesis and its page."""
