"""Preparation: a corpus becomes shards of records in a prepared folder."""
