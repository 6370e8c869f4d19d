"""Facts about the machine and the installation, and the self-test: the work of `dsclora doctor`."""
