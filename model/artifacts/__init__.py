"""What a trained model's directory holds: manifest, facts, JSON files."""
