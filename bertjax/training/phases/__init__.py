"""The phases of a run while it trains."""
