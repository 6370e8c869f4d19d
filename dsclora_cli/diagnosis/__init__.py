"""What `dsclora doctor` does: look at the machine and the installation, and test them."""
