"""The method: torch and the standard library, no files, no settings, no clock."""
