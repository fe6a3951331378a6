"""Sends webhooks, and only to permitted addresses."""
