"""One module per command: reads files, writes files."""
