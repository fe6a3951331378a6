"""Sending webhooks, and only to addresses that may be sent to."""
