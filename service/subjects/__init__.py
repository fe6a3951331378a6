"""Subjects: what datasets and models have of them."""
