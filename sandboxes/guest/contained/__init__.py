"""The guest of a container: root without the rights of root, and commands under another uid."""
