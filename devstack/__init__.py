"""What runs on a developer's machine: the local stack, the demo, the generated pages."""
