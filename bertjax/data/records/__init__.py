"""Records: their bytes, the shards and the manifest that hold them, and reading them."""
