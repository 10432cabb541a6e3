"""Builders and machinery for tests: images, a real registry, mounts, canary trees."""
