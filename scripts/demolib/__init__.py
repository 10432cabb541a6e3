"""The demonstration behind scripts/demo: a stage that shows and checks, an image, a story."""
