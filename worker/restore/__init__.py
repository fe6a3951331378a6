"""What was forgotten, kept outside the database, and compared after a backup was restored."""
