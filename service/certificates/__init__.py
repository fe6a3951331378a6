"""Certificates, for programs and for people."""
