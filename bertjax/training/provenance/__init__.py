"""What a checkpoint records of where it comes from: data, tokenizer, versions of packages."""
