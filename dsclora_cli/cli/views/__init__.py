"""Show progress bars, messages, tables and summaries of commands."""
