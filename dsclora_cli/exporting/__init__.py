"""Files of networks for other programs: `dsclora export`."""
