"""Corpus formats: their readers yield one text at a time; errors name the file and line."""
