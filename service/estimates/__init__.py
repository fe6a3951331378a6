"""What a deletion request would meet, before it is made."""
