"""What a network is trained towards: distances between outputs, features and truth."""
