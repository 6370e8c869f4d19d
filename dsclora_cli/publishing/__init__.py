"""What `dsclora push` does: networks and adapters of the user, on the Hugging Face Hub."""
