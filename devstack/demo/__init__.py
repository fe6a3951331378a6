"""The demo: a model forgets, from an empty database to the certificate."""
