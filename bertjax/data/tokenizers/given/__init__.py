"""What a tokenizer's folder from elsewhere says: its class, its entries, its registered tokens."""
