"""Raw text: sources, formats, work units, cleaning and sentences."""
