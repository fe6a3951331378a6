"""Registering webhooks, and their deliveries."""
