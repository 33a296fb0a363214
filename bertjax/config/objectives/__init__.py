"""Configuration of objectives that have a section of their own."""
