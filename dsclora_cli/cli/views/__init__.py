"""What commands show: progress bars, messages, tables and summaries."""
