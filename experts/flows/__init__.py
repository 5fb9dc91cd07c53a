"""Invertible maps, their architectures and their frozen forms."""
