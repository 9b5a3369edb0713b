"""The world: environments found by name, stepped together, their endings kept apart."""
