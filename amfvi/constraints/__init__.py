"""What values parameters may take, and the transforms that remove the constraints."""
