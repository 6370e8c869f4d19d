"""What `dsclora upscale` does: from arguments to finished files."""
